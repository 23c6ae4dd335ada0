"""Publishing when many do it at once, and when the connection is gone in the middle of it."""

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import anyio
import psycopg
import pytest
from sqlalchemy import text

from server.personas import service as personas
from server.personas.queries import PersonaNotFound
from server.specs import publishing
from server.specs import service as specs
from server.specs.queries import get_spec, list_specs
from server.specs.runtime import runtime_prompt
from server.specs.service import SpecVersionExists
from server.specs.shapes import Published, SpecDraft
from server.work import App, DatabaseUnavailable, Work
from tests.conftest import Databases, operator
from tests.test_migrations import plain

pytestmark = pytest.mark.anyio

RACERS = 10
ROUNDS = 20
DEADLINE_S = 30


@dataclass(frozen=True, slots=True)
class Stage:
    """A persona with ten drafts, and somebody beside the application who can hold things up."""

    app: App
    slug: str
    admin_url: str

    async def use(self, verb: Callable[[Work], Awaitable[Any]]) -> Any:
        async with self.app.work(operator(self.app)) as work:
            return await verb(work)

    async def publish(self, version: str) -> Published:
        return await self.use(
            lambda work: publishing.publish_spec(work, self.slug, version, note=f"for {version}")
        )

    @asynccontextmanager
    async def held(self, statement: str) -> AsyncGenerator[psycopg.AsyncConnection]:
        """Keep everybody waiting who needs what `statement` locks, until this ends."""
        async with await psycopg.AsyncConnection.connect(self.admin_url) as holder:
            await holder.execute(statement.encode())
            yield holder

    async def at_once(self, *racers: Callable[[Work], Awaitable[Any]]) -> list[Any]:
        """Let all begin, and go on only when each waits for the persona; list what they answer."""
        answers: list[Any] = []

        async def race(verb: Callable[[Work], Awaitable[Any]]) -> None:
            answers.append(await self.use(verb))

        lock = "SELECT FROM dramatis.personas FOR UPDATE"
        async with anyio.create_task_group() as group, self.held(lock):
            for verb in racers:
                group.start_soon(race, verb)
            await self.waiting(len(racers))
        return answers

    async def waiting(self, count: int) -> list[int]:
        """Wait until so many backends wait for a lock."""
        query = (
            "SELECT pid FROM pg_stat_activity"
            " WHERE datname = current_database() AND wait_event_type = 'Lock'"
        )
        with anyio.fail_after(DEADLINE_S):
            async with await psycopg.AsyncConnection.connect(
                self.admin_url, autocommit=True
            ) as admin:
                while True:
                    found = [row[0] for row in await (await admin.execute(query)).fetchall()]
                    if len(found) == count:
                        return found

    async def history(self) -> list[tuple[Any, ...]]:
        query = (
            "SELECT version, replaced, published_at FROM dramatis.spec_publications p"
            " JOIN dramatis.persona_specs s ON s.id = p.spec_id ORDER BY p.id"
        )

        async def read(work: Work) -> list[tuple[Any, ...]]:
            return [tuple(row) for row in await work.session.execute(text(query))]

        return await self.use(read)

    async def active(self) -> list[str]:
        async def read(work: Work) -> list[str]:
            versions = (await list_specs(work, self.slug)).versions
            return [one.version for one in versions if one.status == "active"]

        return await self.use(read)


@pytest.fixture
async def stage(own_app: App, databases: Databases) -> Stage:
    con = await personas.register_persona(own_app, operator(own_app), name="Con", role="developer")
    database = own_app.database.engine.url.database
    assert database
    stage = Stage(own_app, con.slug, plain(databases.url(database, "postgres")))
    for number in range(RACERS):
        await stage.use(creating({"constitution": [f"Principle {number}."]}, con.slug))
    return stage


def creating(document: dict[str, Any], persona: str = "con") -> Callable[[Work], Awaitable[Any]]:
    return lambda work: specs.create_spec(work, persona, document)


def publishes(version: str) -> Callable[[Work], Awaitable[Any]]:
    return lambda work: publishing.publish_spec(work, "con", version, note=f"for {version}")


async def test_ten_publishers_at_once_for_twenty_rounds_leave_one_active(stage: Stage):
    versions = [f"1.0.{number}" for number in range(RACERS)]
    changes = 0

    for _ in range(ROUNDS):
        answers = await stage.at_once(*(publishes(version) for version in versions))
        changes += sum(answer.changed for answer in answers)
        history = await stage.history()
        assert sorted(answer.version for answer in answers) == versions
        assert await stage.active() == [history[-1][0]]

    history = await stage.history()
    assert len(history) == changes >= ROUNDS * (RACERS - 1)
    assert history[0][1] is None
    for (before, _, earlier), (_, replaced, later) in pairwise(history):
        assert replaced == before
        assert earlier <= later
    ran = await stage.use(lambda work: runtime_prompt(work, "con"))
    assert ran.trace.persona_spec_version == history[-1][0]


async def test_one_of_two_that_publish_the_same_version_finds_it_done(stage: Stage):
    await stage.publish("1.0.0")

    answers: list[Published] = await stage.at_once(publishes("1.0.1"), publishes("1.0.1"))

    assert sorted((one.changed, one.replaced) for one in answers) == [
        (False, None),
        (True, "1.0.0"),
    ]
    assert [(version, replaced) for version, replaced, _ in await stage.history()] == [
        ("1.0.0", None),
        ("1.0.1", "1.0.0"),
    ]


async def test_two_that_roll_back_at_once_go_there_and_back(stage: Stage):
    await stage.publish("1.0.0")
    await stage.publish("1.0.1")

    def back(work: Work) -> Awaitable[Published]:
        return publishing.rollback_spec(work, "con", note="back")

    answers: list[Published] = await stage.at_once(back, back)

    assert sorted((one.version, one.replaced) for one in answers) == [
        ("1.0.0", "1.0.1"),
        ("1.0.1", "1.0.0"),
    ]
    assert await stage.active() == ["1.0.1"]


async def test_creators_at_once_get_versions_of_their_own_and_none_is_lost(stage: Stage):
    texts = [f"Racer {number}." for number in range(RACERS)]

    drafts: list[SpecDraft] = await stage.at_once(
        *(creating({"constitution": [principle]}) for principle in texts)
    )

    assert sorted(draft.version for draft in drafts) == [f"1.0.{10 + n}" for n in range(RACERS)]
    kept = [
        (await stage.use(lambda work, v=draft.version: get_spec(work, "con", v))).document
        for draft in drafts
    ]
    assert sorted(document["constitution"][0] for document in kept) == texts


async def test_one_of_many_that_create_the_same_version_has_it(stage: Stage):
    async def create(work: Work) -> str:
        try:
            return (await specs.create_spec(work, "con", {"version": "2.0.0"})).version
        except SpecVersionExists:
            return "exists"

    answers = await stage.at_once(*[create] * RACERS)

    assert sorted(answers) == ["2.0.0", *["exists"] * (RACERS - 1)]


async def test_creators_and_publishers_at_once_do_not_disturb_each_other(stage: Stage):
    racers = [creating({}), publishes("1.0.3")] * (RACERS // 2)

    await stage.at_once(*racers)

    listed = (await stage.use(lambda work: list_specs(work, "con", limit=100))).versions
    assert [one.version for one in listed] == [f"1.0.{n}" for n in range(14, -1, -1)]
    assert await stage.active() == ["1.0.3"]


async def test_what_is_published_while_its_persona_is_deleted_is_of_nobody(stage: Stage):
    said: list[str] = []

    async def publish() -> None:
        with pytest.raises(PersonaNotFound) as refused:
            await stage.publish("1.0.0")
        said.append(str(refused.value))

    async with anyio.create_task_group() as group, stage.app.work(operator(stage.app)) as work:
        await personas.delete_persona(work, stage.slug)
        group.start_soon(publish)
        await stage.waiting(1)

    assert said[0].startswith(f"No persona fits {stage.slug!r}.")
    assert await stage.history() == []


@pytest.mark.parametrize(
    ("hold", "changed"),
    [
        ("SELECT FROM dramatis.persona_specs WHERE version = '1.0.0' FOR UPDATE", []),
        ("SELECT FROM dramatis.persona_specs WHERE version = '1.0.1' FOR UPDATE", ["1.0.0"]),
        ("LOCK TABLE dramatis.spec_publications IN EXCLUSIVE MODE", ["1.0.0", "1.0.1"]),
        ("LOCK TABLE dramatis.audit_log IN EXCLUSIVE MODE", ["1.0.0", "1.0.1"]),
    ],
    ids=["before the first change", "between the two", "after both", "before the end"],
)
async def test_a_connection_killed_inside_publish_leaves_the_old_one_active(
    stage: Stage, hold: str, changed: list[str]
):
    await stage.publish("1.0.0")
    before = await stage.history()
    lost: list[DatabaseUnavailable] = []
    touched = set[str]()

    async def publish() -> None:
        with pytest.raises(DatabaseUnavailable, match="It may or may not") as error:
            await stage.publish("1.0.1")
        lost.append(error.value)

    async with anyio.create_task_group() as group, stage.held(hold) as holder:
        group.start_soon(publish)
        (backend,) = await stage.waiting(1)
        untouched = await holder.execute(
            "SELECT version FROM dramatis.persona_specs WHERE version IN ('1.0.0', '1.0.1')"
            " ORDER BY version FOR UPDATE SKIP LOCKED"
        )
        touched = {"1.0.0", "1.0.1"} - {row[0] for row in await untouched.fetchall()}
        await holder.execute("SELECT pg_terminate_backend(%s)", [backend])

    assert len(lost) == 1
    # It had really got so far when it was killed.
    assert sorted(touched) == changed
    assert await stage.active() == ["1.0.0"]
    assert await stage.history() == before
    published = await stage.publish("1.0.1")
    assert (published.changed, published.replaced) == (True, "1.0.0")
    assert await stage.active() == ["1.0.1"]
