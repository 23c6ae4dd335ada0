import json
import subprocess
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from dirty_equals import IsPositiveInt, IsStr
from inline_snapshot import snapshot

from db.embedded import EmbeddedPostgres
from db.migrate import revisions
from tests.cli.conftest import Cli
from tests.cli.terminals import on_terminal
from tests.db.sessions import cleared

KEPT = IsStr(regex=r"dramatis_before_\d{8}_\d{6}_\d{6}")


@pytest.fixture
def new(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cli]:
    """The command on an embedded server that nobody has used yet."""
    monkeypatch.chdir(tmp_path)
    with cleared(tmp_path / "data"):
        yield Cli(tmp_path, None)


@pytest.fixture
def up(new: Cli) -> Cli:
    """The command on an embedded server that stays up, with a persona."""
    new.said("db", "start")
    register(new, "Con")
    return new


def register(cli: Cli, name: str, *arguments: str) -> None:
    cli.said("persona", "register", name, "--role", "dev", *arguments)


def names(cli: Cli, *arguments: str) -> list[str]:
    return [one["name"] for one in cli.answer("persona", "list", *arguments)["personas"]]


def server_of(cli: Cli, major: int = 18) -> EmbeddedPostgres:
    return EmbeddedPostgres(cli.data_root, linger=timedelta(0), major=major)


def connect(cli: Cli, database: str) -> psycopg.Connection:
    host = str(server_of(cli).socket_dir)
    return psycopg.connect(host=host, user="postgres", dbname=database, autocommit=True)


def execute(cli: Cli, statement: bytes, database: str = "postgres") -> list[Any]:
    with connect(cli, database) as connection:
        cursor = connection.execute(statement)
        return [row[0] for row in cursor.fetchall()] if cursor.description else []


def databases_of(cli: Cli) -> list[str]:
    return execute(cli, b"SELECT datname FROM pg_database WHERE NOT datistemplate ORDER BY 1")


def test_a_started_server_stays_until_it_is_stopped(new: Cli):
    before = new.answer("db", "status")
    started = new.answer("db", "start")
    during = new.answer("db", "status")
    stopped = new.answer("db", "stop")
    again = new.answer("db", "stop")

    base = str(server_of(new).base)
    state = {"running": True, "pinned": True, "folder": base}
    assert before == {
        "running": False,
        "pinned": False,
        "folder": base,
        "version": None,
        "revision": None,
        "size_bytes": 0,
    }
    assert started == {"running": True, "pinned": True}
    assert during == state | {
        "version": IsStr(regex=r"18\.\d+"),
        "revision": None,
        "size_bytes": IsPositiveInt(),
    }
    assert (stopped, again) == ({"stopped": True}, {"stopped": False})
    after = new.answer("db", "status")
    assert (after["running"], after["pinned"], after["version"]) == (False, False, "18")


def test_a_person_reads_the_state(new: Cli):
    assert new.said("db", "start") == "The embedded database is up, and stays up.\n"
    new.said("role", "list")
    said = new.said("db", "status").replace(str(server_of(new).base), "FOLDER")

    shown = [line for line in said.splitlines() if not line.startswith(("PostgreSQL", "Size"))]
    assert shown == [
        "Running     yes",
        "Kept up     yes, until `dramatis db stop`",
        f"Revision    {revisions()[-1]}",
        "Folder      FOLDER",
    ]
    assert new.said("db", "stop") == "Stopped the embedded database.\n"
    assert new.said("db", "stop") == "The embedded database was not running.\n"


def test_a_server_in_use_is_stopped_only_by_force(up: Cli):
    client = server_of(up)
    client.acquire()

    refusal = up.refusal("db", "stop")
    still_there = up.answer("db", "status")["running"]
    forced = up.answer("db", "stop", "--force")

    client.release()
    assert (refusal, still_there, forced) == snapshot(
        ((4, "embedded_in_use", "The embedded database is in use."), True, {"stopped": True})
    )


def test_the_state_of_a_server_that_lets_nobody_in_is_shown(up: Cli):
    execute(up, b"ALTER DATABASE dramatis ALLOW_CONNECTIONS false")

    assert up.answer("db", "status")["revision"] is None


def test_a_backup_brings_back_the_rows_of_every_tenant(up: Cli):
    up.said("tenant", "add", "acme")
    register(up, "Ada", "--tenant", "acme")
    file = up.folder / "saved.dump"

    saved = up.answer("db", "backup", str(file))
    register(up, "Late")
    restored = up.answer("db", "restore", str(file))

    assert saved == {"file": str(file), "size_bytes": file.stat().st_size}
    assert file.stat().st_mode & 0o777 == 0o600
    assert restored == {"revision": revisions()[-1], "kept": KEPT}
    assert (names(up), names(up, "--tenant", "acme")) == (["Con"], ["Ada"])
    kept = execute(up, b"SELECT name FROM dramatis.personas ORDER BY id", restored["kept"])
    assert kept == ["Con", "Ada", "Late"]
    checks = json.loads(up.run("doctor", "--json").stdout)["checks"]
    assert {check["name"]: check["state"] for check in checks} | {
        "row security": "ok",
        "login": "ok",
        "revision": "ok",
    } == {check["name"]: check["state"] for check in checks}
    public = b"SELECT has_database_privilege('public', 'dramatis', 'CONNECT')"
    assert execute(up, public) == [False]
    register(up, "After")


def test_a_backup_without_a_name_gets_the_time_for_one_and_says_what_is_not_in_it(up: Cli):
    said = up.said("db", "backup")

    (file,) = up.folder.glob("*.dump")
    assert file.name == IsStr(regex=r"dramatis-\d{8}-\d{6}\.dump")
    assert said == (
        f"Saved the database to {file} ({file.stat().st_size / 1e6:.1f} MB).\nThe personas' files are not in it:"
        " copy the folder personas of the data root along.\n"
    )
    again = up.said("db", "restore", str(file))
    head = revisions()[-1]
    assert again == IsStr(
        regex=rf"Restored the database, which was saved at revision {head}\. The one before is kept"
        r" as database dramatis_before_\d{8}_\d{6}_\d{6}\.\n"
    )


def test_a_person_who_waits_is_told_for_what(up: Cli):
    file = str(up.folder / "saved.dump")

    saving = on_terminal(up, "db", "backup", file)
    restoring = on_terminal(up, "db", "restore", file)

    assert saving.seen.startswith("Saving the database ...\nSaved the database to ")
    assert restoring.seen.startswith(
        "Restoring beside the database ...\nMigrating ...\nRestored the database"
    )


def test_a_backup_is_restored_where_there_was_nothing(up: Cli):
    file = up.folder / "saved.dump"
    up.said("db", "backup", str(file))
    other = ("--data-root", str(up.folder / "other"))

    with cleared(up.folder / "other"):
        restored = up.answer("db", "restore", str(file), *other)
        found = names(up, *other)

    assert restored == {"revision": revisions()[-1], "kept": None}
    assert found == ["Con"]


def test_a_backup_of_an_older_revision_is_migrated(up: Cli):
    file = up.folder / "saved.dump"
    newer = (
        b"job_steps persona_jobs persona_spending job_cleanups"
        b" approved_files proposal_decisions proposal_revisions proposals postings passages"
        b" standard_uses standards projects"
        b" spec_publications persona_specs persona_checks skill_versions audit_log"
    )
    for table in newer.split():
        execute(up, b"DROP TABLE dramatis." + table, "dramatis")
    execute(up, b"DROP SCHEMA dramatis_queue CASCADE", "dramatis")
    execute(up, b"ALTER TABLE dramatis.personas DROP COLUMN name_key", "dramatis")
    for index in (b"tenant_id_role_id_status_id", b"tenant_id_status_id"):
        execute(up, b"DROP INDEX dramatis.ix_personas_" + index, "dramatis")
    execute(up, b"UPDATE dramatis.alembic_version SET version_num = '0002'", "dramatis")
    up.said("db", "backup", str(file))

    restored = up.answer("db", "restore", str(file))

    assert restored["revision"] == "0002"
    assert names(up) == ["Con"]


@pytest.mark.parametrize(
    ("prepare", "code"),
    [
        (b"UPDATE dramatis.alembic_version SET version_num = '9999'", (6, "backup_too_new")),
        (b"DROP SCHEMA dramatis CASCADE", (2, "no_backup")),
    ],
)
def test_a_backup_that_does_not_fit_changes_nothing(up: Cli, prepare: bytes, code: tuple[int, str]):
    file = up.folder / "saved.dump"
    execute(up, b"CREATE DATABASE copy TEMPLATE dramatis")
    execute(up, prepare, "dramatis")
    up.said("db", "backup", str(file))
    execute(up, b"DROP DATABASE dramatis")
    execute(up, b"ALTER DATABASE copy RENAME TO dramatis")

    assert up.refusal("db", "restore", str(file))[:2] == code
    assert names(up) == ["Con"]
    assert databases_of(up) == ["dramatis", "postgres"]


def test_a_file_that_is_no_whole_backup_changes_nothing(up: Cli):
    whole = up.folder / "whole.dump"
    up.said("db", "backup", str(whole))
    # pg_dump repeats its table of contents at the end; the rows are before that.
    (up.folder / "cut.dump").write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    (up.folder / "text.dump").write_text("just text\n" * 100)

    for file in ("cut.dump", "text.dump"):
        assert up.refusal("db", "restore", str(up.folder / file))[:2] == (2, "no_backup")
    assert up.refusal("db", "restore", "nowhere.dump")[:2] == (2, "usage")
    assert names(up) == ["Con"]
    assert databases_of(up) == ["dramatis", "postgres"]


def test_what_a_killed_restore_left_is_removed_by_the_next(up: Cli):
    file = up.folder / "saved.dump"
    up.said("db", "backup", str(file))
    execute(up, b"CREATE DATABASE dramatis_unfinished_0123456789ab")

    restored = up.answer("db", "restore", str(file))

    assert databases_of(up) == ["dramatis", restored["kept"], "postgres"]


def test_nothing_is_restored_under_other_clients(up: Cli):
    file = up.folder / "saved.dump"
    up.said("db", "backup", str(file))
    client = server_of(up)
    client.acquire()

    attached = up.refusal("db", "restore", str(file))

    client.release()
    with connect(up, "dramatis"):
        connected = up.refusal("db", "restore", str(file))
    assert (attached, connected) == snapshot(
        (
            (4, "embedded_in_use", "The embedded database is in use."),
            (4, "embedded_in_use", "Somebody has the embedded database open."),
        )
    )
    assert names(up) == ["Con"]
    assert databases_of(up) == ["dramatis", "postgres"]


def test_a_database_that_lets_nobody_in_is_exit_code_6(up: Cli):
    file = up.folder / "saved.dump"
    up.said("db", "backup", str(file))
    execute(up, b"ALTER DATABASE dramatis ALLOW_CONNECTIONS false")

    assert up.refusal("db", "restore", str(file))[:2] == (6, "database_unavailable")
    assert databases_of(up) == ["dramatis", "postgres"]


def test_a_backup_replaces_no_file_and_leaves_no_half_of_one(up: Cli):
    file = up.folder / "saved.dump"
    file.write_text("mine")

    there = up.refusal("db", "backup", str(file))
    unwritable = up.refusal("db", "backup", str(up.folder / "nowhere" / "saved.dump"))
    execute(up, b"ALTER DATABASE dramatis RENAME TO elsewhere")
    failed = up.refusal("db", "backup", str(up.folder / "failed.dump"))

    assert (there, unwritable, failed) == snapshot(
        (
            (4, "file_exists", "saved.dump is there already."),
            (2, "invalid", "saved.dump cannot be written: no such file or directory."),
            (
                6,
                "dump_failed",
                'The database could not be read: database "dramatis" does not exist.',
            ),
        )
    )
    assert file.read_text() == "mine"
    assert sorted(path.name for path in up.folder.iterdir()) == ["data", "home", "saved.dump"]


def test_without_a_database_there_is_nothing_to_back_up(new: Cli):
    assert new.refusal("db", "backup") == snapshot(
        (3, "no_database", "There is no embedded database in this data root yet.")
    )


def test_a_server_that_cannot_be_made_is_exit_code_6(new: Cli):
    new.data_root.write_text("a file where a folder should be")

    assert new.refusal("db", "start")[:2] == (6, "embedded_database_failed")


@pytest.mark.parametrize("command", ["start", "stop", "status", "backup", "upgrade"])
def test_a_database_of_ones_own_is_not_managed(offline: Cli, command: str):
    assert offline.refusal("db", command)[:2] == (2, "not_embedded")


def test_an_older_cluster_is_moved_to_this_postgres(new: Cli):
    older = server_of(new, major=16)
    url = older.acquire().url()
    try:
        owner = {"DRAMATIS_DATABASE_URL": url.replace("dramatis_app", "dramatis_owner")}
        new.said("migrate", env=owner)
        new.said("persona", "register", "Old", "--role", "dev", env={"DRAMATIS_DATABASE_URL": url})
    finally:
        older.stop()
        older.release()

    said = new.said("db", "upgrade")

    base = server_of(new).base
    (kept,) = base.glob("pg16_before_*")
    assert (kept / "PG_VERSION").read_text() == "16\n"
    assert said == f"Moved the database of Postgres 16. Its folder is kept: {kept}\n"
    assert names(new) == ["Old"]
    assert new.said("db", "upgrade") == "There is nothing to upgrade.\n"
    assert new.answer("db", "upgrade") == {"upgraded": False}


def test_an_older_cluster_takes_the_place_of_a_newer_one_that_is_kept(up: Cli):
    up.said("db", "stop")
    older = server_of(up, major=16)
    url = older.acquire().url()
    up.said("migrate", env={"DRAMATIS_DATABASE_URL": url.replace("_app@", "_owner@")})
    older.stop()
    older.release()

    upgraded = up.answer("db", "upgrade")

    assert upgraded == {
        "upgraded": True,
        "major": 16,
        "folder": IsStr(),
        "restored": {"revision": revisions()[-1], "kept": KEPT},
    }
    assert names(up) == []
    up.said("db", "start")
    kept = execute(up, b"SELECT name FROM dramatis.personas", upgraded["restored"]["kept"])
    assert kept == ["Con"]


@pytest.mark.parametrize("file", ["data/x/x.dump", "n" * 300])
def test_a_backup_that_cannot_be_written_is_refused_in_a_sentence(up: Cli, file: str):
    (up.folder / "data" / "x").write_text("in the way")

    code, kind, message = up.refusal("db", "backup", str(up.folder / file))[:3]

    assert (code, kind) == (2, "invalid")
    assert "cannot be written" in message
    assert str(up.folder) not in message


def test_a_backup_is_restored_from_a_pipe(up: Cli):
    up.said("db", "backup", str(up.folder / "a.dump"))
    register(up, "Eve")

    with subprocess.Popen(["cat", up.folder / "a.dump"], stdout=subprocess.PIPE) as cat:
        assert cat.stdout is not None
        up.said("db", "restore", f"/dev/fd/{cat.stdout.fileno()}")

    assert names(up) == ["Con"]
