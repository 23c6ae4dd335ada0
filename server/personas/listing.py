"""List and look up personas and roles, a page at a time."""

import base64
import binascii
import difflib
import json
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter
from sqlalchemy import Select, func, or_, select, tuple_
from sqlalchemy.orm import contains_eager

from db.tables import PersonaRow, RoleRow
from server.errors import Invalid, parse
from server.personas.queries import LARGEST_ID, NAMES_COMPARED, name_key, personas, summarise
from server.personas.shapes import (
    Listing,
    PersonaPage,
    Role,
    RoleLookup,
    RoleQuery,
    Totals,
    Typed,
)
from server.work import Work

PERSONAS_OF_A_ROLE = 50

Sort = Literal["newest", "role"]


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
        personas()
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
    counts = {str(status): int(count) for status, count in rows}
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
