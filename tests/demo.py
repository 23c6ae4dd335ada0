"""`make demo`: a real client drives the real server over stdio, on a fresh embedded Postgres."""

import shutil
import sys
import tempfile
from datetime import timedelta
from pathlib import Path
from typing import Any

import anyio
from mcp import Client, StdioServerParameters
from mcp.types import TextContent

from db.embedded import EmbeddedPostgres

DRAMATIS = Path(sys.executable).with_name("dramatis")


async def main() -> None:
    data_root = Path(tempfile.mkdtemp(prefix="dramatis-demo-"))
    server = StdioServerParameters(
        command=str(DRAMATIS),
        args=["mcp", "--data-root", str(data_root)],
        env={"DRAMATIS_LINGER_S": "0"},
    )
    print(f"$ dramatis mcp --data-root {data_root}\n")
    try:
        async with Client(server) as client:
            await play(client)
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


async def play(client: Client) -> None:
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


async def call(client: Client, tool: str, **arguments: str) -> Any:
    shown = ", ".join(f"{key}={value[:40]!r}" for key, value in arguments.items())
    print(f"> {tool}({shown})")
    result = await client.call_tool(tool, arguments)
    if result.is_error:
        (content,) = result.content
        sys.exit(content.text if isinstance(content, TextContent) else "the call failed")
    return result.structured_content


def show(answer: dict[str, Any], *fields: str) -> None:
    for field in fields:
        print(f"  {field}: {answer[field]}")
    print()


if __name__ == "__main__":
    anyio.run(main)
