"""Personas, roles and specs of another tenant are as if they were not."""

from collections.abc import Awaitable, Callable

import pytest

from server.jobs.prompting import cast
from server.personas import listing, queries
from server.personas.queries import PersonaNotFound
from server.specs import gate, publishing, runtime
from server.specs import queries as spec_queries
from server.specs import service as specs
from server.specs.becoming import become_persona
from server.work import Work
from tests.isolation.conftest import Tenants

pytestmark = pytest.mark.anyio


async def test_specs_of_two_tenants_know_nothing_of_each_other(
    two_tenants: Tenants,
):
    app, *callers = two_tenants

    for caller in callers:
        async with app.work(caller) as work:
            ran = await runtime.runtime_prompt(work, "con")
            listed = await spec_queries.overview(work)
            versions = await spec_queries.list_specs(work, "con")
            detail = await spec_queries.get_spec(work, "con")
        assert ran.text == f"## Constitution\n\n1. Obey {caller.name}.\n"
        assert [(one.active, one.versions) for one in listed.personas] == [("1.0.0", 1)]
        assert [one.author for one in versions.versions] == [caller.name]
        assert [one.author for one in detail.publications] == [caller.name]


USES: dict[str, Callable[[Work, str], Awaitable[object]]] = {
    "list": spec_queries.list_specs,
    "get": spec_queries.get_spec,
    "get a version": lambda work, persona: spec_queries.get_spec(work, persona, "1.0.0"),
    "get by address": lambda work, persona: spec_queries.spec_at(work, persona, "1.0.0"),
    "open": specs.open_spec,
    "create": lambda work, persona: specs.create_spec(work, persona, {}),
    "generate": specs.generate_spec,
    "publish": lambda work, persona: publishing.publish_spec(work, persona, "1.0.0", note="x"),
    "roll back": lambda work, persona: publishing.rollback_spec(work, persona, note="x"),
    "compare": specs.diff_specs,
    "run": runtime.runtime_prompt,
    "compile": lambda work, persona: runtime.compiled_prompt(work, persona, "1.0.0"),
    "become": become_persona,
    "foresee": lambda work, persona: publishing.foresee_publishing(work, persona, "1.0.0"),
    "check": gate.check_spec,
    "get checks": gate.get_checks,
    "set checks": lambda work, persona: gate.set_checks(work, persona, "[]"),
    "invoke": lambda work, persona: cast(work, persona, "Review this."),
}


@pytest.mark.parametrize("use", USES.values(), ids=USES)
async def test_a_spec_of_another_tenant_is_one_that_does_not_exist(
    two_tenants: Tenants, use: Callable[[Work, str], Awaitable[object]]
):
    app, first, second = two_tenants
    async with app.work(second) as work:
        (theirs,) = (await listing.list_personas(work)).personas

    said: list[str] = []
    async with app.work(first) as work:
        for reference in (theirs.slug, "developer-con-999"):
            with pytest.raises(PersonaNotFound) as refused:
                await use(work, reference)
            said.append(str(refused.value).replace(reference, "SLUG"))
        assert await spec_queries.versions_starting_with(work, theirs.slug, "", 9) == []
    assert said[0] == said[1]


async def test_a_version_that_only_another_tenant_has_is_one_that_does_not_exist(
    own_tenants: Tenants,
):
    app, first, second = own_tenants
    async with app.work(second) as work:
        await specs.create_spec(work, "con", {"version": "7.0.0"})

    async with app.work(first) as work:
        said: list[str] = []
        for version in ("7.0.0", "8.0.0"):
            for attempt in (
                spec_queries.get_spec(work, "con", version),
                publishing.publish_spec(work, "con", version, note="x"),
                runtime.compiled_prompt(work, "con", version),
            ):
                with pytest.raises(spec_queries.SpecNotFound) as refused:
                    await attempt
                said.append(str(refused.value).replace(version, "VERSION"))
        assert len(set(said)) == 1
        assert (await specs.create_spec(work, "con", {})).version == "1.0.1"


async def test_a_persona_of_another_tenant_is_one_that_does_not_exist(
    two_tenants: Tenants,
):
    app, first, second = two_tenants
    async with app.work(second) as work:
        (theirs,) = (await listing.list_personas(work)).personas

    async with app.work(first) as work:
        said: list[str] = []
        for reference in (theirs.slug, "developer-con-999"):
            with pytest.raises(PersonaNotFound) as refused:
                await queries.get_persona(work, reference)
            said.append(str(refused.value).replace(reference, "SLUG"))
    assert said[0] == said[1]


async def test_names_are_free_again_in_another_tenant(two_tenants: Tenants):
    app, first, second = two_tenants

    for caller in (first, second):
        async with app.work(caller) as work:
            assert [role.name for role in await listing.list_roles(work)] == ["developer"]
