"""Write versions of a persona's spec, publish them, and go back. Every surface calls these."""

from collections.abc import Mapping, Sequence
from typing import Any

import anyio.to_thread
from sqlalchemy import update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm.attributes import set_committed_value

from db.tables import PersonaRow, PersonaSpecRow, PublicationRow
from server import audit
from server.access import require
from server.errors import Conflict, parse
from server.personas import assets
from server.personas.files import read_file
from server.personas.queries import the_persona
from server.personas.service import refuse_archived
from server.specs import diff
from server.specs.compiler import compile_spec
from server.specs.document import LARGEST_PART, PersonaSpec, parts_of
from server.specs.gate import keep_to, prospect_of
from server.specs.generating import Known, generate
from server.specs.notation import as_yaml, canonical, digest, read_spec
from server.specs.queries import (
    SpecCorrupted,
    active_row,
    highest_row,
    highest_version,
    loaded,
    previous_version,
    the_version,
)
from server.specs.shapes import (
    Prospect,
    Published,
    Publishing,
    SpecDiff,
    SpecDraft,
    SpecText,
)
from server.work import Work

FIRST_VERSION = "1.0.0"


class SpecVersionExists(Conflict):
    code = "spec_version_exists"


class VersionsExhausted(Conflict):
    code = "versions_exhausted"


class NothingToGoBackTo(Conflict):
    code = "nothing_to_go_back_to"


async def create_spec(work: Work, reference: str, document: str | Mapping[str, Any]) -> SpecDraft:
    """Store a new version as a draft, with a preview of what it compiles to.

    Args:
        document: YAML or JSON text, or the mapping itself. Without a `version` it gets the highest
            there is with its patch raised.

    Raises:
        SpecNotReadable, SpecTooLarge, Invalid: see `read_spec`; nothing is stored.
        SpecVersionExists: the persona has this version already.
        PersonaArchived: restore it first.
    """
    require(work.caller, "specs:write")
    spec = await anyio.to_thread.run_sync(read_spec, document)
    persona = await the_persona(work, reference, lock=True)
    refuse_archived(persona)
    return await _store(work, persona, spec, origin="written", sources=())


async def open_spec(work: Work, reference: str, version: str | None = None) -> SpecText:
    """Write a version out for somebody to change into the next one.

    Args:
        version: the highest if left out.

    Raises:
        NoSpec, SpecNotFound: there is nothing to begin with.
    """
    persona = await the_persona(work, reference)
    row = await (the_version if version else highest_version)(work, persona, version)
    spec = loaded(row)
    return SpecText(
        slug=persona.slug,
        version=row.version,
        next_version=await _next_version(work, persona),
        # Without a version, what comes back gets the next one.
        text=as_yaml(spec.model_copy(update={"version": None})),
    )


async def generate_spec(work: Work, reference: str) -> SpecDraft:
    """Store a draft made from the persona's skill.md, name, role and description.

    The examples of the active spec, or else of the highest version, are carried over. What it was
    made from is recorded.
    """
    require(work.caller, "specs:write")
    persona = await the_persona(work, reference, lock=True)
    refuse_archived(persona)
    known = Known(
        name=persona.name,
        role=persona.role.label,
        description=persona.description,
        skill=(await read_file(work, persona, assets.SKILL)).content,
        earlier=await _earlier(work, persona),
    )
    spec, sources = generate(known)
    return await _store(work, persona, spec, origin="generated", sources=sources)


async def publish_spec(
    work: Work,
    reference: str,
    version: str,
    *,
    note: str,
    confirmed: str = "caller",
    override_checks: bool = False,
    expected: Prospect | None = None,
) -> Published:
    """Make a version the active one; the one before becomes archived. An archived one may return.

    Publishing what is active already changes nothing and is no error, so that it can be repeated.

    Args:
        note: why; kept with author and time.
        confirmed: who said yes, as `Publication.confirmed` has it.
        override_checks: publish although checks fail; which ones is recorded. That is for callers
            who may change the checks, and for a person who was asked.
        expected: what a person who was asked has agreed to, as `foresee_publishing` said it.

    Raises:
        SpecNotFound: the persona has no such version.
        SpecCorrupted: the stored version is not what was validated.
        ChecksFailed: it does not pass the persona's checks; the message lists why.
        PublishingChanged: it would no longer do what was agreed to; nothing is published.
        PersonaArchived: restore it first.
    """
    require(work.caller, "specs:publish")
    asked = parse(Publishing, version=version, note=note)
    persona = await the_persona(work, reference, lock=True)
    refuse_archived(persona)
    row = await the_version(work, persona, asked.version)
    active = await active_row(work, persona)
    may_override = expected is not None or "checks:write" in work.caller.scopes
    prospect = await prospect_of(
        work, persona, row, active, override_checks=override_checks and may_override
    )
    if prospect.active == row.version:
        return _published(persona, row, replaced=None, changed=False)
    if expected is not None:
        keep_to(expected, prospect)
    # In this order: the index allows no second active version, not even for a moment.
    if active is not None:
        await _set_status(work, active, "archived")
    await _set_status(work, row, "active")
    publication = PublicationRow(
        spec_id=row.id,
        replaced=prospect.active,
        author=work.caller.name,
        confirmed=confirmed,
        note=asked.note,
        overridden=prospect.failing,
    )
    work.session.add(publication)
    await work.session.flush()
    details: dict[str, Any] = {
        "version": row.version,
        "replaced": publication.replaced,
        "digest": row.digest,
        "note": asked.note,
        "confirmed": confirmed,
        "overridden": prospect.failing,
    }
    await audit.record(work, "spec.published", persona.slug, details)
    return _published(persona, row, replaced=publication.replaced, overridden=prospect.failing)


async def rollback_spec(
    work: Work,
    reference: str,
    version: str | None = None,
    *,
    note: str,
    confirmed: str = "caller",
    override_checks: bool = False,
) -> Published:
    """Publish the version that was active before the present one, or another archived one.

    Raises:
        NothingToGoBackTo: the version was never active, or none was before the present one.
        SpecNotFound, SpecCorrupted, ChecksFailed, PersonaArchived: see `publish_spec`.
    """
    require(work.caller, "specs:publish")
    persona = await the_persona(work, reference, lock=True)
    wanted = version or await previous_version(work, persona)
    if wanted is None:
        raise NothingToGoBackTo(
            f"No version of {persona.slug} was active before.",
            hint="Publish one: `dramatis spec list` has those there are.",
        )
    row = await the_version(work, persona, wanted)
    if row.status == "draft":
        raise NothingToGoBackTo(
            f"{persona.slug} {row.version} is a draft and was never active.", hint="Publish it."
        )
    return await publish_spec(
        work,
        persona.slug,
        row.version,
        note=note,
        confirmed=confirmed,
        override_checks=override_checks,
    )


async def diff_specs(
    work: Work, reference: str, before: str | None = None, after: str | None = None
) -> SpecDiff:
    """Compare two versions: what they mean, and the text they compile to.

    Args:
        before: the active version if left out.
        after: the highest version if left out.

    Raises:
        SpecNotFound, NoActiveSpec, NoSpec: there is nothing to compare.
        SpecCorrupted: one of them is not what was stored.
    """
    persona = await the_persona(work, reference)
    first = await the_version(work, persona, before)
    second = await (the_version if after else highest_version)(work, persona, after)
    old, new = loaded(first), loaded(second)
    return await anyio.to_thread.run_sync(
        lambda: SpecDiff(
            slug=persona.slug,
            before=first.version,
            after=second.version,
            changes=diff.changes(old, new),
            compiled=diff.compiled(old, new),
        )
    )


async def _store(
    work: Work, persona: PersonaRow, spec: PersonaSpec, *, origin: str, sources: Sequence[str]
) -> SpecDraft:
    version = spec.version or await _next_version(work, persona)
    spec = spec.model_copy(update={"version": version})
    document = canonical(spec)
    major, minor, patch = parts_of(version)
    row = await work.session.scalar(
        insert(PersonaSpecRow)
        .values(
            persona_id=persona.id,
            slug=persona.slug,
            major=major,
            minor=minor,
            patch=patch,
            document=document,
            digest=digest(document),
            origin=origin,
            sources=list(sources),
            author=work.caller.name,
        )
        .on_conflict_do_nothing(index_elements=["tenant_id", "persona_id", "version"])
        .returning(PersonaSpecRow)
    )
    if row is None:
        free = _following(await highest_version(work, persona))
        raise SpecVersionExists(
            f"{persona.slug} has a spec {version} already, and a stored version never changes.",
            hint=f"Leave `version` out to get {free}." if free else "Give another `version`.",
        )
    details: dict[str, Any] = {"version": version, "digest": row.digest, "origin": origin}
    await audit.record(work, "spec.created", persona.slug, details)
    return SpecDraft.model_validate(
        {
            "slug": persona.slug,
            "version": row.version,
            "status": row.status,
            "origin": row.origin,
            "sources": row.sources,
            "digest": row.digest,
            "preview": compile_spec(loaded(row)),
        }
    )


async def _earlier(work: Work, persona: PersonaRow) -> PersonaSpec | None:
    """Find the spec whose examples are carried over; one that cannot be read has none to give."""
    row = await active_row(work, persona) or await highest_row(work, persona)
    try:
        return loaded(row) if row else None
    except SpecCorrupted:
        return None


async def _next_version(work: Work, persona: PersonaRow) -> str:
    highest = await highest_row(work, persona)
    if highest is None:
        return FIRST_VERSION
    if (following := _following(highest)) is None:
        raise VersionsExhausted(
            f"No version comes after {highest.version}.", hint="Give `version` explicitly."
        )
    return following


def _following(highest: PersonaSpecRow) -> str | None:
    if highest.patch == LARGEST_PART:
        return None
    return f"{highest.major}.{highest.minor}.{highest.patch + 1}"


async def _set_status(work: Work, row: PersonaSpecRow, status: str) -> None:
    """Change the one column that may change; a flush of the row would read the computed one anew."""
    await work.session.execute(
        update(PersonaSpecRow).where(PersonaSpecRow.id == row.id).values(status=status),
        execution_options={"synchronize_session": False},
    )
    set_committed_value(row, "status", status)


def _published(
    persona: PersonaRow,
    row: PersonaSpecRow,
    *,
    replaced: str | None,
    overridden: Sequence[str] = (),
    changed: bool = True,
) -> Published:
    return Published(
        slug=persona.slug,
        version=row.version,
        changed=changed,
        replaced=replaced,
        digest=row.digest,
        overridden=list(overridden),
    )
