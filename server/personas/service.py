"""Register personas and change what is recorded of them. Every surface calls these functions."""

from typing import Any

import anyio
import anyio.to_thread
from sqlalchemy import bindparam, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm.attributes import set_committed_value

from db.tables import PersonaRow, RoleRow
from server import audit
from server.access import require
from server.errors import AssetsFailed, Conflict, Invalid, parse
from server.personas import assets
from server.personas.queries import describe, name_key, the_persona
from server.personas.shapes import Changes, Deleted, Persona, Registered, Registration, Repaired
from server.personas.slugs import slug_stem
from server.rendering import TemplateBroken
from server.work import App, Caller, Work


class PersonaArchived(Conflict):
    code = "persona_archived"


class RoleIsFixed(Invalid):
    code = "role_is_fixed"


class NothingToChange(Invalid):
    code = "nothing_to_change"


async def register_persona(
    app: App, caller: Caller, *, name: str, role: str, description: str | None = None
) -> Registered:
    """Record a persona, then seed its files.

    The one verb that takes no `Work`: it commits before it touches the disk, so that a failing
    disk costs no registration (SPEC 1.8). A name and role that are there already get a second
    persona with a slug of its own.

    Raises:
        Invalid: a value breaks a rule; nothing is left behind.
        AssetsFailed: the persona is registered and some of its files are missing.
    """
    require(caller, "personas:write")
    wanted = parse(Registration, name=name, role=role, description=description)
    async with app.work(caller) as work:
        role_row, role_created = await _role(work, wanted.role)
        row = await _insert(work, wanted, role_row)
        await audit.record(
            work, "persona.registered", row.slug, {"name": row.name, "role": row.role.name}
        )
    created: list[str] = []
    # A caller who leaves now is not to leave a persona without files behind.
    with anyio.CancelScope(shield=True):
        created = await _seed(app, row)
    persona = await describe(app, row)
    return Registered(**dict(persona), role_created=role_created, files_created=created)


async def update_persona(
    work: Work,
    reference: str,
    *,
    name: str | None = None,
    description: str | None = None,
    status: str | None = None,
    role: str | None = None,
) -> Persona:
    """Change a persona. The slug and the files keep their names.

    Args:
        description: an empty text removes it.
        status: `archived` is the everyday removal; `active` restores.
        role: refused when it differs from the persona's, because a role is fixed.

    Raises:
        PersonaNotFound, AmbiguousPersona: see `the_persona`.
        RoleIsFixed: another role was asked for.
        NothingToChange: every argument was left out.
        PersonaArchived: it must be restored first, or along with the change.
    """
    require(work.caller, "personas:write")
    changes = parse(Changes, name=name, description=description, status=status)
    row = await the_persona(work, reference, lock=True)
    if role is not None and role.strip().lower() != row.role.name:
        raise RoleIsFixed(
            f"The role of {row.slug} cannot be changed: its slug and its files carry it.",
            hint="Register a new persona with the other role and archive this one.",
        )
    wanted = changes.model_dump(exclude_none=True)
    if not wanted:
        raise NothingToChange(
            "Nothing to change was given.", hint="Give a name, a description or a status."
        )
    if changes.status != "active" and wanted != {"status": "archived"}:
        refuse_archived(row)
    if "description" in wanted:
        wanted["description"] = changes.description or None
    before = {field: getattr(row, field) for field in wanted}
    for field, value in wanted.items():
        setattr(row, field, value)
    row.name_key = name_key(row.name)
    await work.session.flush()
    await audit.record(work, "persona.updated", row.slug, {"from": before, "to": wanted})
    return await describe(work.app, row)


async def delete_persona(work: Work, reference: str) -> Deleted:
    """Remove the record of a persona for good. Its files, skill versions and history stay."""
    require(work.caller, "personas:write")
    row = await the_persona(work, reference, lock=True)
    folder = assets.directory(work.app.data_root, row.slug)
    state = await anyio.to_thread.run_sync(assets.state, folder)
    details: dict[str, Any] = {"id": row.id, "name": row.name, "role": row.role.name}
    await work.session.delete(row)
    await audit.record(work, "persona.deleted", row.slug, details)
    return Deleted(slug=row.slug, kept_files=str(folder) if state.directory else None)


async def repair_assets(work: Work, reference: str) -> Repaired:
    """Write whichever of a persona's files are missing, and touch none that is there.

    Raises:
        AssetsFailed: they still cannot be written; try again when the cause is gone.
    """
    require(work.caller, "personas:write")
    row = await the_persona(work, reference, lock=True)
    created = await _seed(work.app, row)
    if created:
        await audit.record(work, "persona.repaired", row.slug, {"files": ", ".join(created)})
    persona = await describe(work.app, row)
    if not persona.assets.complete:
        raise AssetsFailed(
            f"Something that is no file is in the place of a file of {row.slug}.",
            hint=f"Remove it from personas/{row.slug} in the data root and repair again.",
        )
    return Repaired(slug=row.slug, path=persona.path, created=created, assets=persona.assets)


async def broken_personas(work: Work) -> list[str]:
    """List the slugs of active personas that lack a file."""
    slugs = (
        await work.session.scalars(
            select(PersonaRow.slug).where(PersonaRow.status == "active").order_by(PersonaRow.id)
        )
    ).all()

    def lacking() -> list[str]:
        return [
            slug
            for slug in slugs
            if not assets.state(assets.directory(work.app.data_root, slug)).complete
        ]

    return await anyio.to_thread.run_sync(lacking)


def refuse_archived(row: PersonaRow) -> None:
    """Refuse the use of an archived persona.

    Raises:
        PersonaArchived: it is one.
    """
    if row.status == "archived":
        raise PersonaArchived(
            f"{row.slug} is archived.",
            hint="Restore it first by setting its status to active.",
        )


def _seeding_failed(row: PersonaRow, error: OSError | TemplateBroken) -> AssetsFailed:
    """Say whose files are missing, why, and what to do; paths stay relative."""
    if isinstance(error, TemplateBroken):
        reason = error.args[0].rstrip(".")
        remedy = "Mend the template in the folder that DRAMATIS_TEMPLATES names"
    else:
        reason = assets.reason(error)
        remedy = f"Make personas/{row.slug} in the data root writable"
    return AssetsFailed(
        f"Persona {row.id} ({row.slug}) is registered, but not all of its files could be"
        f" written: {reason}.",
        hint=f"{remedy}, then call repair_persona_assets or `dramatis persona repair {row.slug}`.",
    )


async def _seed(app: App, row: PersonaRow) -> list[str]:
    folder = assets.directory(app.data_root, row.slug)
    name, role = row.name, row.role.name

    def seed() -> list[str]:
        return assets.seed(
            app.templates, folder, name=name, role=role, skill_template=app.skill_template
        )

    try:
        return await anyio.to_thread.run_sync(seed)
    except (OSError, TemplateBroken) as error:
        raise _seeding_failed(row, error) from error


async def _insert(work: Work, wanted: Registration, role: RoleRow) -> PersonaRow:
    """Insert by statement: a flush of the session costs twice the time of the statement itself."""
    row = await work.session.scalar(
        _INSERT_PERSONA,
        {
            "slug_stem": slug_stem(wanted.role, wanted.name),
            "name": wanted.name,
            "name_key": name_key(wanted.name),
            "description": wanted.description or None,
            "role_id": role.id,
        },
    )
    assert row is not None
    set_committed_value(row, "role", role)
    return row


async def _role(work: Work, label: str) -> tuple[RoleRow, bool]:
    """Find or make a role. In the rare race the loser's insert does nothing and it reads again."""
    name = {"name": label.lower()}
    row = await work.session.scalar(_SELECT_ROLE, name)
    if row is not None:
        return row, False
    made = await work.session.scalar(_INSERT_ROLE, name | {"label": label})
    if made is not None:
        return made, True
    return (await work.session.scalars(_SELECT_ROLE, name)).one(), False


# Built once: registering is the statement that has to be fast, and building costs a fifth of it.
_SELECT_ROLE = select(RoleRow).where(RoleRow.name == bindparam("name"))
_INSERT_ROLE = (
    insert(RoleRow).on_conflict_do_nothing(index_elements=["tenant_id", "name"]).returning(RoleRow)
)
_INSERT_PERSONA = insert(PersonaRow).returning(PersonaRow)
