"""Postgres that comes with us: the first client starts it, the last one's end stops it.

Attaching to a running server takes well under a millisecond, and nothing is imported for it.
"""

import logging
import os
import sys
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

from db import locks
from db.places import Places
from db.unavailable import SET_A_URL, EmbeddedInUse, EmbeddedUnavailable

if TYPE_CHECKING:
    from subprocess import CompletedProcess

    from db.cluster import Cluster, RunOptions

__all__ = ["Connection", "EmbeddedInUse", "EmbeddedPostgres", "EmbeddedUnavailable"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Connection:
    """How to reach the server: the folder of its socket. There is no network port."""

    host: str

    def url(self, user: str = "dramatis_app", database: str = "dramatis") -> str:
        """Return SQLAlchemy's URL. The port is in it because libpq would take PGPORT's."""
        from urllib.parse import quote

        login, name, host = (quote(part, safe="") for part in (user, database, self.host))
        return f"postgresql+psycopg://{login}@/{name}?host={host}&port=5432"


class EmbeddedPostgres:
    """One client of the server for a data root; every process that uses it has its own.

    Who is attached is a shared file lock, so the kernel knows when a client has been killed.
    """

    def __init__(self, data_root: Path, *, linger: timedelta, major: int = 18) -> None:
        """Choose the places; nothing is touched yet.

        Args:
            data_root: the folder of everything Dramatis keeps. Root's databases are elsewhere,
                in `/var/lib/dramatis`, since the account that runs them may not enter any folder.
            linger: how long the server stays after its last client. That of the client that
                started the server counts.
            major: of Postgres, which has a cluster of its own.

        Raises:
            EmbeddedUnavailable: this is Windows.
        """
        if sys.platform == "win32":
            raise EmbeddedUnavailable(
                "The embedded database does not run on Windows.", hint=f"There, {SET_A_URL}."
            )
        self.data_root = data_root.resolve()
        self.linger = linger
        self._places = Places(_base(self.data_root), major)
        self._clients: int | None = None

    @property
    def base(self) -> Path:
        return self._places.base

    @property
    def data(self) -> Path:
        return self._places.data

    @property
    def socket_dir(self) -> Path:
        return self._places.socket_dir

    @property
    def pinned(self) -> bool:
        return self._places.pinned.exists()

    def acquire(self) -> Connection:
        """Attach until `release`, and start the server if it is not up. May be called again.

        Waits while the server is being stopped, or somebody has it alone.

        Raises:
            EmbeddedUnavailable: there is no server and none can be started.
        """
        attached_before = self._clients is not None
        with _explained():
            if self._clients is None:
                self._clients = self._open_clients_lock()
                locks.share(self._clients)
            try:
                # Tells a reaper that waits out its linger that somebody has come.
                os.utime(self._clients)
                self._places.trust_socket_dir()
                with locks.alone(self._places.start_lock):
                    self._ensure_server(self._clients)
            except BaseException:
                if not attached_before:
                    self.release()
                raise
        return Connection(str(self.socket_dir))

    def ensure_running(self) -> None:
        """Start the server again if it died under us. Costs a tenth of a millisecond if not.

        Raises:
            EmbeddedUnavailable: it cannot be started.
        """
        if not self._places.is_ready():
            self.acquire()

    def release(self) -> None:
        """Detach. The server is stopped when nobody else is attached and the linger is over."""
        if self._clients is not None:
            os.close(self._clients)
            self._clients = None

    def is_running(self) -> bool:
        return self._places.is_running()

    def pin(self) -> None:
        """Leave the server running after its last client, until `unpin`."""
        with _explained():
            self._make_base()
            self._places.pinned.touch()

    def unpin(self) -> None:
        """Let the server stop after its last client; if there is none, after the linger."""
        with _explained():
            self._places.pinned.unlink(missing_ok=True)
            if not self.is_running():
                return
            clients = self._open_clients_lock()
            try:
                locks.share(clients)
                with locks.alone(self._places.start_lock):
                    self._ensure_reaper(clients)
            finally:
                os.close(clients)

    @contextmanager
    def exclusive(self) -> Generator[None]:
        """Have the server alone, to replace its data; it can be stopped and started meanwhile.

        Others who attach wait until the end. A client that was attached before stays so.

        Raises:
            EmbeddedInUse: somebody else is attached.
            EmbeddedUnavailable: the lock cannot be opened.
        """
        attached_before = self._clients is not None
        with _explained():
            clients = self._open_clients_lock() if self._clients is None else self._clients
            try:
                locks.share_with_nobody(clients)
            except BaseException:
                if not attached_before:
                    os.close(clients)
                raise
        self._clients = clients
        try:
            yield
        finally:
            if attached_before:
                locks.share(clients)
            else:
                self.release()

    def stop(self) -> bool:
        """Stop the server now, under whoever is attached; return whether one was running.

        Raises:
            EmbeddedUnavailable: it did not stop.
        """
        if not self._places.start_lock.exists():
            return False
        # Waits for another process that is starting or stopping it.
        with _explained(), locks.alone(self._places.start_lock):
            if not self.is_running():
                return False
            self._cluster().stop()
        return True

    def program(self, name: str) -> Path:
        """Return the path of a program of Postgres that the server's account can run.

        Raises:
            EmbeddedUnavailable: the programs are not installed.
        """
        return self._cluster().programs / name

    def run(
        self, program: str, *arguments: str | Path, **options: "Unpack[RunOptions]"
    ) -> "CompletedProcess[bytes]":
        """Run a program of Postgres as the server's account, in `/`, with a clean environment.

        As root that account can read and write next to nothing: hand it open files. Without
        them its input is empty, and what it prints is in the result.

        Raises:
            EmbeddedUnavailable: the programs are not installed.
            subprocess.CalledProcessError: with `check`, it failed.
            subprocess.TimeoutExpired: it took longer than `timeout` seconds, and was killed.
        """
        return self._cluster().run(program, *arguments, **options)

    def _ensure_server(self, clients: int) -> None:
        if not self._places.is_ready() or not self._places.set_up.exists():
            self._cluster().start(clients, self.linger)
        self._ensure_reaper(clients)

    def _ensure_reaper(self, clients: int) -> None:
        """Replace a reaper that was killed, or that left a pinned server."""
        if not self.pinned and locks.is_free(self._places.reaper_lock):
            self._cluster().watch(clients, self.linger)

    def _open_clients_lock(self) -> int:
        try:
            return locks.open_lock(self._places.clients_lock)
        except FileNotFoundError:
            self._make_base()
            return locks.open_lock(self._places.clients_lock)

    def _make_base(self) -> None:
        if os.geteuid() != 0:
            self.base.mkdir(mode=0o700, parents=True, exist_ok=True)
            return
        from db import binaries

        if self.data_root.exists() and not self.data_root.is_dir():
            raise NotADirectoryError(None, "The data root is not a folder")
        account = binaries.unprivileged_account()
        binaries.make_folder(binaries.ROOT_HOME, 0o755)
        owner = binaries.Account(uid=0, gid=account.gid)
        # The server's account passes through to its own folders, and can replace nothing.
        binaries.make_folder(self.base, 0o710, owner, note=f"{self.data_root}\n")

    def _cluster(self) -> "Cluster":
        from db.cluster import Cluster

        with _explained():
            return Cluster.at(self._places)


def _base(data_root: Path) -> Path:
    if os.geteuid() != 0:
        return data_root / "postgres"
    from hashlib import sha256

    return Path("/var/lib/dramatis") / sha256(os.fsencode(data_root)).hexdigest()[:16]


@contextmanager
def _explained() -> Generator[None]:
    """Say what is wrong with a folder that cannot be used."""
    try:
        yield
    except OSError as error:
        raise EmbeddedUnavailable(
            f"The embedded database cannot be used here: {error.strerror or 'the disk refused'}.",
            hint="Check that the data root (DRAMATIS_DATA_ROOT) is a folder that you may write to, "
            f"on a disk with space, or {SET_A_URL}.",
        ) from error
