"""What a version has to pass before it is published: above all, the checks its persona carries."""

import anyio.to_thread
from pydantic import JsonValue, ValidationError
from sqlalchemy import delete, func, select
from sqlalchemy.dialects.postgresql import insert

from db.tables import ChecksRow, PersonaRow, PersonaSpecRow
from server import audit
from server.access import require
from server.errors import Conflict, parse
from server.personas.queries import the_persona
from server.personas.service import refuse_archived
from server.specs.checks import Check, Checks, read_checks, run_checks
from server.specs.diff import changes
from server.specs.document import PersonaSpec
from server.specs.queries import SpecCorrupted, active_row, highest_version, loaded, the_version
from server.specs.shapes import CheckReport, Prospect, Publishing
from server.work import Work


class ChecksFailed(Conflict):
    code = "checks_failed"


class PublishingChanged(Conflict):
    code = "publishing_changed"


class ChecksCorrupted(Conflict):
    code = "checks_corrupted"


async def foresee_publishing(
    work: Work, reference: str, version: str, *, note: str, override_checks: bool = False
) -> Prospect:
    """Say what publishing would do now, so that somebody can be asked before it is done.

    Raises:
        SpecNotFound, SpecCorrupted, ChecksFailed, PersonaArchived: see `publish_spec`.
    """
    require(work.caller, "specs:publish")
    asked = parse(Publishing, version=version, note=note)
    persona = await the_persona(work, reference)
    refuse_archived(persona)
    row = await the_version(work, persona, asked.version)
    active = await active_row(work, persona)
    prospect = await prospect_of(work, persona, row, active, override_checks=override_checks)
    return prospect.model_copy(update={"changes": _changes(active, row)})


async def prospect_of(
    work: Work,
    persona: PersonaRow,
    row: PersonaSpecRow,
    active: PersonaSpecRow | None,
    *,
    override_checks: bool,
) -> Prospect:
    spec = loaded(row)
    # Checks are about what is to come: the active version runs whatever they say.
    failing = [] if row.status == "active" else await failures_of(work, persona, spec)
    if failing and not override_checks:
        raise ChecksFailed(
            f"{persona.slug} {row.version} fails its checks: {' '.join(failing)}",
            hint="Mend the spec as a new version. A person can override the checks with a note that"
            f" says why: `dramatis spec publish {persona.slug} {row.version} --override-checks`.",
        )
    return Prospect(
        slug=persona.slug,
        name=persona.name,
        version=row.version,
        active=active.version if active else None,
        failing=failing,
    )


def keep_to(agreed: Prospect, prospect: Prospect) -> None:
    """Hold publishing to what somebody who was asked has agreed to.

    Raises:
        PublishingChanged: it would replace another version, or override other checks.
    """
    if agreed.active != prospect.active:
        changed = f"{prospect.active or 'no version'} is active now"
    elif agreed.failing != prospect.failing:
        changed = "its checks say something else now"
    else:
        return
    raise PublishingChanged(
        f"{prospect.slug} {prospect.version} was not published: since it was agreed to, {changed}.",
        hint="Ask again.",
    )


async def check_spec(work: Work, reference: str, version: str | None = None) -> CheckReport:
    """Run the persona's checks against a version, the highest if none is named."""
    persona = await the_persona(work, reference)
    row = await (the_version if version else highest_version)(work, persona, version)
    outcomes = run_checks(await _checks(work, persona), loaded(row))
    return CheckReport(
        slug=persona.slug,
        version=row.version,
        passed=all(outcome.passed for outcome in outcomes),
        outcomes=outcomes,
    )


async def get_checks(work: Work, reference: str) -> list[Check]:
    """List the persona's checks.

    Raises:
        ChecksCorrupted: they were changed by hand; `set_checks` replaces them.
    """
    persona = await the_persona(work, reference)
    return (await _checks(work, persona)).checks


async def set_checks(work: Work, reference: str, document: str) -> list[Check]:
    """Replace the persona's checks; an empty list removes them.

    Raises:
        SpecNotReadable, Invalid: see `read_checks`; the checks are as they were.
    """
    require(work.caller, "checks:write")
    checks = await anyio.to_thread.run_sync(read_checks, document)
    persona = await the_persona(work, reference, lock=True)
    try:
        before = await _checks(work, persona)
    except ChecksCorrupted:
        # Replacing them is the remedy.
        before = Checks(checks=[])
    if checks.checks:
        written = checks.model_dump_json(exclude_defaults=True)
        row = {
            "persona_id": persona.id,
            "checks": written,
            "author": work.caller.name,
            # An upsert applies no `onupdate`.
            "updated_at": func.now(),
        }
        await work.session.execute(
            insert(ChecksRow)
            .values(row)
            .on_conflict_do_update(index_elements=["tenant_id", "persona_id"], set_=row)
        )
    else:
        await work.session.execute(delete(ChecksRow).where(ChecksRow.persona_id == persona.id))
    names: dict[str, JsonValue] = {
        "from": [str(check.name) for check in before.checks],
        "to": [str(check.name) for check in checks.checks],
    }
    await audit.record(work, "checks.replaced", persona.slug, names)
    return checks.checks


def _changes(active: PersonaSpecRow | None, row: PersonaSpecRow) -> list[str]:
    try:
        return [change.path for change in changes(loaded(active), loaded(row))] if active else []
    except SpecCorrupted:
        # One that cannot be read can still be replaced, and what would change cannot be said.
        return []


async def failures_of(work: Work, persona: PersonaRow, spec: PersonaSpec) -> list[str]:
    """Say in a sentence per check what a spec does not fulfil."""
    outcomes = run_checks(await _checks(work, persona), spec)
    return [
        f"{outcome.name}: {'; '.join(outcome.failures)}."
        for outcome in outcomes
        if not outcome.passed
    ]


async def _checks(work: Work, persona: PersonaRow) -> Checks:
    stored = await work.session.scalar(
        select(ChecksRow.checks).where(ChecksRow.persona_id == persona.id)
    )
    if stored is None:
        return Checks(checks=[])
    try:
        # Not by `read_checks`: its limit is for what people write, and JSON may be longer.
        return Checks.model_validate_json(stored)
    except ValidationError:
        raise ChecksCorrupted(
            f"The stored checks of {persona.slug} break the rules for checks.",
            hint="Replace them by the checks that are meant.",
        ) from None
