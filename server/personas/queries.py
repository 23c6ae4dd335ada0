"""Find, list and look up personas and roles. Nothing here changes anything."""

import base64
import binascii
import difflib
import json
import re
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import anyio.to_thread
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
        return Match(persona=None, candidates=[_candidate(row) for row in rows])
    return Match(persona=await describe(work.app, rows[0]), candidates=[])


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
        listed = ", ".join(f"{row.slug} ({row.name}, {row.role.name})" for row in rows)
        raise AmbiguousPersona(
            f"Several personas fit {_quoted(reference)}.", hint=f"Say which by slug: {listed}."
        )
    if not lock:
        return rows[0]
    query = _personas().where(PersonaRow.id == rows[0].id).with_for_update(of=PersonaRow)
    row = await work.session.scalar(query.execution_options(populate_existing=True))
    if row is None:
        raise await _nothing_fits(work, reference)
    return row


async def lookup_role(work: Work, name: str) -> RoleLookup:
    """Say what is known of a role, in any case. Never creates one."""
    wanted = parse(RoleQuery, name=name).name.lower()
    row = await work.session.scalar(select(RoleRow).where(RoleRow.name == wanted))
    if row is None:
        known = (await work.session.scalars(select(RoleRow.name).limit(NAMES_COMPARED))).all()
        return RoleLookup(
            found=False,
            role=None,
            personas=[],
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
        nearest=[],
        how_to_create=None,
    )


async def list_roles(work: Work, *, after: str = "", limit: int = 1000) -> list[Role]:
    """List roles by name.

    Args:
        after: leave out the names up to and including this one.
    """
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
    query = (
        select(PersonaRow.slug)
        .where(
            PersonaRow.status == "active",
            or_(
                PersonaRow.slug.startswith(prefix.lower(), autoescape=True),
                PersonaRow.name.istartswith(prefix, autoescape=True),
            ),
        )
        .order_by(PersonaRow.id.desc())
        .limit(limit)
    )
    return list(await work.session.scalars(query))


async def roles_starting_with(work: Work, prefix: str, limit: int) -> list[str]:
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


def _personas() -> Select[PersonaRow]:
    return select(PersonaRow).options(joinedload(PersonaRow.role, innerjoin=True))


async def _matching(work: Work, reference: str) -> Sequence[PersonaRow]:
    """Find by slug, id, name or part of a name: the first of these that finds any decides."""
    wanted = parse(Wanted, persona=reference).persona
    for condition in _conditions(wanted):
        query = _personas().where(condition).order_by(PersonaRow.id).limit(CANDIDATES)
        if rows := (await work.session.scalars(query)).all():
            return rows
    raise await _nothing_fits(work, wanted)


def _conditions(wanted: str) -> Iterator[ColumnElement[bool]]:
    if re.fullmatch(r"[a-z0-9-]+-\d+", wanted.lower()):
        yield PersonaRow.slug == wanted.lower()
    if re.fullmatch(r"[0-9]+", wanted) and int(wanted) <= LARGEST_ID:
        yield PersonaRow.id == int(wanted)
    active = PersonaRow.status == "active"
    yield and_(active, PersonaRow.name_key == func.lower(wanted))
    # This one reads every name of the tenant: no index serves a part of a text under row-level
    # security, whose fence only leakproof operators may pass.
    yield and_(active, PersonaRow.name_key.contains(wanted.lower(), autoescape=True))


async def _nothing_fits(work: Work, wanted: str) -> PersonaNotFound:
    archived = await work.session.scalar(
        select(PersonaRow.slug)
        .where(PersonaRow.status == "archived", PersonaRow.name_key == func.lower(wanted))
        .limit(1)
    )
    if archived is not None:
        return PersonaNotFound(
            f"No active persona fits {_quoted(wanted)}.",
            hint=f"{archived} is archived: restore it by setting its status to active.",
        )
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
        columns = (PersonaRow.name, PersonaRow.slug, PersonaRow.description)
        query = query.where(
            or_(*(column.icontains(asked.text, autoescape=True) for column in columns))
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
        made_for, *keys = json.loads(base64.urlsafe_b64decode(cursor))
    except (binascii.Error, ValueError, TypeError):
        made_for, keys = None, []
    kinds = [str, str, int] if sort == "role" else [int]
    if made_for != sort or [type(key) for key in keys] != kinds:
        raise Invalid(
            "cursor: is not one of this listing's.", hint="Leave it out to start from the top."
        )
    return keys


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
