"""Standards and proposals of another tenant are as if they were not."""

from collections.abc import Awaitable, Callable

import pytest

from server.standards import approving, catalogue, writing
from server.standards import queries as proposals
from server.standards.search import search_standards
from server.standards.service import propose_standard, revise_proposal
from server.work import App, Caller
from tests.isolation.conftest import Tenants, as_person, in_project_of

pytestmark = pytest.mark.anyio


async def test_standards_of_two_tenants_know_nothing_of_each_other(
    two_tenants: Tenants,
):
    app, *callers = two_tenants

    for caller in callers:
        here = in_project_of(caller, app)
        found = await search_standards(here, caller, "retries jitter")
        async with here.work(caller) as work:
            listed = await catalogue.list_standards(work)
            page = await proposals.list_proposals(work, status="all")
            detail = await proposals.get_proposal(work, page.proposals[0].id)
        assert [hit.text for hit in found.hits] == ["With jitter."]
        assert [(one.title, one.approved_by) for one in listed.standards] == [
            (f"Retries of {caller.name}", caller.name)
        ]
        assert [one.feedback for one in detail.decisions] == [f"Asks {caller.name}.", None]


async def test_in_the_folder_of_another_tenant_there_are_files_and_nothing_else(
    two_tenants: Tenants,
):
    app, first, second = two_tenants
    there = in_project_of(second, app)

    found = await search_standards(there, first, "jitter")
    async with there.work(first) as work:
        listed = await catalogue.list_standards(work)
        page = await proposals.list_proposals(work, status="all")
        counts = await catalogue.statistics(work)
        unwritten = await proposals.not_written(work)
        read = await catalogue.read_standard(work, "data", "retries")

    assert (listed.standards, page.proposals, page.waiting, unwritten) == ([], [], 0, [])
    assert (counts.standards, counts.waiting_proposals) == (0, 0)
    assert found.found_by == "scan of the files"
    # The file itself says who approved it, and that is all there is to know.
    assert (read.review, read.approved_by) == ("claimed", "second")


async def approve(app: App, caller: Caller, number: int) -> object:
    return await approving.approve_proposal(app, caller, number, digest="", channel="console")


async def repair(app: App, caller: Caller, number: int) -> object:
    return await writing.write_approved(app, caller, number)


def deciding(
    verb: Callable[..., Awaitable[object]], **values: str
) -> Callable[[App, Caller, int], Awaitable[object]]:
    async def decide(app: App, caller: Caller, number: int) -> object:
        async with app.work(caller) as work:
            return await verb(work, number, **values)

    return decide


NO = {"digest": "", "feedback": "No.", "channel": "console"}
DECISIONS: dict[str, Callable[[App, Caller, int], Awaitable[object]]] = {
    "get": deciding(proposals.get_proposal),
    "revise": deciding(revise_proposal, content="# Mine"),
    "approve": approve,
    "ask for changes": deciding(approving.request_changes, **NO),
    "reject": deciding(approving.reject_proposal, **NO),
    "repair": repair,
}


@pytest.mark.parametrize("use", DECISIONS.values(), ids=DECISIONS)
async def test_a_proposal_of_another_tenant_is_one_that_does_not_exist(
    two_tenants: Tenants,
    use: Callable[[App, Caller, int], Awaitable[object]],
):
    app, first, second = two_tenants
    there = in_project_of(second, app)
    async with there.work(second) as work:
        (theirs,) = (await proposals.list_proposals(work, status="all")).proposals

    said: list[str] = []
    for number in (theirs.id, 999):
        # In their folder too, where only the tenant is another.
        for here in (in_project_of(first, app), there):
            with pytest.raises(proposals.ProposalNotFound) as refused:
                await use(here, as_person(first), number)
            said.append(str(refused.value).replace(str(number), "NUMBER"))
    assert len(set(said)) == 1


async def test_a_standard_of_another_tenant_is_one_that_does_not_exist(
    own_tenants: Tenants,
):
    app, first, second = own_tenants
    there = in_project_of(second, app)
    async with there.work(as_person(second)) as work:
        made = await propose_standard(
            work, domain="data", topic="theirs", content="# Theirs\n\nZebra.", reason="Seen."
        )
    person = as_person(second)
    await approving.approve_proposal(there, person, made.id, digest=made.digest, channel="rest")

    here = in_project_of(first, app)
    said: list[str] = []
    async with here.work(first) as work:
        for topic in ("theirs", "nobody"):
            with pytest.raises(catalogue.StandardNotFound) as refused:
                await catalogue.read_standard(work, "data", topic)
            said.append(str(refused.value).replace(topic, "TOPIC"))
        assert await catalogue.standards_starting_with(work, "the", 9, domain="data") == []
    assert said[0] == said[1]
    assert (await search_standards(here, first, "zebra")).hits == []
