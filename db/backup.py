"""Save the embedded database in a file, bring one back, and move one to a newer Postgres.

Rows are read as the superuser, from whom row-level security hides none. What a backup holds is
carried out as the owner of one new database, for the file may come from anywhere.
"""

import os
import re
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

import psycopg
from psycopg import sql

from db.embedded import EmbeddedPostgres
from db.migrate import revisions, upgrade
from db.superuser import (
    DATABASE,
    Superuser,
    drop_database,
    exists,
    make_database,
    schema_revision,
    superuser,
)

# Databases of a restore that was killed have such names, and the next one drops them.
UNFINISHED = "dramatis_unfinished_"

_MARK = re.compile("FATAL:|PANIC:|ERROR:|error:")

Say = Callable[[str], None]


class BackupRefused(Exception):
    """It cannot be done, and everything is as it was. Neither text names an absolute path."""

    def __init__(self, message: str, *, hint: str) -> None:
        super().__init__(message)
        self.hint = hint


class NoDatabase(BackupRefused):
    pass


class FileExists(BackupRefused):
    pass


class Unwritable(BackupRefused):
    pass


class NoBackup(BackupRefused):
    pass


class BackupTooNew(BackupRefused):
    pass


class DatabaseBusy(BackupRefused):
    pass


class DumpFailed(BackupRefused):
    pass


@dataclass(frozen=True, slots=True)
class Backup:
    file: Path
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Restored:
    """What is there now.

    Attributes:
        revision: of the backup, before it was migrated.
        kept: name of the database that was there before; `None` if there was none.
    """

    revision: str
    kept: str | None


@dataclass(frozen=True, slots=True)
class Upgraded:
    """An older cluster that was moved to this Postgres, and the folder where it still is."""

    major: int
    folder: Path
    restored: Restored


def backup(server: EmbeddedPostgres, file: Path) -> Backup:
    """Write the whole database, every tenant's rows, to `file`, which appears whole.

    Raises:
        NoDatabase, FileExists, Unwritable, DumpFailed: no file was made.
        EmbeddedUnavailable: the server does not start.
    """
    if not exists(server):
        raise NoDatabase(
            "There is no embedded database in this data root yet.",
            hint="The first command that needs one makes it.",
        )
    beside = file.with_name(f".{secrets.token_hex(6)}.tmp")
    server.acquire()
    try:
        if file.exists():
            raise FileExists(
                f"{file.name} is there already.", hint="Remove it, or name another file."
            )
        # Other people's rows are in it.
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as made:
            _dump(server, server, made)
            os.fsync(made.fileno())
        beside.rename(file)
    except OSError as error:
        raise Unwritable(
            f"{file.name} cannot be written: {(error.strerror or str(error)).lower()}.",
            hint="Name a file in a folder that you may write to, on a disk with space.",
        ) from error
    finally:
        server.release()
        # What kept it from being made may keep it from being looked for.
        with suppress(OSError):
            beside.unlink()
    return Backup(file, file.stat().st_size)


def restore(server: EmbeddedPostgres, file: IO[bytes], say: Say) -> Restored:
    """Put the database of a backup in the place of the one there is, which keeps a dated name.

    The backup is restored beside and migrated first, so that a failure changes nothing.

    Args:
        file: a backup; one that can be read only once, such as a pipe, is copied first.
        say: is told what takes its time.

    Raises:
        NoBackup, BackupTooNew, DatabaseBusy: everything is as it was.
        EmbeddedInUse: another client is attached.
        EmbeddedUnavailable: the server does not start.
    """
    with ExitStack() as stack:
        if not file.seekable():
            copy = stack.enter_context(tempfile.TemporaryFile())
            shutil.copyfileobj(file, copy)
            file = copy
        stack.enter_context(server.exclusive())
        server.acquire()
        return _restore(server, file, say)


def older_cluster(server: EmbeddedPostgres) -> EmbeddedPostgres | None:
    """Find the newest cluster in the data root that an older Postgres made."""
    current = _major(server)
    found = [
        int(folder.name.removeprefix("pg"))
        for folder in server.base.glob("pg[0-9][0-9]")
        if (folder / "PG_VERSION").exists()
    ]
    older = max((major for major in found if major < current), default=None)
    if older is None:
        return None
    return EmbeddedPostgres(server.data_root, linger=server.linger, major=older)


def upgrade_cluster(old: EmbeddedPostgres, new: EmbeddedPostgres, say: Say) -> Upgraded:
    """Move the database of an older cluster into this one; the old folder is only renamed.

    A database that is there already keeps a dated name, as with `restore`.

    Raises:
        EmbeddedInUse: another client is attached.
        EmbeddedUnavailable: one of the servers does not start.
        BackupRefused: the old cluster is as it was.
    """
    with tempfile.TemporaryFile(dir=old.base) as file:
        with old.exclusive():
            say(f"Reading the database of Postgres {_major(old)} ...")
            old.acquire()
            try:
                _dump(old, new, file)
            finally:
                old.stop()
        restored = restore(new, file, say)
    kept = old.data.with_name(f"{old.data.name}_before_{_stamp()}")
    old.data.rename(kept)
    return Upgraded(_major(old), kept, restored)


def _restore(server: EmbeddedPostgres, file: IO[bytes], say: Say) -> Restored:
    say("Restoring beside the database ...")
    fresh = UNFINISHED + secrets.token_hex(6)
    with superuser(server, "postgres") as admin:
        for (name,) in admin.execute(
            "SELECT datname FROM pg_database WHERE starts_with(datname, %s)", [UNFINISHED]
        ).fetchall():
            drop_database(admin, str(name))
        try:
            make_database(admin, fresh)
            _load(server, file, fresh)
            revision = _checked_revision(server, fresh)
            say("Migrating ...")
            upgrade(server.acquire().url("dramatis_owner", fresh))
            with superuser(server, DATABASE) as before:
                worth_keeping = schema_revision(before) is not None
            kept = _swap(admin, fresh)
        except BaseException:
            drop_database(admin, fresh)
            raise
        if not worth_keeping:
            drop_database(admin, kept)
    return Restored(revision, kept if worth_keeping else None)


def _dump(server: EmbeddedPostgres, programs: EmbeddedPostgres, file: IO[bytes]) -> None:
    who = (f"--host={server.socket_dir}", "--port=5432", "--username=postgres")
    done = programs.run("pg_dump", *who, "--format=custom", f"--dbname={DATABASE}", stdout=file)
    if done.returncode:
        raise DumpFailed(
            f"The database could not be read: {_reason(done)}",
            hint="Check that the disk has space, and run `dramatis doctor`.",
        )


def _load(server: EmbeddedPostgres, file: IO[bytes], database: str) -> None:
    """Carry out a backup in an empty database, whole or not at all."""
    who = (f"--host={server.socket_dir}", "--port=5432", "--username=dramatis_owner")
    how = ("--no-owner", "--exit-on-error", "--single-transaction", f"--dbname={database}")
    file.seek(0)
    done = server.run("pg_restore", *who, *how, stdin=file)
    if done.returncode:
        raise NoBackup(
            f"The file is no whole backup: {_reason(done)}",
            hint="Nothing was changed. Give a file that `dramatis db backup` made.",
        )


def _checked_revision(server: EmbeddedPostgres, database: str) -> str:
    with superuser(server, database) as restored:
        revision = schema_revision(restored)
    if revision is None:
        raise NoBackup(
            "The file is a backup of something else: Dramatis' tables are not in it.",
            hint="Nothing was changed. Give a file that `dramatis db backup` made.",
        )
    known = revisions()
    if revision not in known:
        raise BackupTooNew(
            f"The backup is at revision {revision}, newer than this Dramatis ({known[-1]}).",
            hint="Nothing was changed. Update dramatis-mcp on this machine.",
        )
    return revision


def _swap(admin: Superuser, fresh: str) -> str:
    """Give the fresh database our name, and return the name that the other one has now."""
    kept = f"{DATABASE}_before_{_stamp()}"
    rename = sql.SQL("ALTER DATABASE {} RENAME TO {}")
    try:
        with admin.transaction():
            admin.execute(rename.format(sql.Identifier(DATABASE), sql.Identifier(kept)))
            admin.execute(rename.format(sql.Identifier(fresh), sql.Identifier(DATABASE)))
    except psycopg.errors.ObjectInUse:
        raise DatabaseBusy(
            "Somebody has the embedded database open.",
            hint="Nothing was changed. Close psql and whatever else is connected.",
        ) from None
    return kept


def _reason(done: "subprocess.CompletedProcess[bytes]") -> str:
    """Return what the first complaint ends with: before that come sockets and statements."""
    said = done.stderr.decode("utf-8", "replace")
    complaints = [parts[-1] for line in said.splitlines() if len(parts := _MARK.split(line)) > 1]
    return f"{(complaints or ['it gives no reason'])[0].strip().rstrip('.')}."


def _major(server: EmbeddedPostgres) -> int:
    return int(server.data.name.removeprefix("pg"))


def _stamp() -> str:
    return f"{datetime.now(UTC):%Y%m%d_%H%M%S_%f}"
