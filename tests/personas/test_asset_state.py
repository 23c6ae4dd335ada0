from pathlib import Path

import pytest

from server.personas import assets, queries, service
from server.work import App, Caller

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    ("removed", "state"),
    [
        ([], (True, True, True)),
        (["skill.md"], (True, False, True)),
        (["experience.md"], (True, True, False)),
        (["skill.md", "experience.md"], (True, False, False)),
        (["skill.md", "experience.md", ""], (False, False, False)),
    ],
)
async def test_each_part_of_the_files_is_there_or_not_on_its_own(
    app: App, caller: Caller, removed: list[str], state: tuple[bool, bool, bool]
):
    con = await service.register_persona(app, caller, name="Con", role="developer")
    for part in removed:
        path = Path(con.path) / part
        if path.is_dir():
            path.rmdir()
        else:
            path.unlink()

    async with app.work(caller) as work:
        found = await queries.persona_at(work, con.slug)

    assert (found.assets.directory, found.assets.skill, found.assets.experience) == state
    assert found.assets == assets.state(Path(con.path))


async def test_a_description_of_exactly_the_limit_is_kept_whole(app: App, caller: Caller):
    con = await service.register_persona(
        app, caller, name="Con", role="developer", description="x" * 10_000
    )

    assert con.description == "x" * 10_000
