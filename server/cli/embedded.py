"""The embedded server for the commands that manage it, and what they can be refused with."""

from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from server.cli.options import Given
from server.cli.sessions import log_to_stderr
from server.errors import Conflict, DramatisError, Invalid, NotFound, Unavailable

if TYPE_CHECKING:
    from db.embedded import EmbeddedPostgres


class NotEmbedded(Invalid):
    code = "not_embedded"


class EmbeddedInUse(Conflict):
    code = "embedded_in_use"


class NoDatabase(NotFound):
    code = "no_database"


class FileExists(Conflict):
    code = "file_exists"


class NoBackup(Invalid):
    code = "no_backup"


class BackupTooNew(Unavailable):
    code = "backup_too_new"


class DumpFailed(Unavailable):
    code = "dump_failed"


@contextmanager
def embedded(given: Given) -> "Generator[EmbeddedPostgres]":
    """Get the embedded server, and translate what managing it is refused with.

    Raises:
        NotEmbedded: the settings name a database of somebody's own.
    """
    import psycopg

    from db import backup
    from db.embedded import EmbeddedInUse as InUse
    from db.embedded import EmbeddedUnavailable
    from server.app import EmbeddedDatabaseFailed, embedded_server
    from server.work import DatabaseUnavailable

    settings = given.settings()
    log_to_stderr(settings)
    if settings.database_url is not None:
        raise NotEmbedded(
            "`dramatis db` manages the embedded database only, and DRAMATIS_DATABASE_URL names"
            " another one.",
            hint="Use that server's own tools, or unset the variable.",
        )
    kinds: dict[type[Exception], type[DramatisError]] = {
        InUse: EmbeddedInUse,
        EmbeddedUnavailable: EmbeddedDatabaseFailed,
        backup.NoDatabase: NoDatabase,
        backup.FileExists: FileExists,
        backup.Unwritable: Invalid,
        backup.NoBackup: NoBackup,
        backup.BackupTooNew: BackupTooNew,
        backup.DatabaseBusy: EmbeddedInUse,
        backup.DumpFailed: DumpFailed,
    }
    try:
        yield embedded_server(settings)
    except (EmbeddedUnavailable, backup.BackupRefused) as error:
        raise kinds[type(error)](str(error), hint=error.hint) from error
    except psycopg.OperationalError as error:
        raise DatabaseUnavailable(
            "The embedded database does not let us in.",
            hint="Nothing was changed. Try again; if it persists, run `dramatis doctor`.",
        ) from error
