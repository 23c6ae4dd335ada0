"""Write versions of a persona's spec and compare them. Every surface calls these functions."""

from collections.abc import Mapping, Sequence
from typing import Any

import anyio.to_thread
from sqlalchemy.dialects.postgresql import insert

from db.tables import PersonaRow, PersonaSpecRow
from server import audit
from server.access import require
from server.errors import Conflict
from server.personas import assets
from server.personas.files import read_file
from server.personas.queries import the_persona
from server.personas.service import refuse_archived
from server.specs import diff
from server.specs.compiler import compile_spec
from server.specs.document import LARGEST_PART, PersonaSpec, parts_of
from server.specs.generating import Known, generate
from server.specs.notation import as_yaml, canonical, digest, read_spec
from server.specs.queries import (
    SpecCorrupted,
    active_row,
    highest_row,
    loaded,
    the_version,
    version_or_highest,
)
from server.specs.shapes import (
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
    row = await version_or_highest(work, persona, version)
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
    second = await version_or_highest(work, persona, after)
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
        free = _following(await version_or_highest(work, persona, None))
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
    """Raise the patch, or what stands before it when that is at its limit."""
    major, minor, patch = highest.major, highest.minor, highest.patch
    if patch < LARGEST_PART:
        return f"{major}.{minor}.{patch + 1}"
    if minor < LARGEST_PART:
        return f"{major}.{minor + 1}.0"
    return f"{major + 1}.0.0" if major < LARGEST_PART else None
