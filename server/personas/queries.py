"""Find the persona that somebody means. Nothing here changes anything."""

import difflib
import re
import unicodedata
from collections.abc import Iterator, Sequence

import anyio.to_thread
from sqlalchemy import ColumnElement, Select, and_, select
from sqlalchemy.orm import joinedload

from db.tables import PersonaRow
from server.errors import Conflict, NotFound, parse
from server.personas import assets
from server.personas.shapes import (
    Candidate,
    Match,
    Persona,
    PersonaSummary,
    Wanted,
)
from server.work import App, Work

CANDIDATES = 10
# Suggestions are taken from the newest ones: comparing with all would grow with the registry.
NAMES_COMPARED = 500
LARGEST_ID = 2**31 - 1


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
    row = await work.session.scalar(personas().where(PersonaRow.slug == wanted))
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
    query = personas().where(PersonaRow.id == rows[0].id).with_for_update(of=PersonaRow)
    row = await work.session.scalar(query.execution_options(populate_existing=True))
    if row is None:
        raise await _nothing_fits(work, reference.strip())
    return row


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


def personas() -> Select[PersonaRow]:
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
    query = personas().where(*conditions).order_by(PersonaRow.id).limit(CANDIDATES + 1)
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


def _candidate(row: PersonaRow) -> Candidate:
    return Candidate(slug=row.slug, name=row.name, role=row.role.name)


def _quoted(text: str) -> str:
    return repr(text if len(text) <= 60 else f"{text[:57]}...")
