"""The checks a persona carries: kept beside its specs, because every version has to pass them."""

import anyio.to_thread
from pydantic import JsonValue, ValidationError
from sqlalchemy import delete, func, select
from sqlalchemy.dialects.postgresql import insert

from db.tables import ChecksRow, PersonaRow
from server import audit
from server.access import require
from server.errors import Conflict
from server.personas.queries import the_persona
from server.specs.checks import Check, Checks, read_checks, run_checks
from server.specs.document import PersonaSpec
from server.specs.queries import loaded, version_or_highest
from server.specs.shapes import CheckReport
from server.work import Work


class ChecksCorrupted(Conflict):
    code = "checks_corrupted"


async def check_spec(work: Work, reference: str, version: str | None = None) -> CheckReport:
    """Run the persona's checks against a version, the highest if none is named."""
    persona = await the_persona(work, reference)
    row = await version_or_highest(work, persona, version)
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
