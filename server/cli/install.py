"""`dramatis install`: enter ourselves in a client's configuration."""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from server.cli.clients import (
    CLIENTS,
    Change,
    ConfigNotReadable,
    Scope,
    installed_command,
    plan,
    shown,
)
from server.cli.options import Command, Given
from server.cli.output import show
from server.errors import Invalid

if TYPE_CHECKING:
    from server.settings import Settings


@click.command(cls=Command)
@click.argument("client", type=click.Choice(list(CLIENTS)))
@click.option("--print", "only_print", is_flag=True, help="Print the entry, and change no file.")
@click.option("--dry-run", is_flag=True, help="Show what would change in which file.")
@click.option(
    "--scope",
    type=click.Choice(["project", "user"]),
    help="This folder's file, which is the default where the client has one, or yours.",
)
@click.option("--toolsets", metavar="A,B", help="Tool groups that the client is served.")
@click.pass_obj
def install(
    given: Given,
    client: str,
    only_print: bool,
    dry_run: bool,
    scope: Scope | None,
    toolsets: str | None,
) -> None:
    """Set a client up to start this installation's `dramatis mcp`.

    --data-root, --tenant and --toolsets are passed on.
    """
    chosen = CLIENTS[client]
    settings = given.settings(toolsets=toolsets)
    arguments = _arguments(given, settings)
    if toolsets is not None:
        _refuse_unknown(settings.toolsets)
        arguments += ["--toolsets", ",".join(settings.toolsets)]
    entry = chosen.entry(installed_command(), arguments)
    snippet = json.dumps(chosen.snippet(entry), ensure_ascii=False, indent=2)
    if only_print:
        show(given, {"client": client, "config": chosen.snippet(entry)}, snippet)
        return
    try:
        change = plan(chosen, chosen.file(scope), entry)
    except ConfigNotReadable as error:
        raise ConfigNotReadable(
            str(error.args[0]), hint=f"Put this into it yourself:\n{snippet}"
        ) from error
    changed = change.after != change.before
    if changed and not dry_run:
        change.write()
    unseen = sorted(_environment(given, settings, toolsets))
    shape = {
        "client": client,
        "file": str(change.file),
        "changed": changed and not dry_run,
        "diff": change.diff,
        "unseen_settings": unseen,
    }
    show(given, shape, _said(chosen.name, change, dry_run=dry_run, unseen=unseen))


def _arguments(given: Given, settings: "Settings") -> list[str]:
    data_root = ["--data-root", str(settings.data_root)] if given.data_root else []
    tenant = ["--tenant", given.tenant] if given.tenant else []
    return ["mcp", *data_root, *tenant]


def _refuse_unknown(toolsets: Sequence[str]) -> None:
    """Refuse what would keep the client's server from starting."""
    from server.surfaces.mcp.server import TOOLSETS

    if unknown := [name for name in toolsets if name not in TOOLSETS]:
        raise Invalid(
            f"No toolset is called {unknown[0]!r}.", hint=f"Known: {', '.join(TOOLSETS)}."
        )


def _environment(given: Given, settings: "Settings", toolsets: str | None) -> set[str]:
    """Name the variables that this shell sets and the client's process may not have."""
    flags = {"data_root": given.data_root, "tenant": given.tenant, "toolsets": toolsets}
    passed_on = {name for name, value in flags.items() if value is not None}
    return {f"DRAMATIS_{name.upper()}" for name in settings.model_fields_set - passed_on}


def _said(name: str, change: Change, *, dry_run: bool, unseen: list[str]) -> str:
    if change.after == change.before:
        said = f"{name} has this entry in {shown(change.file)} already."
    elif dry_run:
        said = change.diff
    else:
        kept = f" The file before is kept as {change.file.name}.bak." if change.before else ""
        said = f"Entered dramatis in {shown(change.file)}.{kept} Start {name} anew to use it."
    if unseen:
        said += f"\nSet here, and perhaps not for {name}: {', '.join(unseen)}."
    return said
