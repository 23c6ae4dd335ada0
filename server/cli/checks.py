"""What `doctor` looks at on this machine: Python, folders, clients."""

import os
import platform
import shutil
import sys
from dataclasses import dataclass
from importlib.util import cache_from_source, find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import HttpUrl, ValidationError

from server.cli.clients import (
    CLIENTS,
    OURS,
    Client,
    ConfigNotReadable,
    Scope,
    read_config,
    read_text,
    shown,
)
from server.errors import DramatisError

if TYPE_CHECKING:
    from server.settings import Settings

COMPILED = ("server", "db", "mcp", "pydantic", "sqlalchemy")


@dataclass(frozen=True, slots=True)
class Check:
    """A thing that can be wrong, how it is, and what to do about it."""

    name: str
    state: Literal["ok", "warning", "failed", "skipped"]
    detail: str
    remedy: str | None = None


def machine(settings: "Settings") -> list[Check]:
    return [
        Check("Python", "ok", platform.python_version()),
        _bytecode(),
        _command(),
        _data_root(settings.data_root),
        _guardrails(settings.data_root),
        _model(settings),
        _core_personas(settings.core_personas),
        *_clients(),
    ]


def _bytecode() -> Check:
    missing = [package for package in COMPILED if not _is_compiled(package)]
    if not missing:
        return Check("bytecode", "ok", "compiled")
    return Check(
        "bytecode",
        "warning",
        f"not compiled: {', '.join(missing)}; every start takes longer",
        "Install with `pip install --compile`, or run `python -m compileall` on this"
        " environment's packages.",
    )


def _is_compiled(package: str) -> bool:
    spec = find_spec(package)
    folders = spec.submodule_search_locations if spec else None
    sources = [path for folder in folders or () for path in Path(folder).glob("*.py")]
    return all(Path(cache_from_source(str(path))).exists() for path in sources)


def _command() -> Check:
    found = shutil.which(OURS)
    if found is None:
        remedy = "Nothing, if you call it by its path; clients set up by `install` do."
        return Check("command", "warning", "`dramatis` is not on PATH", remedy)
    ours = Path(sys.executable).with_name(OURS)
    if ours.exists() and not ours.samefile(found):
        remedy = "Take the other one's folder off PATH, or uninstall it."
        return Check("command", "warning", "`dramatis` on PATH is another installation", remedy)
    return Check("command", "ok", "on PATH")


def _data_root(folder: Path) -> Check:
    try:
        there = next(path for path in (folder, *folder.parents) if path.exists())
    except OSError as error:
        remedy = "Name another folder by DRAMATIS_DATA_ROOT or --data-root."
        why = (error.strerror or "the disk refused").lower()
        return Check("data root", "failed", f"cannot be used: {why}", remedy)
    if there.is_dir() and os.access(there, os.W_OK | os.X_OK):
        later = "" if there == folder else " when it is needed"
        return Check("data root", "ok", f"{folder} can be written{later}")
    what = "cannot be written" if there.is_dir() else "is in a file, not a folder"
    return Check(
        "data root",
        "failed",
        f"{folder} {what}",
        "Change its rights, or name another folder by DRAMATIS_DATA_ROOT or --data-root.",
    )


def _guardrails(data_root: Path) -> Check:
    from server.personas import assets
    from server.specs.becoming import GUARDRAILS

    try:
        found = assets.read(data_root, GUARDRAILS)
    except DramatisError as error:
        return Check("guardrails", "failed", str(error.args[0]), error.hint)
    return Check("guardrails", "ok", "readable" if found.exists else "none")


def _model(settings: "Settings") -> Check:
    """Say what invoked personas run on; keys and addresses are for nobody to read."""
    if settings.model is not None:
        return _made(settings, settings.model)
    if settings.runner_command is not None:
        program = settings.runner_command[0]
        if shutil.which(program) is None:
            remedy = "DRAMATIS_RUNNER_COMMAND names a program that PATH has, or an absolute path."
            return Check("model", "failed", f"the command {program} is not there", remedy)
        return Check("model", "ok", f"the command {program}")
    return Check(
        "model",
        "warning",
        "none: personas cannot be invoked",
        "Set DRAMATIS_MODEL, with DRAMATIS_MODEL_URL for a server of your own, or"
        " DRAMATIS_RUNNER_COMMAND (e.g. `claude -p`).",
    )


def _made(settings: "Settings", model: str) -> Check:
    """Make the model as a worker does, which sends nothing."""
    if find_spec("pydantic_ai") is None:
        remedy = "Install Dramatis with its extra `worker`."
        detail = f"{model}; the libraries that speak to models are not installed"
        return Check("model", "failed", detail, remedy)
    if settings.model_url is not None and not _is_address(settings.model_url):
        remedy = "Write it as http://host:port/v1 or https://host/v1."
        return Check("model", "failed", f"{model}: DRAMATIS_MODEL_URL is no address", remedy)
    from server.jobs.model_choice import model_of
    from server.jobs.model_key import model_key

    try:
        key = model_key(settings)
        model_of(model, settings.model_url, key.get_secret_value() if key else None)
    except DramatisError as error:
        return Check("model", "failed", f"{model}: {error.args[0]}", error.hint)
    where = " at the server of DRAMATIS_MODEL_URL" if settings.model_url else ""
    return Check("model", "ok", f"{model}{where}")


def _is_address(url: str) -> bool:
    try:
        HttpUrl(url)
    except ValidationError:
        return False
    return True


def _core_personas(folder: Path | None) -> Check:
    from server.jobs.core_personas import read_core_personas

    found = read_core_personas(folder)
    there = f"{len(found.personas)} can be invoked"
    if not found.problems:
        return Check("core personas", "ok", there)
    remedy = "Mend these files in the folder of DRAMATIS_CORE_PERSONAS."
    return Check("core personas", "warning", " ".join([f"{there}.", *found.problems]), remedy)


def _clients() -> list[Check]:
    scopes: tuple[Scope, ...] = ("project", "user")
    found = [
        check
        for key, client in CLIENTS.items()
        for scope in scopes
        if scope == "user" or client.project
        for check in _client(key, client, scope)
    ]
    remedy = "`dramatis install claude-code`, for example."
    return found or [Check("clients", "warning", "none is set up for this folder or you", remedy)]


def _client(key: str, client: Client, scope: Scope) -> list[Check]:
    file = client.file(scope)
    name = f"{client.name} ({scope})"
    try:
        text = read_text(client, file)
        servers = read_config(client, file, text or "").get(client.servers)
    except ConfigNotReadable as error:
        remedy = f"`dramatis install {key} --print` prints what belongs in it."
        return [Check(name, "warning", str(error.args[0]), remedy)]
    entry = servers.get(OURS) if isinstance(servers, dict) else None
    if not isinstance(entry, dict):
        return []
    command = entry.get("command")
    # VS Code and Cursor put the project's folder in its place.
    if isinstance(command, str) and shutil.which(command.replace("${workspaceFolder}", ".")):
        return [Check(name, "ok", f"{shown(file)} starts a command that is there")]
    remedy = f"`dramatis install {key} --scope {scope}` enters this installation's."
    return [Check(name, "failed", f"{shown(file)} starts a command that is not there", remedy)]
