"""The real process over standard input and output."""

import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from dirty_equals import IsStr
from mcp.types import INVALID_PARAMS, INVALID_REQUEST, PARSE_ERROR

from tests.conftest import Databases
from tests.stdio import INITIALIZE, MODERN, Server

Start = Callable[..., Server]

PROPOSAL: dict[str, Any] = {
    "domain": "testing",
    "topic": "flaky-tests",
    "content": "# Flaky tests\n\nPass the clock in.\n",
    "reason": "A test failed at midnight.",
    "confidence": 0.9,
}


@pytest.fixture
def start(databases: Databases, tmp_path: Path) -> Iterator[Start]:
    """Start a server on a database of its own."""
    name = databases.migrated()

    def start(*arguments: str, **settings: str) -> Server:
        return Server(
            *arguments,
            **{
                "DRAMATIS_DATABASE_URL": databases.url(name),
                "DRAMATIS_DATA_ROOT": str(tmp_path),
            }
            | settings,
        )

    yield start
    databases.drop(name)


def test_an_older_client_registers_a_persona(start: Start, tmp_path: Path):
    with start() as server:
        answer = server.ask("initialize", INITIALIZE)
        server.notify("notifications/initialized")
        persona = server.call("register_persona", name="Con", role="developer")

    assert answer["result"]["serverInfo"]["name"] == "dramatis"
    assert answer["result"]["capabilities"]["resources"]["listChanged"] is True
    assert answer["result"]["capabilities"]["tools"]["listChanged"] is False
    assert persona["structuredContent"]["path"] == str(tmp_path / "personas/developer-con-1")
    assert (tmp_path / "personas/developer-con-1/skill.md").is_file()


def test_a_modern_client_registers_a_persona(start: Start):
    with start() as server:
        discovered = server.ask("server/discover", MODERN)
        persona = server.call("register_persona", modern=True, name="Con", role="developer")

    assert "2026-07-28" in discovered["result"]["supportedVersions"]
    assert persona["structuredContent"]["slug"] == "developer-con-1"


def test_a_client_that_probes_first_may_still_be_an_older_one(start: Start):
    with start() as server:
        server.ask("server/discover", MODERN)
        server.ask("server/discover", MODERN)
        answer = server.ask("initialize", INITIALIZE)
        server.notify("notifications/initialized")
        found = server.call("lookup_role", name="developer")

    assert answer["result"]["protocolVersion"] == "2025-11-25"
    assert found["structuredContent"]["found"] is False


def test_servers_of_both_eras_share_one_database(start: Start):
    with start() as older, start() as modern:
        older.initialize()
        first = older.call("register_persona", name="Con", role="developer")
        second = modern.call("register_persona", modern=True, name="Con", role="developer")
        seen = older.call("lookup_role", name="developer")

    slugs = [result["structuredContent"]["slug"] for result in (second, first)]
    assert [persona["slug"] for persona in seen["structuredContent"]["personas"]] == slugs


@pytest.mark.parametrize("modern", [False, True])
def test_a_standard_that_is_saved_is_told_of_and_found(start: Start, tmp_path: Path, modern: bool):
    folder = tmp_path / "project" / ".agent-os" / "standards" / "testing"
    folder.mkdir(parents=True)
    uri = "standard://testing/flaky-tests"
    with start(DRAMATIS_PROJECT_ROOT=str(tmp_path / "project")) as server:
        if modern:
            wanted = {"resourceSubscriptions": [uri]}
            server.send("subscriptions/listen", {"notifications": wanted, **MODERN})
        else:
            server.initialize()
            server.ask("resources/subscribe", {"uri": uri})
        server.call("lookup_role", modern=modern, name="developer")

        (folder / "flaky-tests.md").write_text("# Flaky tests\n\nPass the clock in.\n")
        while (notice := server.receive()).get("method") != "notifications/resources/updated":
            assert "error" not in notice
        found = server.call("search_standards", modern=modern, queries=["clock"])

    assert notice["params"]["uri"] == uri
    (hit,) = found["structuredContent"]["hits"]
    assert (hit["topic"], hit["text"]) == ("flaky-tests", "Pass the clock in.")
    assert server.errors == []


def test_standard_output_carries_nothing_but_the_protocol(start: Start):
    with start(DRAMATIS_LOG_LEVEL="DEBUG") as server:
        server.initialize()
        server.call("register_persona", name="Con", role="developer")
        server.call("sing")
        number = server.send("tools/list")
        assert server.receive()["id"] == number

    assert b"dramatis: DEBUG:" in b"".join(server.errors)


def refused(number: int | None, code: int, message: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": number, "error": {"code": code, "message": message}}


@pytest.mark.parametrize("modern", [False, True])
def test_what_cannot_be_read_is_answered_with_what_is_wrong(start: Start, modern: bool):
    half = '"method": "tools/call", "params": {"name": "lookup_role", "arguments": {"name": "\\ud83d"}}'
    deep = f'"method": "tools/list", "params": {{"a": {"[" * 300}{"]" * 300}}}'
    lines = [
        "{not json",
        "",
        f'{{"jsonrpc": "2.0", "id": 1001, {half}}}',
        f'{{"jsonrpc": "2.0", "id": "\\ud83d", {half}}}',
        f'{{"jsonrpc": "2.0", "id": 1002, {deep}}}',
        "[" * 100_000,
        '{"jsonrpc": "2.0", "id": 1003, "method": "tools/list", "params": []}',
        '{"jsonrpc": "2.0", "id": 1004}',
        "[]",
        *(f'{{"jsonrpc": "2.0", "id": {odd}, "method": "tools/list"}}' for odd in ("1.5", "null")),
    ]
    with start() as server:
        if not modern:
            server.initialize()
        for line in lines:
            server.write_line(line)
        answers = [server.receive() for _ in range(len(lines) - 1)]
        found = server.call("lookup_role", modern=modern, name="developer")

    no_unicode = "invalid: The message must be valid Unicode text: it has half of a surrogate pair."
    no_message = "invalid: This is no message of JSON-RPC 2.0."
    no_id = "invalid: The id of a request is a text or a whole number."
    assert answers == [
        refused(
            None,
            PARSE_ERROR,
            "invalid: This cannot be read as JSON: key must be a string at line 1 column 2.",
        ),
        refused(1001, INVALID_PARAMS, no_unicode),
        refused(None, INVALID_PARAMS, no_unicode),
        refused(1002, INVALID_PARAMS, IsStr(regex="invalid: .*: recursion limit exceeded at .*")),
        refused(None, PARSE_ERROR, IsStr(regex="invalid: .*: recursion limit exceeded at .*")),
        refused(1003, INVALID_REQUEST, no_message),
        refused(1004, INVALID_REQUEST, no_message),
        refused(None, INVALID_REQUEST, no_message),
        *[refused(None, INVALID_REQUEST, no_id)] * 2,
    ]
    assert found["isError"] is False
    assert server.errors == []


def test_it_ends_although_nobody_reads_what_it_says(start: Start):
    with start() as server:
        server.initialize()
        # More than pipes hold.
        server.stop_reading()
        for _ in range(100):
            server.send("tools/list")
        server.close_input()

        assert server.process.wait(timeout=60) == 0


def test_whoever_is_asked_and_answers_what_cannot_be_read_ends_the_call_that_asks(
    start: Start, tmp_path: Path
):
    (tmp_path / "project").mkdir()
    with start(
        "--toolsets", "standards", DRAMATIS_PROJECT_ROOT=str(tmp_path / "project")
    ) as server:
        server.ask("initialize", INITIALIZE | {"capabilities": {"elicitation": {}}})
        server.notify("notifications/initialized")
        made = server.call("propose_standard", **PROPOSAL)["structuredContent"]
        number = server.send(
            "tools/call",
            {"name": "request_standard_approval", "arguments": {"proposal": made["id"]}},
        )
        asked = server.receive()
        server.write_line(
            f'{{"jsonrpc": "2.0", "id": {asked["id"]}, "result": {{"action": "accept",'
            ' "content": {"decision": "reject", "feedback": "\\ud83d"}}}'
        )
        answer = server.receive()

    assert asked["method"] == "elicitation/create"
    assert answer["id"] == number
    assert "must be valid Unicode text" in str(answer)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_within_five_seconds(start: Start, number: signal.Signals):
    with start() as server:
        server.initialize()
        server.call("lookup_role", name="developer")

        server.process.send_signal(number)

        assert server.process.wait(5) == 128 + number
    assert server.errors == []


def test_a_signal_while_it_attaches_ends_it_too(start: Start):
    with start(DRAMATIS_LOG_LEVEL="DEBUG") as server:
        server.initialize()

        server.process.send_signal(signal.SIGTERM)

        assert server.process.wait(5) == 128 + signal.SIGTERM


def test_closing_its_input_ends_it(start: Start):
    with start() as server:
        server.initialize()
        server.call("lookup_role", name="developer")

        server.close_input()

        assert server.process.wait(5) == 0
    assert server.errors == []


def test_closing_its_input_ends_it_although_somebody_listens(start: Start):
    with start() as server:
        server.send("subscriptions/listen", {"notifications": {}, **MODERN})
        server.call("lookup_role", modern=True, name="developer")

        server.close_input()

        assert server.process.wait(5) == 0


@pytest.mark.parametrize("modern", [False, True])
def test_whoever_closes_its_input_at_once_is_answered_all_the_same(start: Start, modern: bool):
    settings = {"DRAMATIS_MODEL": "test:none", "DRAMATIS_START_WORKER": "false"}
    more = MODERN if modern else {}
    arguments = {"persona": "architect", "task": "Look."}
    with start("--toolsets", "jobs", **settings) as server:
        if not modern:
            server.send("initialize", INITIALIZE)
            server.notify("notifications/initialized")
        server.send("tools/call", {"name": "invoke_persona", "arguments": arguments, **more})
        server.close_input()
        answers = [server.receive() for _ in range(1 if modern else 2)]
        code = server.process.wait(5)

    with start("--toolsets", "jobs", **settings) as server:
        found = server.call("list_persona_jobs", modern=True)["structuredContent"]

    started = answers[-1]["result"]["structuredContent"]
    assert [job["job_id"] for job in found["jobs"]] == [started["job_id"]]
    assert code == 0


def test_input_that_closes_at_once_ends_it(start: Start):
    with start() as server:
        server.close_input()

        assert server.process.wait(5) == 0


def test_a_server_without_a_database_starts_and_says_what_is_wrong(start: Start):
    with start(DRAMATIS_DATABASE_URL="postgresql://me:s3cret@localhost:1/db") as server:
        server.initialize()
        result = server.call("lookup_role", name="developer")
        again = server.call("lookup_role", name="developer")

    (content,) = result["content"]
    assert result["isError"] is True
    assert content["text"] == (
        "Error executing tool lookup_role: database_unavailable: The database does not answer."
        " Is it running? `dramatis doctor` looks."
    )
    assert again == result
    assert b"s3cret" not in b"".join(server.errors)


@pytest.mark.parametrize("folder", ["server", "db"])
def test_folders_of_our_names_where_it_is_started_are_not_imported(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str
):
    (tmp_path / folder).mkdir()
    (tmp_path / folder / "__init__.py").write_text("raise SystemExit('wrong module')")
    monkeypatch.chdir(tmp_path)

    with start() as server:
        server.initialize()
