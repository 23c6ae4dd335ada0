from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from server.errors import Invalid
from server.personas import listing, queries, service
from server.personas.listing import Sort
from server.personas.queries import AmbiguousPersona, PersonaNotFound
from server.personas.service import register_persona
from server.personas.shapes import Registered
from server.work import App, Caller, Work

pytestmark = pytest.mark.anyio

Register = Callable[..., Awaitable[Registered]]


@pytest.fixture
def register(app: App, caller: Caller) -> Register:
    async def register(name: str, role: str = "developer", **more: str) -> Registered:
        return await register_persona(app, caller, name=name, role=role, **more)

    return register


async def meant(work: Work, reference: str) -> str:
    match = await queries.get_persona(work, reference)
    assert match.persona is not None
    return match.persona.slug


async def test_a_persona_is_found_by_slug_id_name_and_part_of_a_name(
    register: Register, work: Work
):
    con = await register("Con Murphy")
    await register("Eve")

    for reference in (con.slug, con.slug.upper(), str(con.id), "con murphy", " CON ", "Murph"):
        assert await meant(work, reference) == con.slug


async def test_a_whole_name_wins_over_a_part_of_another(register: Register, work: Work):
    con = await register("Con")
    await register("Connor")

    assert await meant(work, "con") == con.slug


async def test_several_that_fit_are_listed_and_none_is_guessed(register: Register, work: Work):
    first = await register("Con")
    second = await register("Con", "tester")

    match = await queries.get_persona(work, "con")

    assert match.persona is None
    assert [candidate.model_dump() for candidate in match.candidates] == [
        {"slug": first.slug, "name": "Con", "role": "developer"},
        {"slug": second.slug, "name": "Con", "role": "tester"},
    ]


async def test_a_use_that_needs_one_persona_is_told_the_candidates(register: Register, work: Work):
    first = await register("Con")
    second = await register("Con", "tester")

    with pytest.raises(AmbiguousPersona) as refused:
        await service.update_persona(work, "con", description="x")

    assert str(refused.value) == (
        "Several personas fit 'con'. Say which by slug:"
        f" {first.slug} (Con, developer), {second.slug} (Con, tester)."
    )


async def test_an_unknown_name_is_answered_with_the_closest_and_how_to_register(
    register: Register, work: Work
):
    con = await register("Connor")

    with pytest.raises(PersonaNotFound) as refused:
        await queries.get_persona(work, "conor")

    assert str(refused.value) == (
        f"No persona fits 'conor'. Did you mean {con.slug}? Register one with register_persona"
        " (name, role), or list them all."
    )


@pytest.mark.parametrize("reference", ["99999999999999999999", "0", "developer-con-999", "%", "_"])
async def test_a_reference_that_fits_nothing_is_an_error(
    register: Register, work: Work, reference: str
):
    await register("Con")

    with pytest.raises(PersonaNotFound):
        await queries.get_persona(work, reference)


async def test_an_empty_reference_is_refused(work: Work):
    with pytest.raises(Invalid, match="persona: must not be empty or blank"):
        await queries.get_persona(work, " ")


async def test_an_archived_persona_is_found_by_slug_only(register: Register, work: Work):
    con = await register("Con")
    await service.update_persona(work, con.slug, status="archived")

    with pytest.raises(PersonaNotFound) as refused:
        await queries.get_persona(work, "con")

    assert await meant(work, con.slug) == con.slug
    assert str(refused.value) == (
        f"No active persona is called 'con'. {con.slug} is archived: restore it by setting its status"
        " to active."
    )


async def test_looking_up_a_role_answers_with_its_personas_active_ones_first(
    register: Register, work: Work
):
    old, young, third = [await register(name, "QA") for name in ("Con", "Eve", "Kim")]
    await service.update_persona(work, third.slug, status="archived")

    looked_up = await listing.lookup_role(work, " qa ")

    assert looked_up.found is True
    assert looked_up.role is not None
    assert (looked_up.role.label, looked_up.role.persona_count) == ("QA", 3)
    assert [persona.slug for persona in looked_up.personas] == [young.slug, old.slug, third.slug]


async def test_looking_up_an_unknown_role_creates_nothing(register: Register, work: Work):
    await register("Con", "developer")

    looked_up = await listing.lookup_role(work, "develper")

    assert (looked_up.found, looked_up.role, looked_up.nearest) == (False, None, ["developer"])
    assert looked_up.how_to_create is not None
    assert [role.name for role in await listing.list_roles(work)] == ["developer"]


async def test_roles_are_listed_by_name_and_page_by_page(register: Register, work: Work):
    for role in ("tester", "architect", "pm"):
        await register("Con", role)

    first = await listing.list_roles(work, limit=2)
    rest = await listing.list_roles(work, after=first[-1].name)

    assert [role.name for role in [*first, *rest]] == ["architect", "pm", "tester"]


@pytest.mark.parametrize("sort", ["newest", "role"])
async def test_pages_of_a_listing_make_up_the_whole(register: Register, work: Work, sort: Sort):
    registered = [
        await register(name, role)
        for name, role in [("Con", "tester"), ("Eve", "dev"), ("Ada", "tester"), ("Con", "dev")]
    ]
    in_order = {"newest": [3, 2, 1, 0], "role": [3, 1, 2, 0]}[sort]

    seen: list[str] = []
    cursor: str | None = None
    while True:
        page = await listing.list_personas(work, sort=sort, limit=1, cursor=cursor)
        seen += [persona.slug for persona in page.personas]
        cursor = page.next_cursor
        if cursor is None:
            break

    assert seen == [registered[number].slug for number in in_order]


async def test_a_listing_filters_by_role_status_and_text(register: Register, work: Work):
    con = await register("Con", "developer", description="Knows 100% of Postgres")
    eve = await register("Eve", "tester")
    await service.update_persona(work, eve.slug, status="archived")

    async def listed(**filters: Any) -> list[str]:
        page = await listing.list_personas(work, **filters)
        return [persona.name for persona in page.personas]

    assert await listed() == ["Con"]
    assert await listed(status="all") == ["Eve", "Con"]
    assert await listed(status="archived") == ["Eve"]
    assert await listed(role="DEVELOPER") == ["Con"]
    assert await listed(role="tester") == []
    assert await listed(text="100% of") == ["Con"]
    assert await listed(text="_") == []
    assert await listed(text=con.slug) == ["Con"]
    assert (await listing.list_personas(work)).totals.model_dump() == {"active": 1, "archived": 1}


@pytest.mark.parametrize("cursor", ["!!", "WyJyb2xlIl0=", "e30=", "WyJuZXdlc3QiLCAieCJd"])
async def test_a_cursor_of_another_listing_is_refused(work: Work, cursor: str):
    with pytest.raises(Invalid, match="cursor: is not one of this listing's"):
        await listing.list_personas(work, cursor=cursor)


@pytest.mark.parametrize("limit", [0, 101])
async def test_a_limit_out_of_range_is_refused(work: Work, limit: int):
    with pytest.raises(Invalid, match="limit"):
        await listing.list_personas(work, limit=limit)


async def test_an_archived_persona_outranks_a_part_of_somebody_elses_name(
    register: Register, work: Work
):
    ada = await register("Ada")
    await register("Adam")
    await service.update_persona(work, ada.slug, status="archived")

    with pytest.raises(PersonaNotFound, match=f"{ada.slug} is archived"):
        await service.update_persona(work, "ada", description="meant for Ada")


@pytest.mark.parametrize(
    ("name", "reference"),
    [
        ("José", "jose\u0301"),
        ("ΟΔΥΣΣΕΥΣ", "οδυσσευς"),
        ("Straße", "STRASSE"),
        ("Ärne", "ärn"),
        ("007", "007"),
    ],
)
async def test_case_and_composition_of_letters_do_not_matter(
    register: Register, work: Work, name: str, reference: str
):
    persona = await register(name)

    assert await meant(work, reference) == persona.slug
    page = await listing.list_personas(work, text=reference)
    assert [found.slug for found in page.personas] == [persona.slug]


async def test_it_is_said_when_not_all_candidates_are_listed(register: Register, work: Work):
    for _ in range(11):
        await register("Con")

    match = await queries.get_persona(work, "con")

    assert (len(match.candidates), match.more) == (10, True)
    with pytest.raises(AmbiguousPersona, match=r"and others\.$"):
        await queries.the_persona(work, "con")


async def test_it_is_said_how_many_personas_of_a_role_are_left_out(register: Register, work: Work):
    for _ in range(51):
        await register("Con")

    looked_up = await listing.lookup_role(work, "developer")

    assert (len(looked_up.personas), looked_up.left_out) == (50, 1)
