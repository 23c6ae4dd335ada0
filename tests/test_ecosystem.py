"""The files that clients, registries and people read say what the code does."""

import json
import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import click
import pytest
from pydantic import SecretStr
from pydantic.fields import FieldInfo

from server.cli import main
from server.settings import Settings
from server.surfaces.mcp.server import TOOLSETS

ROOT = Path(__file__).parent.parent
CONFIGURATIONS = {
    "mcp.json": "mcpServers",
    ".mcp.json": "mcpServers",
    ".cursor/mcp.json": "mcpServers",
    ".vscode/mcp.json": "servers",
    ".claude-plugin/plugin.json": "mcpServers",
}
FOR_THE_INSTALLED = {"mcp.json", ".claude-plugin/plugin.json"}
DOCUMENTS = [
    "CONTRIBUTING.md",
    "SECURITY.md",
    "docs/jobs.md",
    "docs/operations.md",
    "docs/specs.md",
    "docs/standards.md",
]
# Written in parts, so that this file passes its own test.
INDEX_HOSTS = [
    "pypi" + ".org",
    "python" + "hosted.org",
    "npm" + "js.org",
    "npm" + "js.com",
    "yarn" + "pkg.com",
    "ana" + "conda.org",
    "proxy.go" + "lang.org",
]
OURS = "drama" + "tis"
MACHINE_PATH = re.compile(r"(?<![\w.~}/-])(?:/(?:home|Users|root|work|workspace)/|[A-Z]:\\Users)")
INSTALLS_OURS = re.compile(
    r"(?:pip3?\s+install|pipx\s+(?:install|run)|uv\s+(?:add|pip\s+install|tool\s+\w+)|uvx|conda\s+install)"
    r"\s(?:[^\n]*[\s'\"=])?dramatis(?:[-_]mcp)?(?![\w/]|-\d)",
    re.IGNORECASE,
)


def read(name: str) -> Any:
    return json.loads((ROOT / name).read_text(encoding="utf-8"))


def project() -> Any:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def tracked() -> dict[str, str]:
    """Read every text that is committed, or about to be."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached"], cwd=ROOT, stdout=subprocess.PIPE, check=True
    )
    names = {*listed.stdout.decode().split("\0"), *CONFIGURATIONS, *DOCUMENTS}
    files = {name: ROOT / name for name in sorted(names) if (ROOT / name).is_file()}
    return {name: path.read_text(encoding="utf-8") for name, path in files.items()}


def entry(name: str) -> dict[str, Any]:
    servers = read(name)[CONFIGURATIONS[name]]
    assert list(servers) == ["dramatis"]
    return servers["dramatis"]


def resolve(words: list[str]) -> click.Command:
    """Follow words of a command line as far as they name commands, and check the options."""
    command: click.Command = main
    context = click.Context(main)
    while words and isinstance(command, click.Group) and not words[0].startswith("-"):
        found = command.get_command(context, words[0])
        assert found is not None, f"{words[0]} is no command"
        command, words = found, words[1:]
    known = {option for parameter in command.get_params(context) for option in parameter.opts}
    ours = words[: words.index("--")] if "--" in words else words
    given = {word.partition("=")[0] for word in ours if word.startswith("--")}
    assert given <= known
    return command


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_a_client_starts_the_command_that_serves(name: str):
    words = entry(name)["args"]

    assert resolve(words).name == "mcp"


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_a_client_starts_what_is_installed_and_fetches_nothing(name: str):
    command = entry(name)["command"].removeprefix("${workspaceFolder}/")

    assert command == ("dramatis" if name in FOR_THE_INSTALLED else ".venv/bin/dramatis")
    assert "dramatis" in project()["scripts"]


def test_the_bundle_runs_its_own_source_tree():
    server = read("manifest.json")["server"]
    program, *words = server["mcp_config"]["args"][-2:]

    assert (ROOT / server["entry_point"]).is_file()
    assert server["mcp_config"]["args"][:3] == ["run", "--directory", "${__dirname}"]
    assert program in project()["scripts"]
    assert resolve(words).name == "mcp"


def test_the_bundle_names_the_tools_it_serves():
    tools = TOOLSETS["personas"].tools

    assert read("manifest.json")["tools"] == [
        {"name": tool.function.__name__, "description": tool.title} for tool in tools
    ]


def test_the_bundle_can_be_given_a_model_for_personas_to_run_on():
    bundle = read("manifest.json")
    started, asked = bundle["server"]["mcp_config"], bundle["user_config"]
    extras = [
        extra
        for option, extra in zip(started["args"], started["args"][1:], strict=False)
        if option == "--extra"
    ]

    assert extras == ["worker"]
    assert {*extras} <= set(project()["optional-dependencies"])
    assert {"toolsets", "model", "model_url", "model_key"} <= set(asked)
    assert started["env"] == {
        f"DRAMATIS_{name.upper()}": f"${{user_config.{name}}}" for name in asked
    }
    assert {name for name, field in asked.items() if field.get("sensitive")} == {
        name
        for name, setting in Settings.model_fields.items()
        if name in asked and SecretStr in get_args(setting.annotation)
    }


def test_all_files_are_of_the_version_that_is_built():
    registry, bundle, plugin = (
        read("server.json"),
        read("manifest.json"),
        read(".claude-plugin/plugin.json"),
    )
    (package,) = registry["packages"]
    version = project()["version"]

    assert {part["version"] for part in (registry, package, bundle, plugin)} == {version}
    assert f"## {version} " in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_the_registry_entry_is_this_package_and_claims_no_account():
    registry = read("server.json")
    (package,) = registry["packages"]
    named = re.search(r"mcp-name: (\S+)", (ROOT / "README.md").read_text(encoding="utf-8"))

    # Nobody's account can begin with a hyphen.
    assert registry["name"] == "io.github.-owner-/dramatis"
    assert named is None or named[1] == registry["name"]
    assert len(registry["description"]) <= 100
    assert package["identifier"] == project()["name"]
    assert "registryBaseUrl" not in package
    (argument,) = package["packageArguments"]
    assert resolve([argument["value"]]).name == "mcp"


def test_the_registry_entry_has_every_setting():
    (package,) = read("server.json")["packages"]
    described = [
        {key: value for key, value in variable.items() if key != "description"}
        for variable in package["environmentVariables"]
    ]

    assert described == [variable(*setting) for setting in Settings.model_fields.items()]


def variable(name: str, field: FieldInfo) -> dict[str, Any]:
    """Describe a setting as the registry's schema of 2025-12-11 does."""
    kinds = {int: "number", float: "number", bool: "boolean", Path: "filepath"}
    types = get_args(field.annotation) or (field.annotation,)
    about: dict[str, Any] = {
        "name": f"DRAMATIS_{name.upper()}",
        "isRequired": field.is_required(),
        "isSecret": SecretStr in types,
        "format": next((kinds[kind] for kind in map(bare, types) if kind in kinds), "string"),
    }
    if field.default_factory is None and field.default is not None:
        about["default"] = shown(field.default, field.annotation)
    if get_origin(field.annotation) is Literal:
        about["choices"] = list(types)
    return about


def bare(kind: Any) -> Any:
    """Strip `Annotated`, which pydantic leaves on inside a union."""
    return getattr(kind, "__origin__", kind)


def shown(value: Any, kind: object) -> str:
    if kind is bool:
        return str(value).lower()
    return ",".join(value) if get_origin(kind) is tuple else str(value)


def test_every_setting_that_a_file_names_exists():
    settings = {f"DRAMATIS_{name.upper()}" for name in Settings.model_fields}
    texts = [text for name, text in tracked().items() if name.endswith((".md", ".json"))]

    assert set(re.findall(r"\bDRAMATIS_[A-Z_]*[A-Z]", "\n".join(texts))) <= settings


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_command_that_a_document_names_exists(name: str):
    text = (ROOT / name).read_text(encoding="utf-8")
    named = re.findall(r"(?:`|^)dramatis ([^`#\n]+)", text, re.MULTILINE)

    assert named
    for line in named:
        resolve(line.split())


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_target_and_file_that_a_document_names_exists(name: str):
    text = (ROOT / name).read_text(encoding="utf-8")
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"(?:`|^)make ([a-z][a-z0-9-]*)", text, re.MULTILINE))
    links = [link for link in re.findall(r"\]\(([^)#]+)", text) if "://" not in link]
    paths = re.findall(r"`((?:server|db|tests|migrations|templates)/[\w/.-]*)`", text)

    assert targets <= set(re.findall(r"^([a-z0-9-]+):", makefile, re.MULTILINE))
    assert [link for link in links if not ((ROOT / name).parent / link).exists()] == []
    assert [path for path in paths if not (ROOT / path).exists()] == []


def test_no_file_tells_anyone_to_fetch_our_package_from_an_index():
    assert [name for name, text in tracked().items() if INSTALLS_OURS.search(text)] == []


@pytest.mark.parametrize(
    ("line", "found"),
    [
        (f"pip install {OURS}", True),
        (f"pip install -q '{OURS}-mcp[semantic]'", True),
        (f"uvx {OURS}-mcp", True),
        (f"pipx run --spec {OURS}-mcp==0.1.0 {OURS} mcp", True),
        (f"uv tool install {OURS}-mcp", True),
        (f"pip install dist/{OURS}_mcp-0.1.0-py3-none-any.whl", False),
        ("pip install --editable .", False),
    ],
)
def test_an_instruction_to_fetch_our_package_is_recognised(line: str, *, found: bool):
    assert bool(INSTALLS_OURS.search(line)) is found


def test_no_file_names_a_package_index():
    assert [
        (name, host) for name, text in tracked().items() for host in INDEX_HOSTS if host in text
    ] == []


def test_no_file_names_a_folder_of_a_developers_machine():
    assert [name for name, text in tracked().items() if MACHINE_PATH.search(text)] == []
