"""The README says what the code does."""

import re
import shlex
from pathlib import Path

import click
import pytest
from mcp import Client
from pydantic_core import PydanticUndefined

from server.cli import main
from server.settings import Settings
from server.specs.compiler import compile_spec
from server.specs.examples import example_text
from server.specs.notation import read_spec
from server.surfaces.mcp.server import TOOLSETS

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = sorted(
    set(re.findall(r"^(?:\.venv/bin/)?dramatis (.+?)(?:  +#.*)?$", README, re.MULTILINE))
)
TARGETS = sorted(set(re.findall(r"\bmake ([a-z]+)\b", README)))


def default(name: str) -> str:
    field = Settings.model_fields[name]
    if name == "data_root":
        return "the platform's user data folder"
    if name == "toolsets":
        return f"`{','.join(Settings().toolsets)}`"
    value = field.default
    assert value is not PydanticUndefined
    match value:
        case None:
            return "none"
        case bool():
            return f"`{str(value).lower()}`"
        case _:
            return f"`{value}`"


def test_the_settings_table_is_the_settings():
    rows = [
        f"| `DRAMATIS_{name.upper()}` | {default(name)} | {field.description} |"
        for name, field in Settings.model_fields.items()
    ]

    assert "\n".join(rows) in README


@pytest.mark.parametrize("name", TOOLSETS)
def test_each_toolset_has_its_table(name: str):
    rows = [f"| `{tool.function.__name__}` | {tool.title} |\n" for tool in TOOLSETS[name].tools]

    introduced, _, table = README.partition(f"| --- | --- |\n{rows[0]}")
    assert table.startswith("".join(rows[1:]) + "\n")
    assert f"`{name}`" in introduced.rpartition("\n\n")[0].rpartition("\n\n")[2]


def test_the_specs_are_switched_on_as_it_says():
    assert f'{{"DRAMATIS_TOOLSETS": "{",".join(TOOLSETS)}"}}' in README


@pytest.mark.anyio
async def test_every_resource_that_it_names_exists(client: Client):
    named = set(re.findall(r"`((?:persona|role|schema|standard)://[^`]+)`", README))

    templates = (await client.list_resource_templates()).resource_templates
    page = await client.list_resources()
    served = {template.uri_template for template in templates} | {one.uri for one in page.resources}
    while page.next_cursor:
        page = await client.list_resources(cursor=page.next_cursor)
        served |= {resource.uri for resource in page.resources}

    assert len(named) == 6
    assert named <= served


def test_the_digest_it_shows_is_that_of_the_example():
    plan = compile_spec(read_spec(example_text("developer")))

    assert f"`Source: spec 1.0.0, prompt {plan.digest[:12]}.`" in README


@pytest.mark.parametrize("target", TARGETS)
def test_every_make_target_exists(target: str):
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")

    assert re.search(rf"^{target}:", makefile, re.MULTILINE)


@pytest.mark.parametrize("line", COMMANDS)
def test_every_command_parses(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    for file in ("team.yaml", "con.yaml", "checks.yaml", "draft.md", "change.diff"):
        Path(file).touch()
    words = shlex.split(line)
    command: click.Command = main
    context = click.Context(main, info_name="dramatis")
    while isinstance(command, click.Group) and not words[0].startswith("-"):
        found = command.get_command(context, words.pop(0))
        assert found is not None, line
        command, context = found, click.Context(found, parent=context)
    if words and words != ["--help"]:
        with command.make_context("x", words, parent=context.parent):
            pass


def test_the_readme_shows_commands():
    assert {"demo", "test", "install", "check", "conformance", "bench"} <= set(TARGETS)
    assert len(COMMANDS) >= 20


@pytest.mark.parametrize("link", sorted(set(re.findall(r"\]\(([^)#:]+)\)", README))))
def test_every_link_leads_somewhere(link: str):
    assert (ROOT / link).exists()
