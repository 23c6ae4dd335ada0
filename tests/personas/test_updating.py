from pathlib import Path

import pytest
from sqlalchemy import select

from db.tables import AuditRow, SkillVersionRow
from server.errors import Invalid
from server.personas import files, queries, service
from server.personas.queries import PersonaNotFound
from server.personas.service import NothingToChange, PersonaArchived, RoleIsFixed
from server.personas.shapes import Registered
from server.work import App, Caller, Work

pytestmark = pytest.mark.anyio


@pytest.fixture
async def con(app: App, caller: Caller) -> Registered:
    return await service.register_persona(
        app, caller, name="Con", role="developer", description="Writes code"
    )


async def test_a_renamed_persona_keeps_its_slug_and_files(con: Registered, work: Work):
    renamed = await service.update_persona(work, "con", name=" Connor ")

    assert (renamed.name, renamed.slug, renamed.path) == ("Connor", con.slug, con.path)
    assert renamed.updated_at >= con.updated_at


async def test_an_empty_description_removes_it(con: Registered, work: Work):
    changed = await service.update_persona(work, "con", description="  ")

    assert changed.description is None


async def test_what_changed_and_from_what_is_in_the_audit_log(con: Registered, work: Work):
    await service.update_persona(work, "con", name="Connor", description="")

    query = select(AuditRow.details).where(AuditRow.action == "persona.updated")
    assert (await work.session.scalars(query)).all() == [
        {
            "from": {"name": "Con", "description": "Writes code"},
            "to": {"name": "Connor", "description": None},
        }
    ]


async def test_another_role_is_refused_with_the_reason(con: Registered, work: Work):
    with pytest.raises(RoleIsFixed) as refused:
        await service.update_persona(work, "con", role="tester")

    assert str(refused.value) == (
        f"The role of {con.slug} cannot be changed: its slug and its files carry it. Register a"
        " new persona with the other role and archive this one."
    )


@pytest.mark.usefixtures("con")
async def test_an_empty_change_is_refused(work: Work):
    with pytest.raises(NothingToChange):
        await service.update_persona(work, "con", role="DEVELOPER")


@pytest.mark.usefixtures("con")
async def test_an_unknown_status_is_refused(work: Work):
    with pytest.raises(Invalid, match="status: must be 'active' or 'archived'"):
        await service.update_persona(work, "con", status="retired")


async def test_an_archived_persona_can_be_read_and_restored_but_not_used(
    con: Registered, work: Work
):
    await service.update_persona(work, con.slug, status="archived")

    for use in (
        service.update_persona(work, con.slug, name="Connor"),
        files.write_skill(work.app, work.caller, con.slug, content="x"),
        files.add_experience(work, con.slug, "x"),
    ):
        with pytest.raises(PersonaArchived, match="Restore it first"):
            await use
    assert (await files.read_files(work, con.slug)).slug == con.slug
    restored = await service.update_persona(work, con.slug, status="active", name="Connor")
    assert (restored.status, restored.name) == ("active", "Connor")


async def test_archiving_twice_is_no_error(con: Registered, work: Work):
    await service.update_persona(work, con.slug, status="archived")

    again = await service.update_persona(work, con.slug, status="archived")

    assert again.status == "archived"


async def test_deleting_keeps_files_and_history(con: Registered, work: Work):
    await files.write_skill(work.app, work.caller, con.slug, content="new")

    deleted = await service.delete_persona(work, con.slug)

    assert deleted.kept_files == con.path
    assert (Path(con.path) / "skill.md").read_text() == "new"
    with pytest.raises(PersonaNotFound):
        await queries.get_persona(work, con.slug)
    kept = await work.session.scalars(
        select(SkillVersionRow.content).where(SkillVersionRow.slug == con.slug)
    )
    assert len(kept.all()) == 2
    actions = await work.session.scalars(
        select(AuditRow.action).where(AuditRow.subject == con.slug).order_by(AuditRow.id)
    )
    assert actions.all() == ["persona.registered", "skill.replaced", "persona.deleted"]


async def test_deleting_a_persona_without_files_says_so(con: Registered, work: Work):
    for file in Path(con.path).iterdir():
        file.unlink()
    Path(con.path).rmdir()

    deleted = await service.delete_persona(work, con.slug)

    assert deleted.kept_files is None
