from pathlib import Path

import anyio
import pytest
from anyio import from_thread
from dirty_equals import IsDatetime, IsPositiveInt
from inline_snapshot import snapshot
from jinja2 import FunctionLoader
from sqlalchemy import func, select, text

from db.tables import AuditRow, PersonaRow, RoleRow
from server.errors import AssetsFailed, Forbidden, Invalid
from server.personas import files, listing, service
from server.personas.service import register_persona
from server.personas.shapes import Registered
from server.rendering import environment
from server.work import READ_ONLY, App, Caller
from tests.conftest import but, operator

pytestmark = pytest.mark.anyio


async def counted(app: App, caller: Caller) -> tuple[int, int]:
    async with app.work(caller) as work:
        roles = await work.session.scalar(select(func.count()).select_from(RoleRow))
        personas = await work.session.scalar(select(func.count()).select_from(PersonaRow))
    return roles or 0, personas or 0


async def test_registering_records_the_persona_and_seeds_its_files(app: App, caller: Caller):
    persona = await register_persona(app, caller, name=" Con ", role=" Developer ")

    assert persona.model_dump() == {
        "id": IsPositiveInt(),
        "slug": f"developer-con-{persona.id}",
        "name": "Con",
        "role": "developer",
        "status": "active",
        "description": None,
        "created_at": IsDatetime(),
        "updated_at": IsDatetime(),
        "path": str(app.data_root / "personas" / persona.slug),
        "assets": {"directory": True, "skill": True, "experience": True},
        "role_created": True,
        "files_created": ["skill.md", "experience.md"],
    }


async def test_a_new_skill_asks_for_what_belongs_there(app: App, caller: Caller):
    persona = await register_persona(app, caller, name="Con", role="Developer")

    assert (Path(persona.path) / "skill.md").read_text(encoding="utf-8") == snapshot("""\
# Con — developer

## Core Identity

[Who Con is: what they are responsible for, what they stand for, what they know best.]

## Skills & Preferences

[What Con does well, the tools and habits they prefer, and what they avoid.]

## Communication Style

[How Con speaks: tone, length, what they always say and never say.]
""")


async def test_a_new_experience_log_says_how_it_is_kept(app: App, caller: Caller):
    persona = await register_persona(app, caller, name="Con", role="developer")

    assert (Path(persona.path) / "experience.md").read_text(encoding="utf-8") == snapshot("""\
# Experience Log — Con

<!-- Append-only: the newest entry stands on top and earlier ones are never rewritten. -->
<!-- Curate periodically: move what has proved itself into skill.md. -->
""")


async def test_a_detailed_skill_has_further_sections(app: App, caller: Caller):
    persona = await register_persona(
        but(app, skill_template="detailed"), caller, name="Con", role="developer"
    )

    skill = (Path(persona.path) / "skill.md").read_text(encoding="utf-8")
    assert [line for line in skill.splitlines() if line.startswith("#")] == snapshot(
        [
            "# Con — developer",
            "## Core Identity",
            "## Skills & Preferences",
            "## Communication Style",
            "## Decision Boundaries",
            "## Working Method",
            "## Quality Bar",
            "## Anti-Patterns",
        ]
    )
    assert "\n\n\n" not in skill


async def test_a_name_is_data_in_a_template_and_never_its_source(app: App, caller: Caller):
    name = "{{7*7}} & {% raw %} <i>"

    persona = await register_persona(app, caller, name=name, role="developer")

    skill = (Path(persona.path) / "skill.md").read_text(encoding="utf-8")
    assert skill.startswith(f"# {name} — developer\n")
    assert skill.endswith("\n")


async def test_operators_can_replace_a_template(app: App, caller: Caller, tmp_path: Path):
    folder = tmp_path / "templates"
    (folder / "assets").mkdir(parents=True)
    (folder / "assets" / "skill.md").write_text("House style for {{ name }}\n")

    persona = await register_persona(
        but(app, templates=environment(folder)), caller, name="Con", role="developer"
    )

    assert (Path(persona.path) / "skill.md").read_text() == "House style for Con\n"
    assert (Path(persona.path) / "experience.md").read_text().startswith("# Experience Log")


@pytest.mark.parametrize(
    "name",
    ["../../etc", "a/b", "C:\\x", "王芳", "{{7*7}}", "🦊", "con", "-", "x" * 100],
)
async def test_whatever_the_name_nothing_is_written_outside_one_directory(
    app: App, caller: Caller, name: str
):
    persona = await register_persona(app, caller, name=name, role="../role")

    written = {path for path in app.data_root.rglob("*") if path.is_file()}
    folder = app.data_root / "personas" / persona.slug
    assert persona.name == name
    assert written == {folder / "skill.md", folder / "experience.md"}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"name": "", "role": "developer"}, "name: must not be empty or blank."),
        ({"name": " \t ", "role": "developer"}, "name: must not be empty or blank."),
        ({"name": "\u200b", "role": "developer"}, "name: must not be empty or blank."),
        ({"name": "\u3164", "role": "developer"}, "name: must not be empty or blank."),
        (
            {"name": "Con", "role": "develo\u200bper"},
            "role: must not contain invisible characters.",
        ),
        ({"name": "Con", "role": " "}, "role: must not be empty or blank."),
        ({"name": 7, "role": "developer"}, "name: must be text."),
        ({"name": None, "role": "developer"}, "name: must be text."),
        (
            {"name": "x" * 5000, "role": "developer"},
            "name: must have at most 100 characters.",
        ),
        ({"name": "Con", "role": "x" * 101}, "role: must have at most 100 characters."),
        (
            {"name": "Con", "role": "developer", "description": "x" * 10_001},
            "description: must have at most 10000 characters.",
        ),
        (
            {"name": "Con\nEve", "role": "developer"},
            "name: must not contain control characters or line breaks.",
        ),
        ({"name": "Con\0", "role": "developer"}, "name: must not contain the NUL character."),
        ({"name": "Con\ud800", "role": "developer"}, "name: must be valid Unicode text."),
        (
            {"name": "Con\u202egpj", "role": "developer"},
            "name: must not contain characters that change the writing direction.",
        ),
        (
            {"name": "Con", "role": "developer", "description": "a\x1bb"},
            "description: must not contain control characters.",
        ),
        (
            {"name": "", "role": ""},
            "name: must not be empty or blank. role: must not be empty or blank.",
        ),
    ],
)
async def test_values_that_break_a_rule_are_refused_by_field_and_leave_nothing(
    app: App, caller: Caller, values: dict[str, str], message: str
):
    with pytest.raises(Invalid) as refused:
        await register_persona(app, caller, **values)

    assert str(refused.value) == message
    assert await counted(app, caller) == (0, 0)
    assert list(app.data_root.iterdir()) == []


async def test_a_role_is_found_in_any_case_and_keeps_its_first_spelling(app: App, caller: Caller):
    first = await register_persona(app, caller, name="Con", role="QA Lead")
    second = await register_persona(app, caller, name="Eve", role="qa lead")

    async with app.work(caller) as work:
        (role,) = await listing.list_roles(work)
    assert (first.role_created, second.role_created) == (True, False)
    assert (role.name, role.label, role.persona_count) == ("qa lead", "QA Lead", 2)


async def test_a_second_registration_of_a_name_gets_a_slug_and_files_of_its_own(
    app: App, caller: Caller
):
    first = await register_persona(app, caller, name="Con", role="developer")
    skill = Path(first.path) / "skill.md"
    skill.write_text("mine")

    second = await register_persona(app, caller, name="Con", role="developer")

    assert second.id > first.id
    assert second.path != first.path
    assert skill.read_text() == "mine"


async def test_files_that_lie_there_already_are_kept_and_the_answer_says_so(
    app: App, caller: Caller
):
    """A data root that was used with another database."""
    first = await register_persona(app, caller, name="Con", role="developer")
    folder = app.data_root / "personas" / f"developer-con-{first.id + 1}"
    folder.mkdir()
    (folder / "skill.md").write_text("from before")

    second = await register_persona(app, caller, name="Con", role="developer")

    assert second.path == str(folder)
    assert second.files_created == ["experience.md"]
    assert (folder / "skill.md").read_text() == "from before"


async def test_the_first_persona_of_a_fresh_database_is_number_one(own_app: App):
    caller = operator(own_app)

    persona = await register_persona(own_app, caller, name="Con", role="developer")

    assert persona.slug == "developer-con-1"


async def test_the_row_stays_when_the_files_cannot_be_written_and_repair_heals_it(
    app: App, caller: Caller
):
    (app.data_root / "personas").write_text("in the way")

    with pytest.raises(AssetsFailed) as failed:
        await register_persona(app, caller, name="Con", role="developer")

    async with app.work(caller) as work:
        (listed,) = (await listing.list_personas(work)).personas
        assert await service.broken_personas(work) == [listed.slug]
    assert listed.assets.complete is False
    assert str(failed.value) == (
        f"Persona {listed.id} ({listed.slug}) is registered, but not all of its files could be"
        f" written: not a directory. Make personas/{listed.slug} in the data root writable, then call"
        f" repair_persona_assets or `dramatis persona repair {listed.slug}`."
    )

    (app.data_root / "personas").unlink()
    async with app.work(caller) as work:
        healed = await service.repair_assets(work, listed.slug)
        again = await service.repair_assets(work, listed.slug)
    assert (healed.created, again.created) == (["skill.md", "experience.md"], [])
    assert again.assets.complete is True


async def test_a_broken_template_is_a_failure_of_the_files_and_not_of_the_registration(
    app: App, caller: Caller, tmp_path: Path
):
    folder = tmp_path / "templates"
    (folder / "assets").mkdir(parents=True)
    (folder / "assets" / "skill.md").write_text("{{ nme }}")

    with pytest.raises(
        AssetsFailed, match=r"The template assets/skill.md is broken: 'nme' is undefined"
    ):
        await register_persona(
            but(app, templates=environment(folder)), caller, name="Con", role="developer"
        )


async def test_repair_writes_only_what_is_missing(app: App, caller: Caller):
    persona = await register_persona(app, caller, name="Con", role="developer")
    skill, experience = (Path(persona.path) / file for file in ("skill.md", "experience.md"))
    skill.write_text("mine")
    experience.unlink()

    async with app.work(caller) as work:
        repaired = await service.repair_assets(work, "con")

    assert repaired.created == ["experience.md"]
    assert skill.read_text() == "mine"


async def test_a_directory_that_is_a_link_out_of_the_data_root_is_not_followed(
    app: App, caller: Caller, tmp_path: Path
):
    persona = await register_persona(app, caller, name="Con", role="developer")
    elsewhere = tmp_path / "elsewhere"
    Path(persona.path).rename(elsewhere)
    Path(persona.path).symlink_to(elsewhere)
    (elsewhere / "skill.md").unlink()

    async with app.work(caller) as work:
        with pytest.raises(AssetsFailed, match="is a symbolic link"):
            await service.repair_assets(work, "con")

    assert not (elsewhere / "skill.md").exists()


async def test_a_caller_who_may_only_read_cannot_register(app: App, caller: Caller):
    with pytest.raises(Forbidden):
        await register_persona(app, but(caller, scopes=READ_ONLY), name="Con", role="developer")

    assert await counted(app, caller) == (0, 0)


async def test_who_registered_what_is_in_the_audit_log(app: App, caller: Caller):
    persona: Registered = await register_persona(app, caller, name="Con", role="developer")

    async with app.work(caller) as work:
        (entry,) = await work.session.scalars(select(AuditRow))
    assert (entry.caller_kind, entry.caller_name) == ("operator", "tester")
    assert (entry.action, entry.subject) == ("persona.registered", persona.slug)
    assert entry.details == {"name": "Con", "role": "developer"}


@pytest.mark.parametrize("template", ["{{ 1 / 0 }}", "{{ name + 1 }}", "{% if %}"])
async def test_whatever_a_template_raises_the_answer_names_the_persona(
    app: App, caller: Caller, tmp_path: Path, template: str
):
    folder = tmp_path / "templates"
    (folder / "assets").mkdir(parents=True)
    (folder / "assets" / "experience.md").write_text(template)

    with pytest.raises(AssetsFailed, match=r"\(developer-con-\d+\) is registered"):
        await register_persona(
            but(app, templates=environment(folder)), caller, name="Con", role="developer"
        )


async def test_repair_does_not_claim_what_it_could_not_heal(app: App, caller: Caller):
    persona = await register_persona(app, caller, name="Con", role="developer")
    skill = Path(persona.path) / "skill.md"
    skill.unlink()
    skill.mkdir()

    async with app.work(caller) as work:
        with pytest.raises(AssetsFailed, match="no file is in the place of a file"):
            await service.repair_assets(work, "con")


async def test_of_two_first_personas_of_a_role_the_later_finds_what_the_earlier_made(
    own_app: App,
):
    """The second transaction waits in its insert until the first one commits."""
    caller = operator(own_app)
    roles: list[bool] = []

    async def register_second() -> None:
        second = await register_persona(own_app, caller, name="Eve", role="developer")
        roles.append(second.role_created)

    async with anyio.create_task_group() as tasks, own_app.work(caller) as work:
        await work.session.execute(
            text("INSERT INTO dramatis.roles (name, label) VALUES ('developer', 'Developer')")
        )
        tasks.start_soon(register_second)
        waiting = text("SELECT count(*) FROM pg_locks WHERE NOT granted")
        with anyio.fail_after(5):
            while not await work.session.scalar(waiting):
                await anyio.lowlevel.checkpoint()
        await work.session.commit()

    assert roles == [False]


async def test_a_file_that_somebody_makes_while_it_is_seeded_stays(app: App, caller: Caller):
    persona = await register_persona(app, caller, name="Con", role="developer")
    skill = Path(persona.path) / "skill.md"
    skill.unlink()

    def load(_: str) -> str:
        skill.write_text("mine")
        return "seeded"

    templates = environment(None)
    templates.loader = FunctionLoader(load)

    async with app.work(caller) as work:
        repaired = await service.repair_assets(but(work, app=but(app, templates=templates)), "con")

    assert repaired.created == []
    assert skill.read_text() == "mine"
    assert sorted(path.name for path in skill.parent.iterdir()) == ["experience.md", "skill.md"]


async def test_a_caller_who_leaves_in_between_leaves_no_persona_without_files(
    app: App, caller: Caller
):
    leaving = anyio.CancelScope()

    def load(_: str) -> str:
        from_thread.run_sync(leaving.cancel)
        return "seeded"

    templates = environment(None)
    templates.loader = FunctionLoader(load)

    with leaving:
        await register_persona(but(app, templates=templates), caller, name="Con", role="developer")

    async with app.work(caller) as work:
        assert leaving.cancelled_caught
        assert await service.broken_personas(work) == []


@pytest.mark.parametrize("verb", ["update", "delete", "repair", "write", "append"])
async def test_a_caller_who_may_only_read_can_change_nothing(app: App, caller: Caller, verb: str):
    con = await register_persona(app, caller, name="Con", role="developer")
    reader = but(caller, scopes=READ_ONLY)

    async with app.work(reader) as work:
        acts = {
            "update": lambda: service.update_persona(work, con.slug, name="Eve"),
            "delete": lambda: service.delete_persona(work, con.slug),
            "repair": lambda: service.repair_assets(work, con.slug),
            "write": lambda: files.write_skill(app, reader, con.slug, content="x"),
            "append": lambda: files.add_experience(work, con.slug, "x"),
        }
        with pytest.raises(Forbidden):
            await acts[verb]()
