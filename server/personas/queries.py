"""Find, list and look up personas and roles. Nothing here changes anything."""

import base64
import binascii
import difflib
import json
import re
import unicodedata
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Literal

import anyio.to_thread
from pydantic import Field, TypeAdapter
from sqlalchemy import ColumnElement, Select, and_, func, or_, select, tuple_
from sqlalchemy.orm import contains_eager, joinedload

from db.tables import PersonaRow, RoleRow
from server.errors import Conflict, Invalid, NotFound, parse
from server.personas import assets
from server.personas.shapes import (
    Candidate,
    Listing,
    Match,
    Persona,
    PersonaPage,
    PersonaSummary,
    Role,
    RoleLookup,
    RoleQuery,
    Totals,
    Typed,
    Wanted,
)
from server.work import App, Work

CANDIDATES = 10
PERSONAS_OF_A_ROLE = 50
# Suggestions are taken from the newest ones: comparing with all would grow with the registry.
NAMES_COMPARED = 500
LARGEST_ID = 2**31 - 1

Sort = Literal["newest", "role"]


class PersonaNotFound(NotFound):
    code = "persona_not_found"


class AmbiguousPersona(Conflict):
    code = "ambiguous_persona"


async def get_persona(work: Work, reference: str) -> Match:
    """Find the persona that `reference` means.

    Args:
        reference: a slug, an id, a name, or a part of a name that fits only one active persona.

    Raises:
        PersonaNotFound: nothing fits; the hint names the closest and how to register one.
    """
    rows = await _matching(work, reference)
    if len(rows) > 1:
        return Match(
            persona=None,
            candidates=[_candidate(row) for row in rows[:CANDIDATES]],
            more=len(rows) > CANDIDATES,
        )
    return Match(persona=await describe(work.app, rows[0]), candidates=[], more=False)


async def persona_at(work: Work, slug: str) -> Persona:
    """Find a persona by its exact slug, as an address has it.

    Raises:
        PersonaNotFound: no persona has it.
    """
    return await describe(work.app, await row_at(work, slug))


async def row_at(work: Work, slug: str) -> PersonaRow:
    wanted = parse(Wanted, persona=slug).persona
    row = await work.session.scalar(_personas().where(PersonaRow.slug == wanted))
    if row is None:
        raise PersonaNotFound(
            f"No persona has the slug {_quoted(slug)}.", hint="list_personas has those there are."
        )
    return row


async def the_persona(work: Work, reference: str, *, lock: bool = False) -> PersonaRow:
    """Find the one persona that `reference` means, with its role, for a use that needs one.

    Args:
        lock: keep every other writer of this persona waiting until the transaction ends.

    Raises:
        PersonaNotFound: nothing fits.
        AmbiguousPersona: several fit; the hint lists them.
    """
    rows = await _matching(work, reference)
    if len(rows) > 1:
        listed = ", ".join(f"{row.slug} ({row.name}, {row.role.name})" for row in rows[:CANDIDATES])
        listed += " and others" if len(rows) > CANDIDATES else ""
        raise AmbiguousPersona(
            f"Several personas fit {_quoted(reference)}.", hint=f"Say which by slug: {listed}."
        )
    if not lock:
        return rows[0]
    query = _personas().where(PersonaRow.id == rows[0].id).with_for_update(of=PersonaRow)
    row = await work.session.scalar(query.execution_options(populate_existing=True))
    if row is None:
        raise await _nothing_fits(work, reference.strip())
    return row


async def lookup_role(work: Work, name: str) -> RoleLookup:
    """Say what is known of a role, in any case. Never creates one."""
    wanted = parse(RoleQuery, name=name).name.lower()
    row = await work.session.scalar(select(RoleRow).where(RoleRow.name == wanted))
    if row is None:
        newest = select(RoleRow.name).order_by(RoleRow.id.desc()).limit(NAMES_COMPARED)
        known = (await work.session.scalars(newest)).all()
        return RoleLookup(
            found=False,
            role=None,
            personas=[],
            left_out=0,
            nearest=difflib.get_close_matches(wanted, known, n=5, cutoff=0.5),
            how_to_create="Register a persona with this role: the role is made along with it.",
        )
    of_role = PersonaRow.role_id == row.id
    count = await work.session.scalar(select(func.count()).where(of_role)) or 0
    rows = await work.session.scalars(
        _personas()
        .where(of_role)
        .order_by(PersonaRow.status, PersonaRow.id.desc())
        .limit(PERSONAS_OF_A_ROLE)
    )
    return RoleLookup(
        found=True,
        role=_role(row, count),
        personas=await summarise(work.app, rows.all()),
        left_out=max(0, count - PERSONAS_OF_A_ROLE),
        nearest=[],
        how_to_create=None,
    )


async def list_roles(work: Work, *, after: str = "", limit: int = 1000) -> list[Role]:
    """List roles by name.

    Args:
        after: leave out the names up to and including this one.
    """
    after = parse(Typed, text=after).text
    count = select(func.count()).where(PersonaRow.role_id == RoleRow.id).scalar_subquery()
    rows = await work.session.execute(
        select(RoleRow, count).where(RoleRow.name > after).order_by(RoleRow.name).limit(limit)
    )
    return [_role(row, number) for row, number in rows]


async def list_personas(
    work: Work,
    *,
    role: str | None = None,
    status: Literal["active", "archived", "all"] = "active",
    text: str | None = None,
    sort: Sort = "newest",
    limit: int = 20,
    cursor: str | None = None,
) -> PersonaPage:
    """List personas, a page at a time.

    Args:
        text: part of a name, slug or description, in any case.
        cursor: `next_cursor` of the page before, with the same filters and sort.

    Raises:
        Invalid: a limit out of range, or a cursor that is not one of this listing's.
    """
    asked = parse(
        Listing, role=role, status=status, text=text, sort=sort, limit=limit, cursor=cursor
    )
    query = _filtered(asked)
    keys: list[Any] = [PersonaRow.id]
    if asked.sort == "role":
        keys = [RoleRow.name, PersonaRow.name, PersonaRow.id]
        query = query.order_by(*keys)
    else:
        query = query.order_by(PersonaRow.id.desc())
    if asked.cursor:
        seen = tuple_(*_decode(asked.cursor, asked.sort))
        place = tuple_(*keys)
        query = query.where(place > seen if asked.sort == "role" else place < seen)
    rows = (await work.session.scalars(query.limit(asked.limit + 1))).all()
    page = rows[: asked.limit]
    return PersonaPage(
        personas=await summarise(work.app, page),
        totals=await _totals(work),
        next_cursor=_encode(page[-1], asked.sort) if len(rows) > asked.limit else None,
    )


async def slugs_starting_with(work: Work, prefix: str, limit: int) -> list[str]:
    """Complete a slug, newest personas first; `prefix` may also begin the name."""
    prefix = parse(Typed, text=prefix).text
    query = (
        select(PersonaRow.slug)
        .where(
            PersonaRow.status == "active",
            or_(
                PersonaRow.slug.startswith(prefix.lower(), autoescape=True),
                PersonaRow.name_key.startswith(name_key(prefix), autoescape=True),
            ),
        )
        .order_by(PersonaRow.id.desc())
        .limit(limit)
    )
    return list(await work.session.scalars(query))


async def roles_starting_with(work: Work, prefix: str, limit: int) -> list[str]:
    prefix = parse(Typed, text=prefix).text
    query = (
        select(RoleRow.name)
        .where(RoleRow.name.startswith(prefix.lower(), autoescape=True))
        .order_by(RoleRow.name)
        .limit(limit)
    )
    return list(await work.session.scalars(query))


async def describe(app: App, row: PersonaRow) -> Persona:
    """Make the full shape of a persona, with the state of its files as it is now."""
    (summary,) = await summarise(app, [row])
    return Persona(
        **dict(summary),
        description=row.description,
        path=str(assets.directory(app.data_root, row.slug)),
        updated_at=row.updated_at,
    )


async def summarise(app: App, rows: Sequence[PersonaRow]) -> list[PersonaSummary]:
    folders = [assets.directory(app.data_root, row.slug) for row in rows]
    states = await anyio.to_thread.run_sync(lambda: [assets.state(folder) for folder in folders])
    return [
        PersonaSummary.model_validate(
            {
                "id": row.id,
                "slug": row.slug,
                "name": row.name,
                "role": row.role.name,
                "status": row.status,
                "created_at": row.created_at,
                "assets": state,
            }
        )
        for row, state in zip(rows, states, strict=True)
    ]


def name_key(text: str) -> str:
    """Fold a name for comparing. In Python: what Postgres folds depends on its locale."""
    return unicodedata.normalize("NFC", text.casefold())


def _personas() -> Select[PersonaRow]:
    return select(PersonaRow).options(joinedload(PersonaRow.role, innerjoin=True))


async def _matching(work: Work, reference: str) -> Sequence[PersonaRow]:
    """Find by slug, id, name or part of a name: the first of these that finds any decides.

    Raises:
        PersonaNotFound: nothing fits, or only an archived persona has exactly this name: meaning
            another one by it would be a guess.
    """
    wanted = parse(Wanted, persona=reference).persona
    named = PersonaRow.name_key == name_key(wanted)
    for condition in _exactly(wanted):
        if rows := await _some(work, condition):
            return rows
    if rows := await _some(work, named, PersonaRow.status == "archived"):
        raise PersonaNotFound(
            f"No active persona is called {_quoted(wanted)}.",
            hint=f"{rows[0].slug} is archived: restore it by setting its status to active.",
        )
    # This one reads every name of the tenant: no index serves a part of a text under row-level
    # security, whose fence only leakproof operators may pass.
    part = PersonaRow.name_key.contains(name_key(wanted), autoescape=True)
    if rows := await _some(work, part, PersonaRow.status == "active"):
        return rows
    raise await _nothing_fits(work, wanted)


def _exactly(wanted: str) -> Iterator[ColumnElement[bool]]:
    if re.fullmatch(r"[a-z0-9-]+-\d+", wanted.lower()):
        yield PersonaRow.slug == wanted.lower()
    if re.fullmatch(r"[1-9][0-9]{0,9}", wanted) and int(wanted) <= LARGEST_ID:
        yield PersonaRow.id == int(wanted)
    yield and_(PersonaRow.status == "active", PersonaRow.name_key == name_key(wanted))


async def _some(work: Work, *conditions: ColumnElement[bool]) -> Sequence[PersonaRow]:
    query = _personas().where(*conditions).order_by(PersonaRow.id).limit(CANDIDATES + 1)
    return (await work.session.scalars(query)).all()


async def _nothing_fits(work: Work, wanted: str) -> PersonaNotFound:
    rows = await work.session.execute(
        select(PersonaRow.name, PersonaRow.slug)
        .where(PersonaRow.status == "active")
        .order_by(PersonaRow.id.desc())
        .limit(NAMES_COMPARED)
    )
    spellings = {spelling.lower(): slug for name, slug in rows for spelling in (name, slug)}
    close = difflib.get_close_matches(wanted.lower(), spellings, n=3, cutoff=0.5)
    slugs = list(dict.fromkeys(spellings[spelling] for spelling in close))
    suggestion = f"Did you mean {', '.join(slugs)}? " if slugs else ""
    return PersonaNotFound(
        f"No persona fits {_quoted(wanted)}.",
        hint=f"{suggestion}Register one with register_persona (name, role), or list them all.",
    )


def _filtered(asked: Listing) -> Select[PersonaRow]:
    query = select(PersonaRow).join(PersonaRow.role).options(contains_eager(PersonaRow.role))
    if asked.role:
        query = query.where(RoleRow.name == asked.role.lower())
    if asked.status != "all":
        query = query.where(PersonaRow.status == asked.status)
    if asked.text:
        columns = (PersonaRow.slug, PersonaRow.description)
        query = query.where(
            or_(
                PersonaRow.name_key.contains(name_key(asked.text), autoescape=True),
                *(column.icontains(asked.text, autoescape=True) for column in columns),
            )
        )
    return query


async def _totals(work: Work) -> Totals:
    rows = await work.session.execute(
        select(PersonaRow.status, func.count()).group_by(PersonaRow.status)
    )
    counts: dict[str, int] = {status: count for status, count in rows}  # noqa: C416  # typed rows
    return Totals(active=counts.get("active", 0), archived=counts.get("archived", 0))


def _encode(row: PersonaRow, sort: Sort) -> str:
    keys = [row.role.name, row.name, row.id] if sort == "role" else [row.id]
    return base64.urlsafe_b64encode(json.dumps([sort, *keys]).encode()).decode()


def _decode(cursor: str, sort: Sort) -> list[Any]:
    try:
        place = _PLACES[sort].validate_json(base64.urlsafe_b64decode(cursor))
    except (binascii.Error, ValueError):
        raise Invalid(
            "cursor: is not one of this listing's.", hint="Leave it out to start from the top."
        ) from None
    return list(place[1:])


_Key = Annotated[int, Field(ge=0, le=LARGEST_ID)]
_Text = Annotated[str, Field(pattern="^[^\\x00]*$")]
_PLACES: dict[Sort, TypeAdapter[Any]] = {
    "newest": TypeAdapter(tuple[Literal["newest"], _Key]),
    "role": TypeAdapter(tuple[Literal["role"], _Text, _Text, _Key]),
}


def _role(row: RoleRow, count: int) -> Role:
    return Role(
        name=row.name,
        label=row.label,
        description=row.description,
        created_at=row.created_at,
        persona_count=count,
    )


def _candidate(row: PersonaRow) -> Candidate:
    return Candidate(slug=row.slug, name=row.name, role=row.role.name)


def _quoted(text: str) -> str:
    return repr(text if len(text) <= 60 else f"{text[:57]}...")
