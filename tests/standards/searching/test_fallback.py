"""Without an index or its database the files themselves are searched."""

import psycopg
import pytest
from dirty_equals import IsFloat, IsStr
from inline_snapshot import snapshot
from psycopg import sql

from db.session import connect
from server.standards.indexer import index_standards
from server.standards.search import search_now
from server.work import App
from tests.conftest import but
from tests.standards.conftest import RETRIES, Project, agent_of
from tests.standards.searching.conftest import change, fresh, search

pytestmark = pytest.mark.anyio

SCANNED = snapshot(
    {
        "hits": [
            {
                "file": ".agent-os/standards/development/retries.md",
                "domain": "development",
                "topic": "retries",
                "layer": "project",
                "section": "Pattern",
                "line": 5,
                "text": "Retry only what is idempotent, with exponential back-off and jitter.",
                "highlight": "",
                "relevance": 1.0,
                "tokens": 17,
                "review": "unreviewed",
                "approved_by": None,
            }
        ],
        "found_by": "scan of the files",
        "took_ms": IsFloat(gt=0),
        "tokens": 17,
        "note": IsStr(),
    }
)


async def test_before_the_first_index_run_the_files_are_searched(project: Project, app: App):
    project.write("development/retries.md", RETRIES)

    result = await search(app, "retry", "jitter")

    assert result.model_dump() == SCANNED
    assert result.note == snapshot(
        "The standards are not indexed yet, so the files were searched word by word."
    )


@pytest.mark.parametrize(
    "loss",
    [
        "DELETE FROM dramatis.postings",
        "DELETE FROM dramatis.passages",
        "DELETE FROM dramatis.postings; DELETE FROM dramatis.passages",
    ],
)
async def test_an_emptied_index_is_noticed_and_the_files_are_searched(indexed: App, loss: str):
    await search(indexed, "midnight")
    for statement in loss.split("; "):
        await change(indexed, statement)

    result = await search(indexed, "retry", "jitter")

    assert result.model_dump() == SCANNED
    assert result.note == snapshot(
        "The index of standards is gone, so the files were searched word by word."
    )


async def test_without_a_table_of_the_index_the_files_are_searched(
    project: Project, own_app: App, owner: psycopg.Connection
):
    project.write("development/retries.md", RETRIES)
    await index_standards(own_app, agent_of(own_app))
    rename = sql.SQL("ALTER TABLE dramatis.{} RENAME TO {}")
    found: dict[str, object] = {}
    for table in ("postings", "passages", "standards", "projects", "standard_uses"):
        owner.execute(rename.format(sql.Identifier(table), sql.Identifier("away")))
        found[table] = (await search(fresh(own_app), "retry", "jitter")).model_dump()
        owner.execute(rename.format(sql.Identifier("away"), sql.Identifier(table)))

    back = await search(own_app, "retry", "jitter")

    assert found == dict.fromkeys(found, SCANNED)
    assert back.found_by == "full text"


async def test_a_dropped_index_does_not_hide_behind_what_is_remembered(
    project: Project, own_app: App, owner: psycopg.Connection
):
    project.write("development/retries.md", RETRIES)
    await index_standards(own_app, agent_of(own_app))
    owner.execute("DROP TABLE dramatis.postings")

    result = await search_now(own_app, agent_of(own_app), ["retry", "jitter"])

    assert result.model_dump() == SCANNED


async def test_with_the_database_away_the_files_are_searched(project: Project, own_app: App):
    project.write("development/retries.md", RETRIES)
    await index_standards(own_app, agent_of(own_app))
    away = connect("postgresql://dramatis_app@127.0.0.1:1/none", pool_size=1)

    result = await search(but(own_app, database=away), "retry", "jitter")

    assert result.model_dump() == SCANNED
    assert result.note == IsStr(regex="The database does not answer.*searched word by word.")
