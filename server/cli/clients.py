"""The MCP clients whose configuration we write, and where each one keeps it."""

import difflib
import json
import os
import re
import secrets
import shutil
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Literal

from platformdirs import user_config_path
from pydantic import JsonValue, TypeAdapter

from server.errors import Conflict, Invalid, NotFound

Scope = Literal["project", "user"]
Config = dict[str, JsonValue]

OURS = "dramatis"

_CONFIG = TypeAdapter(Config)


class NoSuchScope(Invalid):
    code = "no_such_scope"


class CommandNotInstalled(NotFound):
    code = "command_not_installed"


class ConfigNotReadable(Conflict):
    code = "config_not_readable"


class ConfigNotWritable(Conflict):
    code = "config_not_writable"


@dataclass(frozen=True, slots=True)
class Client:
    """A client's configuration files.

    Attributes:
        servers: the key under which its MCP servers are.
        typed: whether an entry says that it speaks over stdio.
        project: its file in a project's folder; `None` when it has none.
        user: its file for all projects, which begins at the home folder or at that for settings.
    """

    name: str
    servers: str
    typed: bool
    project: Path | None
    user: tuple[Literal["home", "settings"], Path]

    def file(self, scope: Scope | None) -> Path:
        """Return the configuration file, the project's unless the user's is asked for.

        Raises:
            NoSuchScope: the client has no configuration in projects.
        """
        if scope != "user" and self.project is not None:
            return _here() / self.project
        if scope == "project":
            raise NoSuchScope(
                f"{self.name} has no configuration in projects.", hint="Leave --scope out."
            )
        where, path = self.user
        if where == "home":
            return Path.home() / path
        return user_config_path(path.parts[0], appauthor=False, roaming=True).joinpath(
            *path.parts[1:]
        )

    def entry(self, command: Path, arguments: list[str]) -> Config:
        kind: Config = {"type": "stdio"} if self.typed else {}
        return {**kind, "command": str(command), "args": [*arguments]}

    def snippet(self, entry: Config) -> Config:
        return {self.servers: {OURS: entry}}


CLIENTS: Mapping[str, Client] = {
    "claude-code": Client(
        "Claude Code", "mcpServers", True, Path(".mcp.json"), ("home", Path(".claude.json"))
    ),
    "cursor": Client(
        "Cursor", "mcpServers", False, Path(".cursor/mcp.json"), ("home", Path(".cursor/mcp.json"))
    ),
    "vscode": Client(
        "VS Code",
        "servers",
        True,
        Path(".vscode/mcp.json"),
        ("settings", Path("Code/User/mcp.json")),
    ),
    "claude-desktop": Client(
        "Claude Desktop",
        "mcpServers",
        False,
        None,
        ("settings", Path("Claude/claude_desktop_config.json")),
    ),
}


def installed_command() -> Path:
    """Return the absolute path of the command that clients are to start.

    Raises:
        CommandNotInstalled: this is not run from an installation.
    """
    for path in (Path(sys.argv[0]), Path(sys.executable).with_name(OURS)):
        if path.name == OURS and path.is_file():
            return path.absolute()
    raise CommandNotInstalled(
        "The command `dramatis` is not installed beside this Python.",
        hint="Install dramatis-mcp, and run that installation's `dramatis install`.",
    )


@dataclass(frozen=True, slots=True)
class Change:
    """A configuration file as it is, `None` where there is none, and as it is to be."""

    file: Path
    before: str | None
    after: str

    @property
    def diff(self) -> str:
        old, new = (self.before or "").splitlines(), self.after.splitlines()
        name = shown(self.file)
        return "\n".join(difflib.unified_diff(old, new, name, name, lineterm=""))

    def write(self) -> None:
        """Put the new text in place at once, and leave the old one beside it as `.bak`.

        Raises:
            ConfigNotWritable: the file is as it was.
        """
        # A link into somebody's collection of dotfiles stays a link.
        path = self.file.resolve()
        beside = path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with beside.open("x", encoding="utf-8", newline="") as file:
                if self.before is not None:
                    shutil.copymode(path, beside)
                    shutil.copy2(path, path.with_name(f"{path.name}.bak"))
                file.write(self.after)
                file.flush()
                os.fsync(file.fileno())
            beside.replace(path)
        except OSError as error:
            raise ConfigNotWritable(
                f"{shown(self.file)} cannot be written: {(error.strerror or str(error)).lower()}."
            ) from error
        finally:
            with suppress(OSError):
                beside.unlink()


def plan(client: Client, file: Path, entry: Config) -> Change:
    """Add our entry to a configuration, or bring it up to date; all else stays, in its order.

    Raises:
        ConfigNotReadable: the file is not plain JSON, and nothing is lost by leaving it alone.
    """
    before = read_text(client, file)
    config = read_config(client, file, before or "")
    servers = _object(config.get(client.servers))
    # What people added to our entry, such as `env`, is theirs.
    ours = {**_object(servers.get(OURS)), **entry}
    after = {**config, client.servers: {**servers, OURS: ours}}
    if before is not None and after == config:
        return Change(file, before, before)
    indent = re.search(r"^([ \t]+)\S", before or "", re.MULTILINE)
    text = json.dumps(after, ensure_ascii=False, indent=indent.group(1) if indent else 2)
    ends_open = before and not before.endswith("\n")
    return Change(file, before, text if ends_open else f"{text}\n")


def read_text(client: Client, file: Path) -> str | None:
    """Read a configuration file; `None` says that there is none.

    Raises:
        ConfigNotReadable: it is there and cannot be read.
    """
    try:
        return file.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigNotReadable(f"{shown(file)}, of {client.name}, cannot be read.") from error


def read_config(client: Client, file: Path, text: str) -> Config:
    """Read a configuration that can be written again without loss.

    Raises:
        ConfigNotReadable: it has comments, or a key twice, or holds no object of objects.
    """
    try:
        whole: object = (
            json.loads(text, object_pairs_hook=_once, parse_float=_exactly, parse_constant=_no_json)
            if text.strip()
            else {}
        )
        # Half a surrogate pair is legal in JSON's escapes and cannot be written back.
        json.dumps(whole, ensure_ascii=False).encode()
        config = _CONFIG.validate_python(whole)
        _CONFIG.validate_python(config.get(client.servers, {}))
    except (ValueError, RecursionError):
        raise ConfigNotReadable(
            f"{shown(file)}, of {client.name}, is not plain JSON with an object"
            f" {client.servers!r}, so it was left alone."
        ) from None
    return config


def shown(path: Path) -> str:
    """Name a file as people do: from here, or from their home folder."""
    for folder, prefix in ((_here(), ""), (Path.home(), "~/")):
        if path.is_relative_to(folder):
            return f"{prefix}{path.relative_to(folder)}"
    return str(path)


def _here() -> Path:
    """Return the working folder, or its last known name when somebody has removed it."""
    try:
        return Path.cwd()
    except FileNotFoundError:
        return Path()


def _exactly(number: str) -> float:
    """Refuse a number that would be another one when it is written back."""
    value = float(number)
    if Decimal(number) != Decimal(repr(value)):
        raise ValueError(number)
    return value


def _no_json(constant: str) -> float:
    raise ValueError(constant)


def _once(pairs: list[tuple[str, JsonValue]]) -> Config:
    config = dict(pairs)
    if len(config) < len(pairs):
        raise ValueError("a key is there twice")
    return config


def _object(value: JsonValue) -> Config:
    return value if isinstance(value, dict) else {}
