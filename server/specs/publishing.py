"""Make a version the one that runs, and go back. What somebody agreed to is what is done."""

from sqlalchemy import update
from sqlalchemy.orm.attributes import set_committed_value

from db.tables import PersonaRow, PersonaSpecRow, PublicationRow
from server import audit
from server.access import require
from server.errors import Conflict, parse
from server.personas.queries import the_persona
from server.personas.service import refuse_archived
from server.specs.diff import changes
from server.specs.gate import failures_of
from server.specs.queries import (
    SpecCorrupted,
    active_row,
    loaded,
    previous_version,
    publications,
    the_version,
    version_or_highest,
)
from server.specs.shapes import Change, Confirmed, Prospect, Published, Publishing, Why
from server.work import Caller, Work


class ChecksFailed(Conflict):
    code = "checks_failed"


class PublishingChanged(Conflict):
    code = "publishing_changed"


class NothingToPublish(Conflict):
    code = "nothing_to_publish"


class NothingToGoBackTo(Conflict):
    code = "nothing_to_go_back_to"


async def foresee_publishing(
    work: Work, reference: str, version: str | None = None, *, override_checks: bool = False
) -> Prospect:
    """Say what publishing would do now, so that somebody can be asked before it is done.

    Args:
        version: the highest if left out, unless that was active before.

    Raises:
        NothingToPublish: the highest version is no draft, and none was named.
        SpecNotFound, SpecCorrupted, ChecksFailed, PersonaArchived: see `publish_spec`.
    """
    require(work.caller, "specs:publish")
    persona = await the_persona(work, reference)
    refuse_archived(persona)
    row = await version_or_highest(work, persona, version)
    if version is None and row.status == "archived":
        raise NothingToPublish(
            f"The highest version of {persona.slug}, {row.version}, was active before and is no"
            " draft.",
            hint="Name the version to publish, or store a new one.",
        )
    return await _foreseen(work, persona, row, override_checks=override_checks)


async def foresee_rollback(
    work: Work, reference: str, version: str | None = None, *, override_checks: bool = False
) -> Prospect:
    """Say what going back would do now.

    Raises:
        NothingToGoBackTo, SpecNotFound, SpecCorrupted, ChecksFailed, PersonaArchived: see
            `rollback_spec`.
    """
    require(work.caller, "specs:publish")
    persona = await the_persona(work, reference)
    refuse_archived(persona)
    row = await _earlier(work, persona, version)
    return await _foreseen(work, persona, row, override_checks=override_checks)


async def publish_spec(
    work: Work,
    reference: str,
    version: str,
    *,
    note: str,
    override_checks: bool = False,
    agreed: Prospect | None = None,
) -> Published:
    """Make a version the active one; the one before becomes archived. An archived one may return.

    Publishing what is active already changes nothing and is no error, so that it can be repeated.

    Args:
        note: why; kept with author and time.
        override_checks: publish although checks fail; which ones is recorded. That is for callers
            who may change the checks, and for a person who was asked.
        agreed: what a person who was asked has said yes to.

    Raises:
        SpecNotFound: the persona has no such version.
        SpecCorrupted: the stored version is not what was validated.
        ChecksFailed: it does not pass the persona's checks; the message lists why.
        PublishingChanged: it would no longer do what was agreed to; nothing is published.
        PersonaArchived: restore it first.
    """
    require(work.caller, "specs:publish")
    asked = parse(Publishing, version=version)
    persona = await the_persona(work, reference, lock=True)
    refuse_archived(persona)
    row = await the_version(work, persona, asked.version)
    spec = loaded(row)
    active = await active_row(work, persona)
    if agreed is not None and agreed.active != (active and active.version):
        raise _changed(agreed, f"{active.version if active else 'no version'} is active now")
    if row.status == "active":
        return _published(persona, row, replaced=None, changed=False)
    why = parse(Why, note=note).note
    failing = await failures_of(work, persona, spec)
    may_override = agreed is not None or "checks:write" in work.caller.scopes
    if failing and not (override_checks and may_override):
        raise _fails(persona, row, failing)
    if agreed is not None and agreed.failing != failing:
        raise _changed(agreed, "its checks say something else now")
    # In this order: the index allows no second active version, not even for a moment.
    if active is not None:
        await _set_status(work, active, "archived")
    await _set_status(work, row, "active")
    publication = PublicationRow(
        spec_id=row.id,
        replaced=active.version if active else None,
        author=work.caller.name,
        confirmed=_confirmed(work.caller, agreed),
        note=why,
        overridden=failing,
    )
    await _record(work, row, publication)
    return _published(persona, row, replaced=publication.replaced, overridden=failing)


async def rollback_spec(
    work: Work,
    reference: str,
    version: str | None = None,
    *,
    note: str,
    override_checks: bool = False,
    agreed: Prospect | None = None,
) -> Published:
    """Publish the version that was active before the present one, or another that once was.

    Going back twice is going back and forth: the second time, the version before is the newer one.

    Raises:
        NothingToGoBackTo: the version was never active, or none was before the present one.
        SpecNotFound, SpecCorrupted, ChecksFailed, PublishingChanged, PersonaArchived: see
            `publish_spec`.
    """
    require(work.caller, "specs:publish")
    persona = await the_persona(work, reference, lock=True)
    row = await _earlier(work, persona, version)
    return await publish_spec(
        work,
        persona.slug,
        row.version,
        note=note,
        override_checks=override_checks,
        agreed=agreed,
    )


async def _foreseen(
    work: Work, persona: PersonaRow, row: PersonaSpecRow, *, override_checks: bool
) -> Prospect:
    spec = loaded(row)
    # Checks are about what is to come: the active version runs whatever they say.
    failing = [] if row.status == "active" else await failures_of(work, persona, spec)
    if failing and not override_checks:
        raise _fails(persona, row, failing)
    active = await active_row(work, persona)
    published = await publications(work, [active]) if active else []
    return Prospect(
        slug=persona.slug,
        name=persona.name,
        version=row.version,
        active=active.version if active else None,
        published=published[0] if published else None,
        changes=_changes(active, row),
        failing=failing,
    )


def _changes(active: PersonaSpecRow | None, row: PersonaSpecRow) -> list[Change]:
    try:
        return changes(loaded(active), loaded(row)) if active else []
    except SpecCorrupted:
        # One that cannot be read can still be replaced, and what would change cannot be said.
        return []


async def _earlier(work: Work, persona: PersonaRow, version: str | None) -> PersonaSpecRow:
    wanted = await previous_version(work, persona) if version is None else version
    if wanted is None:
        raise NothingToGoBackTo(
            f"No version of {persona.slug} was active before.", hint="Publish one of its versions."
        )
    row = await the_version(work, persona, wanted)
    if row.status == "draft":
        raise NothingToGoBackTo(
            f"{persona.slug} {row.version} is a draft and was never active.", hint="Publish it."
        )
    return row


def _confirmed(caller: Caller, agreed: Prospect | None) -> Confirmed:
    if caller.kind == "operator":
        return "operator"
    return "person" if caller.kind == "human" or agreed is not None else "agent"


def _changed(agreed: Prospect, what: str) -> PublishingChanged:
    return PublishingChanged(
        f"{agreed.slug} {agreed.version} was not published: since it was agreed to, {what}.",
        hint="Ask again.",
    )


def _fails(persona: PersonaRow, row: PersonaSpecRow, failing: list[str]) -> ChecksFailed:
    return ChecksFailed(
        f"{persona.slug} {row.version} fails its checks: {' '.join(failing)}",
        hint="Mend the spec as a new version. A person can override the checks with a note that"
        f" says why: `dramatis spec publish {persona.slug} {row.version} --override-checks`.",
    )


async def _set_status(work: Work, row: PersonaSpecRow, status: str) -> None:
    """Change the one column that may change; a flush of the row would read the computed one."""
    await work.session.execute(
        update(PersonaSpecRow).where(PersonaSpecRow.id == row.id).values(status=status),
        execution_options={"synchronize_session": False},
    )
    set_committed_value(row, "status", status)


async def _record(work: Work, row: PersonaSpecRow, publication: PublicationRow) -> None:
    work.session.add(publication)
    await work.session.flush()
    await audit.record(
        work,
        "spec.published",
        row.slug,
        {
            "version": row.version,
            "replaced": publication.replaced,
            "digest": row.digest,
            "note": publication.note,
            "confirmed": publication.confirmed,
            "overridden": [*publication.overridden],
        },
    )


def _published(
    persona: PersonaRow,
    row: PersonaSpecRow,
    *,
    replaced: str | None,
    overridden: list[str] | None = None,
    changed: bool = True,
) -> Published:
    return Published(
        slug=persona.slug,
        version=row.version,
        changed=changed,
        replaced=replaced,
        digest=row.digest,
        overridden=overridden or [],
    )
