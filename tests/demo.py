"""`make demo`: a real client drives the real server over stdio, on a fresh embedded Postgres."""

import shutil
import sys
import tempfile
from datetime import timedelta
from pathlib import Path
from typing import Any

import anyio
from mcp import Client, StdioServerParameters
from mcp.client import ClientRequestContext
from mcp.types import CallToolResult, ElicitRequestParams, ElicitResult, TextContent

from db.embedded import EmbeddedPostgres
from server.specs.examples import example_text

DRAMATIS = Path(sys.executable).with_name("dramatis")


async def main() -> None:
    data_root = Path(tempfile.mkdtemp(prefix="dramatis-demo-"))
    server = StdioServerParameters(
        command=str(DRAMATIS),
        args=["mcp", "--data-root", str(data_root)],
        env={"DRAMATIS_LINGER_S": "0", "DRAMATIS_TOOLSETS": "personas,specs"},
    )
    print(f"$ dramatis mcp --data-root {data_root}\n")
    try:
        async with Client(server, elicitation_callback=answer_yes) as client:
            con = await play_personas(client)
            await play_specs(client, con)
    except BaseException:
        remove_database(data_root)
        shutil.rmtree(data_root, ignore_errors=True)
        raise
    remove_database(data_root)
    print(f"The files are left for you to look at: {data_root}/personas")


def remove_database(data_root: Path) -> None:
    server = EmbeddedPostgres(data_root, linger=timedelta(0))
    server.acquire()
    server.stop()
    server.release()
    shutil.rmtree(server.base)


async def answer_yes(context: ClientRequestContext, params: ElicitRequestParams) -> ElicitResult:
    """Answer what the server asks the person, as you would in your client."""
    print(indented(params.message, "  ? "))
    print("  ! Yes.")
    return ElicitResult(action="accept", content={})


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


async def publish(client: Client, con: str, version: str, note: str) -> None:
    tool = "publish_persona_spec"
    show(await call(client, tool, persona=con, version=version, note=note), "replaced")


async def show_source(client: Client, con: str) -> None:
    """Show what a prompt says it was made from."""
    said = text_of(await called(client, "become_persona", persona=con))
    (source,) = (line for line in said.splitlines() if line.startswith("Source: "))
    print(f"  {source}\n")


async def call(client: Client, tool: str, **arguments: str) -> Any:
    return (await called(client, tool, **arguments)).structured_content


async def called(client: Client, tool: str, **arguments: str) -> CallToolResult:
    print(f"> {tool}({', '.join(f'{key}={shown(value)}' for key, value in arguments.items())})")
    result = await client.call_tool(tool, arguments)
    if result.is_error:
        sys.exit(text_of(result))
    return result


def text_of(result: CallToolResult) -> str:
    return "\n".join(part.text for part in result.content if isinstance(part, TextContent))


def shown(value: str) -> str:
    lines = value.count("\n")
    return f"({lines} lines)" if lines else repr(value)


def show(answer: dict[str, Any], *fields: str) -> None:
    for field in fields:
        print(f"  {field}: {answer[field]}")
    print()


def indented(text: str, margin: str) -> str:
    return "\n".join(f"{margin}{line}".rstrip() for line in text.splitlines())


if __name__ == "__main__":
    anyio.run(main)
