import pytest
from dirty_equals import IsDatetime, IsPositiveInt
from inline_snapshot import snapshot

from server.personas.service import register_persona
from server.work import App, Caller

pytestmark = pytest.mark.anyio


async def test_registering_records_the_persona_and_seeds_its_files(app: App, caller: Caller):
    persona = await register_persona(app, caller, name="Con", role="Developer")

    folder = app.data_root / "personas" / persona.slug
    assert persona.model_dump() == {
        "id": IsPositiveInt(),
        "slug": f"developer-con-{persona.id}",
        "name": "Con",
        "role": "developer",
        "status": "active",
        "description": None,
        "created_at": IsDatetime(),
        "updated_at": IsDatetime(),
        "path": str(folder),
        "assets": {"directory": True, "skill": True, "experience": True},
        "role_created": True,
    }
    assert (folder / "skill.md").read_text() == snapshot("""\
# Con — developer

## Core Identity

[Who Con is: what they are responsible for, what they stand for, what they know best.]

## Skills & Preferences

[What Con does well, the tools and habits they prefer, and what they avoid.]

## Communication Style

[How Con speaks: tone, length, what they always say and never say.]
""")
