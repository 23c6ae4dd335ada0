"""Find versions of specs. Nothing here changes anything."""

from collections.abc import Sequence
from typing import Any

from pydantic import ValidationError
from sqlalchemy import Select, func, select, tuple_
from sqlalchemy.dialects.postgresql import aggregate_order_by, distinct_on
from sqlalchemy.orm import contains_eager, defer

from db.tables import PersonaRow, PersonaSpecRow, PublicationRow
from server.errors import Conflict, NotFound, parse
from server.personas.queries import row_at, the_persona
from server.personas.shapes import Typed
from server.specs.document import PersonaSpec, parts_of
from server.specs.notation import digest, stored_spec
from server.specs.shapes import (
    VERSIONS_LISTED,
    Overview,
    PersonaSpecs,
    Publication,
    SpecDetail,
    SpecListing,
    SpecSummary,
    VersionListing,
    VersionQuery,
)
from server.work import Work

VERSIONS_NAMED = 10

_ORDER = (PersonaSpecRow.major, PersonaSpecRow.minor, PersonaSpecRow.patch)
_HIGHEST_FIRST = tuple(part.desc() for part in _ORDER)
# A document can be a megabyte, and lists of versions and publications say nothing of it.
_LIGHT = defer(PersonaSpecRow.document, raiseload=True)


class SpecNotFound(NotFound):
    code = "spec_not_found"


class NoSpec(NotFound):
    code = "no_spec"


class NoActiveSpec(NotFound):
    code = "no_active_spec"


class SpecCorrupted(Conflict):
    code = "spec_corrupted"


async def overview(
    work: Work, *, after: str | None = None, limit: int = VERSIONS_LISTED
) -> SpecListing:
    """List the active personas that have specs, by slug, with the versions that matter.

    Args:
        after: list the slugs behind this one.
    """
    asked = parse(Overview, after=after, limit=limit)
    query = (
        _counted()
        .where(PersonaRow.status == "active")
        .order_by(PersonaRow.slug)
        .limit(asked.limit + 1)
    )
    if asked.after:
        query = query.where(PersonaRow.slug > asked.after)
    rows = [PersonaSpecs(**row) for row in (await work.session.execute(query)).mappings()]
    page = rows[: asked.limit]
    following = page[-1].slug if len(rows) > asked.limit else None
    return SpecListing(personas=page, versions=[], next=following)


async def list_specs(
    work: Work, reference: str, *, before: str | None = None, limit: int = VERSIONS_LISTED
) -> SpecListing:
    """List the versions of a persona's spec, the highest first.

    Args:
        before: list the versions below this one.

    Raises:
        PersonaNotFound, AmbiguousPersona: see `the_persona`.
    """
    asked = parse(VersionListing, before=before, limit=limit)
    persona = await the_persona(work, reference)
    query = _of(persona).options(_LIGHT).order_by(*_HIGHEST_FIRST).limit(asked.limit + 1)
    if asked.before:
        query = query.where(tuple_(*_ORDER) < tuple_(*parts_of(asked.before)))
    rows = (await work.session.scalars(query)).all()
    page = rows[: asked.limit]
    published = await _last_published(work, page)
    counted = await work.session.execute(_counted().where(PersonaRow.id == persona.id))
    return SpecListing(
        personas=[PersonaSpecs(**row) for row in counted.mappings()],
        versions=[_summary(row, published.get(row.id)) for row in page],
        next=page[-1].version if len(rows) > asked.limit else None,
    )


async def get_spec(work: Work, reference: str, version: str | None = None) -> SpecDetail:
    """Read a version and when it was published.

    Args:
        version: the active one if left out.

    Raises:
        SpecNotFound: the persona has no such version; the hint names those there are.
        NoActiveSpec: none is active, and no version was given.
        SpecCorrupted: it was changed by hand and is not what was stored.
    """
    persona = await the_persona(work, reference)
    row = await the_version(work, persona, version)
    published = await publications(work, [row])
    return SpecDetail(
        **dict(_summary(row, published[0] if published else None)),
        slug=persona.slug,
        document=loaded(row).model_dump(mode="json"),
        publications=published,
    )


async def spec_at(work: Work, slug: str, version: str | None = None) -> PersonaSpec:
    """Read a version by its persona's exact slug, as an address has it.

    Raises:
        PersonaNotFound: no persona has the slug.
        SpecNotFound, NoActiveSpec, SpecCorrupted: see `get_spec`.
    """
    return loaded(await the_version(work, await row_at(work, slug), version))


async def the_version(work: Work, persona: PersonaRow, version: str | None) -> PersonaSpecRow:
    """Find a version of a persona's spec; the active one when none is named."""
    wanted = parse(VersionQuery, version=version).version
    if wanted is None:
        row = await active_row(work, persona)
        if row is None:
            raise await _nothing_active(work, persona)
        return row
    row = await work.session.scalar(_of(persona).where(PersonaSpecRow.version == wanted))
    if row is None:
        raise await _no_such_version(work, persona, wanted)
    return row


async def active_row(work: Work, persona: PersonaRow) -> PersonaSpecRow | None:
    return await work.session.scalar(_of(persona).where(PersonaSpecRow.status == "active"))


async def highest_row(work: Work, persona: PersonaRow) -> PersonaSpecRow | None:
    """Find the highest version, by the order of versions and never by date."""
    return await work.session.scalar(_of(persona).order_by(*_HIGHEST_FIRST).limit(1))


async def version_or_highest(
    work: Work, persona: PersonaRow, version: str | None
) -> PersonaSpecRow:
    """Find a version, the highest when none is named.

    Raises:
        SpecNotFound: the persona has no such version.
        NoSpec: it has none at all.
    """
    if version is not None:
        return await the_version(work, persona, version)
    row = await highest_row(work, persona)
    if row is None:
        raise await _nothing_active(work, persona)
    return row


async def versions_starting_with(work: Work, slug: str, prefix: str, limit: int) -> list[str]:
    """Complete a version of the persona with exactly this slug, the highest first."""
    slug, prefix = parse(Typed, text=slug).text, parse(Typed, text=prefix).text
    query = (
        select(PersonaSpecRow.version)
        .join(PersonaRow, PersonaRow.id == PersonaSpecRow.persona_id)
        .where(PersonaRow.slug == slug, PersonaSpecRow.version.startswith(prefix, autoescape=True))
        .order_by(*_HIGHEST_FIRST)
        .limit(limit)
    )
    return list(await work.session.scalars(query))


def loaded(row: PersonaSpecRow) -> PersonaSpec:
    """Read what a row stores, and refuse anything but exactly what was once validated.

    Raises:
        SpecCorrupted: the document does not fit its digest or version, or breaks today's rules.
    """
    broken = f"The stored spec {row.version} of {row.slug}"
    remedy = "Publish another version; `dramatis spec list` has those there are."
    if digest(row.document) != row.digest:
        raise SpecCorrupted(f"{broken} was changed by hand: its digest does not fit.", hint=remedy)
    try:
        spec = stored_spec(row.document)
    except ValidationError:
        raise SpecCorrupted(f"{broken} breaks the rules for specs.", hint=remedy) from None
    # A document and its digest can be copied together from another row.
    if spec.version != row.version:
        raise SpecCorrupted(f"{broken} was changed by hand: it is another version's.", hint=remedy)
    return spec


async def publications(work: Work, rows: Sequence[PersonaSpecRow]) -> list[Publication]:
    """List when these versions were published, newest first."""
    found = await work.session.scalars(_published(rows).order_by(PublicationRow.id.desc()))
    return [_publication(one) for one in found]


async def previous_version(work: Work, persona: PersonaRow) -> str | None:
    """Name the version that was active before the present one."""
    return await work.session.scalar(
        select(PublicationRow.replaced)
        .join(PublicationRow.spec)
        .where(PersonaSpecRow.persona_id == persona.id)
        .order_by(PublicationRow.id.desc())
        .limit(1)
    )


async def _last_published(work: Work, rows: Sequence[PersonaSpecRow]) -> dict[int, Publication]:
    newest = (
        _published(rows)
        .ext(distinct_on(PublicationRow.spec_id))
        .order_by(PublicationRow.spec_id, PublicationRow.id.desc())
    )
    return {one.spec_id: _publication(one) for one in await work.session.scalars(newest)}


def _published(rows: Sequence[PersonaSpecRow]) -> Select[PublicationRow]:
    return (
        select(PublicationRow)
        .join(PublicationRow.spec)
        .options(contains_eager(PublicationRow.spec).options(_LIGHT))
        .where(PublicationRow.spec_id.in_([row.id for row in rows]))
    )


def _of(persona: PersonaRow) -> Select[PersonaSpecRow]:
    return select(PersonaSpecRow).where(PersonaSpecRow.persona_id == persona.id)


def _counted() -> Select[str, str, str, Any, int]:
    active = func.max(PersonaSpecRow.version).filter(PersonaSpecRow.status == "active")
    by_version = aggregate_order_by(PersonaSpecRow.version, *_HIGHEST_FIRST)
    return (
        select(
            PersonaRow.slug,
            PersonaRow.name,
            active.label("active"),
            func.array_agg(by_version)[1].label("newest"),
            func.count().label("versions"),
        )
        .join(PersonaSpecRow, PersonaSpecRow.persona_id == PersonaRow.id)
        .group_by(PersonaRow.id)
    )


def _summary(row: PersonaSpecRow, last_published: Publication | None) -> SpecSummary:
    return SpecSummary.model_validate(
        {
            "version": row.version,
            "status": row.status,
            "origin": row.origin,
            "sources": row.sources,
            "author": row.author,
            "created_at": row.created_at,
            "digest": row.digest,
            "last_published": last_published,
        }
    )


def _publication(row: PublicationRow) -> Publication:
    return Publication.model_validate(
        {
            "version": row.spec.version,
            "published_at": row.published_at,
            "author": row.author,
            "confirmed": row.confirmed,
            "note": row.note,
            "replaced": row.replaced,
            "overridden": row.overridden,
        }
    )


async def _no_such_version(work: Work, persona: PersonaRow, wanted: str) -> SpecNotFound:
    listed = await _versions_named(work, persona)
    return SpecNotFound(
        f"{persona.slug} has no spec {wanted}.",
        hint=f"Known: {listed}." if listed else _how_to_begin(persona),
    )


async def _nothing_active(work: Work, persona: PersonaRow) -> NotFound:
    listed = await _versions_named(work, persona)
    if not listed:
        return NoSpec(f"{persona.slug} has no spec.", hint=_how_to_begin(persona))
    return NoActiveSpec(
        f"No spec of {persona.slug} is active.", hint=f"Name a version ({listed}) or publish one."
    )


async def _versions_named(work: Work, persona: PersonaRow) -> str:
    """Name the highest versions there are, with those that are no drafts marked."""
    query = (
        select(PersonaSpecRow.version, PersonaSpecRow.status)
        .where(PersonaSpecRow.persona_id == persona.id)
        .order_by(*_HIGHEST_FIRST)
        .limit(VERSIONS_NAMED + 1)
    )
    rows = (await work.session.execute(query)).all()
    named = [f"{version} {status}" for version, status in rows[:VERSIONS_NAMED]]
    return ", ".join([*named, *(["…"] if len(rows) > VERSIONS_NAMED else [])])


def _how_to_begin(persona: PersonaRow) -> str:
    return (
        "Write one with create_persona_spec or generate_persona_spec, or with"
        f" `dramatis spec new {persona.slug}`."
    )
