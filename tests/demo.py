"""`make demo`: a real client drives the real server over stdio, on a fresh embedded Postgres."""

import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from datetime import timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import anyio
from mcp import Client, StdioServerParameters
from mcp.client import ClientRequestContext
from mcp.types import (
    CallToolResult,
    ElicitRequestFormParams,
    ElicitRequestParams,
    ElicitResult,
    TextContent,
)

from db.embedded import EmbeddedPostgres
from server.jobs.starting import Station, stop_workers
from server.settings import Settings
from server.specs.examples import example_text

DRAMATIS = Path(sys.executable).with_name("dramatis")
STANDARD = """\
# Flaky tests

## Context

A test that fails now and then is worse than none: people stop reading the red.

## Pattern

Pass the clock in. A test that reads the time twice fails around midnight.
"""
# Stands for an agent on the command line, where the libraries that speak to models are missing.
AGENT = """
import re, sys, time
asked = sys.stdin.read()
who = re.search("(?m)^Name: (.+)$", asked)
answer = f"I am {who[1] if who else 'somebody'}, was asked {len(asked):,} characters, and am a script."
for word in answer.split():
    print(word, end=" ", flush=True)
    time.sleep(0.1)
"""


async def main() -> None:
    data_root = Path(tempfile.mkdtemp(prefix="dramatis-demo-"))
    project = data_root / "project"
    (project / ".git").mkdir(parents=True)
    settings = {
        "DRAMATIS_LINGER_S": "0",
        "DRAMATIS_TOOLSETS": "personas,specs,standards,jobs",
        "DRAMATIS_PROJECT_ROOT": str(project),
    }
    print(f"$ dramatis mcp --data-root {data_root}\n")
    try:
        with playing_model() as model:
            server = StdioServerParameters(
                command=str(DRAMATIS),
                args=["mcp", "--data-root", str(data_root)],
                env=settings | model,
            )
            async with Client(server, elicitation_callback=Person()) as client:
                con = await play_personas(client)
                await play_specs(client, con)
                await play_standards(client, con, project)
                await play_jobs(client, con)
    except BaseException:
        remove_database(data_root)
        shutil.rmtree(data_root, ignore_errors=True)
        raise
    remove_database(data_root)
    print(f"The files are left for you to look at: {data_root}")


@contextmanager
def playing_model() -> Generator[dict[str, str]]:
    """Play a model on this machine, and give the settings that point to it."""
    if find_spec("pydantic_ai") is None:
        yield {"DRAMATIS_RUNNER_COMMAND": shlex.join([sys.executable, "-c", AGENT])}
        return
    program = Path(__file__).with_name("jobs") / "model_server.py"
    with subprocess.Popen([sys.executable, "-P", program], stdout=subprocess.PIPE) as model:
        try:
            assert model.stdout is not None
            url = model.stdout.readline().decode().strip()
            yield {"DRAMATIS_MODEL": "played", "DRAMATIS_MODEL_URL": url}
        finally:
            model.terminate()


def remove_database(data_root: Path) -> None:
    # A worker that was not told to go would start another one, to be sure that no job waits.
    stop_workers(Station.of(Settings(data_root=data_root, database_url=None, tenant="default")))
    server = EmbeddedPostgres(data_root, linger=timedelta(0))
    server.acquire()
    server.stop()
    server.release()
    shutil.rmtree(server.base)


class Person:
    """Answers what the server asks the person, as you would in your client."""

    def __init__(self) -> None:
        self._decisions = [
            {"decision": "ask for changes", "feedback": "Say what to do about sleeps, too."},
            {"decision": "approve"},
        ]

    async def __call__(
        self, context: ClientRequestContext, params: ElicitRequestParams
    ) -> ElicitResult:
        print(indented(params.message, "  ? "))
        assert isinstance(params, ElicitRequestFormParams)
        deciding = "decision" in params.requested_schema["properties"]
        content = self._decisions.pop(0) if deciding else {}
        print(f"  ! {': '.join(content.values()) or 'Yes.'}")
        return ElicitResult(action="accept", content={**content})


async def play_personas(client: Client) -> str:
    con = await call(client, "register_persona", name="Con", role="developer")
    show(con, "id", "slug", "path", "role_created")
    second = await call(client, "register_persona", name="Con", role="developer")
    show(second, "id", "slug", "path", "role_created")

    role = await call(client, "lookup_role", name="Developer")
    print("  developers:", ", ".join(persona["slug"] for persona in role["personas"]), "\n")

    files = await call(client, "read_persona_files", persona=con["slug"], which="skill")
    content = files["skill"]["content"].replace("tone, length", "briefly, with an example")
    written = await call(
        client,
        "write_persona_skill",
        persona=con["slug"],
        content=content,
        expected_sha256=files["skill"]["sha256"],
    )
    show(written, "changed", "sha256", "replaced_sha256")

    entry = "Flaky tests here were a shared clock. Pass the clock in."
    added = await call(client, "add_persona_experience", persona=con["slug"], entry=entry)
    show(added, "heading", "size_bytes")

    for file in sorted(Path(con["path"]).iterdir()):
        print(f"--- {file}\n{file.read_text(encoding='utf-8')}")
    return con["slug"]


async def play_specs(client: Client, con: str) -> None:
    """Store, publish, compare and take back versions of how Con thinks and speaks."""
    print("Now a spec: how Con thinks and speaks, in versions.\n")
    example = example_text("developer")
    draft = await call(client, "create_persona_spec", persona=con, spec=example)
    show(draft, "version", "status")
    preview = draft["preview"]
    print(f"  The preview has {preview['total_tokens']:,} tokens and begins:\n")
    print(indented("\n".join(preview["constitution_text"].splitlines()[:5]), "  | ") + "\n")
    await show_source(client, con)

    await publish(client, con, "1.0.0", "The example, to begin with.")
    await show_source(client, con)

    principle = "constitution:\n  - Never push to main.\n"
    changed = example.replace("constitution:\n", principle).replace("calm and plain", "dry")
    show(await call(client, "create_persona_spec", persona=con, spec=changed), "version", "status")
    diff = await call(client, "diff_persona_specs", persona=con)
    print(f"  {diff['before']} to {diff['after']}, by meaning:")
    for change in diff["changes"]:
        was = f"{change['before']} -> " if change["before"] else ""
        print(f"  {change['kind']} {change['path']}: {was}{change['after']}")
    print()

    await publish(client, con, "1.0.1", "Nobody pushes to main.")
    await publish(client, con, "1.0.0", "Going back: releases are made from main.")
    await show_source(client, con)

    listing = await call(client, "list_persona_specs", persona=con)
    for version in listing["versions"]:
        last = version["last_published"]
        print(
            f"  {version['version']} {version['status']}: {last['note']} Yes: {last['confirmed']}."
        )
    print()


async def play_standards(client: Client, con: str, project: Path) -> None:
    """Propose a standard, be sent back, revise it, have it approved, and find it."""
    print("Now a standard: what Con learned becomes a rule for everybody, if you say so.\n")
    found = await call(client, "search_standards", queries=["test fails around midnight"])
    show(found, "hits", "note")
    proposed = await call(
        client,
        "propose_standard",
        domain="testing",
        topic="flaky-tests",
        content=STANDARD,
        reason="Three suites failed at night for the same reason.",
        evidence=[{"file": "tests/test_tokens.py", "lines": "14-20"}],
        confidence=0.9,
        persona=con,
    )
    show(proposed, "id", "status", "file", "message")
    files = [*project.glob(".agent-os/standards/**/*.md")]
    print(f"  Files in the project: {len(files)}\n")

    number = proposed["id"]
    show(await call(client, "request_standard_approval", proposal=number), "status", "message")
    content = STANDARD + "\nNever wait with a sleep: wait for what the test is about.\n"
    revised = await call(client, "revise_standard_proposal", proposal=number, content=content)
    show(revised, "revision", "status")
    approved = await call(client, "request_standard_approval", proposal=number)
    show(approved, "status", "message")
    print(Path(approved["path"]).read_text(encoding="utf-8"))

    found = await call(client, "search_standards", queries=["test fails around midnight"])
    best = found["hits"][0]
    show(best, "file", "section", "relevance", "review", "approved_by", "highlight")
    show(found, "found_by", "took_ms")


async def play_jobs(client: Client, con: str) -> None:
    """Put two personas to work at once, follow them, and ask why one said what it said."""
    print("Now they work by themselves, in the background. No real model is asked.\n")
    task = "A test fails around midnight. What do you say?"
    jobs: dict[str, str] = {}
    for persona in ("architect", con):
        started = await call(client, "invoke_persona", persona=persona, task=task)
        show(started, "status", "job_id", "message")
        jobs[persona] = started["job_id"]
    await follow(client, jobs)

    checked = await call(client, "check_persona_job", job_id=jobs[con])
    show(checked, "status", "duration_seconds", "tool_calls_made", "tokens_used")
    print(indented(checked["result"], "  | ") + "\n")
    assert "Con" in checked["result"]
    record = await call(client, "get_persona_run", job_id=jobs[con])
    show(record, "persona", "runner", "model", "unsandboxed", "trace", "standards", "spent")
    for step in record["steps"]:
        print(f"  {step['kind']} {step['name']}: {step['duration_ms']:.0f} ms")
    print(
        "\nFor a real model, set one of these in your client's entry (docs/jobs.md):\n"
        "  DRAMATIS_MODEL=anthropic:claude-sonnet-5-5, and ANTHROPIC_API_KEY\n"
        "  DRAMATIS_MODEL=gpt-oss:20b, and DRAMATIS_MODEL_URL=http://localhost:11434/v1\n"
        "  DRAMATIS_RUNNER_COMMAND=claude -p\n"
    )


async def follow(client: Client, jobs: dict[str, str]) -> None:
    """Show how far the jobs are, until all have ended."""
    print("> check_persona_job, again and again")
    going, told = dict(jobs), dict[str, str]()
    while going:
        for persona, job_id in jobs.items():
            result = await client.call_tool("check_persona_job", {"job_id": job_id})
            status: Any = result.structured_content
            now = status["status"]
            if now == "failed":
                sys.exit(status["error"])
            if now == "running":
                progress = status["progress"]
                percent = progress["percent_complete"]
                now = f"{percent:2}% {progress['phase']}: {progress['message']}"
            if now == "complete":
                going.pop(persona, None)
            if told.get(persona) != now:
                told[persona] = now
                print(f"  {persona:16} {now}")
        await anyio.sleep(0.2)
    print()


async def publish(client: Client, con: str, version: str, note: str) -> None:
    tool = "publish_persona_spec"
    show(await call(client, tool, persona=con, version=version, note=note), "replaced")


async def show_source(client: Client, con: str) -> None:
    """Show what a prompt says it was made from."""
    said = text_of(await called(client, "become_persona", persona=con))
    (source,) = (line for line in said.splitlines() if line.startswith("Source: "))
    print(f"  {source}\n")


async def call(client: Client, tool: str, **arguments: Any) -> Any:
    return (await called(client, tool, **arguments)).structured_content


async def called(client: Client, tool: str, **arguments: Any) -> CallToolResult:
    print(f"> {tool}({', '.join(f'{key}={shown(value)}' for key, value in arguments.items())})")
    result = await client.call_tool(tool, arguments)
    if result.is_error:
        sys.exit(text_of(result))
    return result


def text_of(result: CallToolResult) -> str:
    return "\n".join(part.text for part in result.content if isinstance(part, TextContent))


def shown(value: Any) -> str:
    lines = str(value).count("\n")
    return f"({lines} lines)" if lines else repr(value)


def show(answer: dict[str, Any], *fields: str) -> None:
    for field in fields:
        print(f"  {field}: {answer[field]}")
    print()


def indented(text: str, margin: str) -> str:
    return "\n".join(f"{margin}{line}".rstrip() for line in text.splitlines())


if __name__ == "__main__":
    anyio.run(main)
