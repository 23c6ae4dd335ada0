"""Where an embedded cluster keeps its files, and whether its server answers."""

import os
import socket
import stat
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from db.unavailable import EmbeddedUnavailable

SOCKET_NAME = ".s.PGSQL.5432"
# sockaddr_un holds 108 bytes on Linux and 104 on macOS, the terminating zero included.
SOCKET_PATH_LIMIT = 100


@dataclass(frozen=True)
class Places:
    """The files of one cluster. Everything in `base` is ours alone."""

    base: Path
    major: int

    @property
    def data(self) -> Path:
        return self.base / f"pg{self.major}"

    @property
    def lock_file(self) -> Path:
        """Postgres' own, with its process id and state."""
        return self.data / "postmaster.pid"

    @property
    def set_up(self) -> Path:
        """Marks that roles and database exist. Beside the cluster: its account may not forge it."""
        return self.base / f"pg{self.major}.ready"

    @property
    def log(self) -> Path:
        return self.base / "server.log"

    @property
    def pinned(self) -> Path:
        return self.base / "pinned"

    @property
    def clients_lock(self) -> Path:
        """Held shared by every client for as long as it lives, and alone by who stops the server."""
        return self.base / "clients.lock"

    @property
    def start_lock(self) -> Path:
        """Held by who starts, stops or sets up the server."""
        return self.base / "start.lock"

    @property
    def reaper_lock(self) -> Path:
        """Held by the process that will stop the server."""
        return self.base / f"pg{self.major}.reaper.lock"

    @cached_property
    def socket_dir(self) -> Path:
        """The socket's folder: in `base`, or in the system's folder for temporary files.

        The second serves bases whose path is too long for a socket or holds a comma, which
        separates hosts for libpq.
        """
        inside = self.base / "run"
        if len(os.fsencode(inside / SOCKET_NAME)) <= SOCKET_PATH_LIMIT and "," not in str(inside):
            return inside
        from hashlib import sha256

        name = sha256(os.fsencode(self.base)).hexdigest()[:16]
        return _temporary_folder() / f"dramatis-{os.geteuid()}-{name}"

    @property
    def address(self) -> Path:
        return self.socket_dir / SOCKET_NAME

    def answers(self) -> bool:
        """Tell whether a server listens, in a tenth of a millisecond and without a login."""
        with socket.socket(socket.AF_UNIX) as probe:
            probe.setblocking(False)
            try:
                probe.connect(str(self.address))
            except BlockingIOError:
                # Its queue is full: somebody who is busy is there.
                return True
            except OSError:
                return False
        return True

    def is_ready(self) -> bool:
        """Tell whether the server of this cluster takes logins.

        A server that recovers or shuts down still listens. What it is doing is the eighth line
        of its lock file (src/include/utils/pidfile.h); a server of another major has another file.
        """
        if not self.answers():
            return False
        try:
            lines = self.lock_file.read_text(errors="replace").splitlines()
        except OSError:
            return False
        return len(lines) >= 8 and lines[7].strip() == "ready"

    def is_running(self) -> bool:
        """Tell whether the server that answers is this cluster's."""
        return self.answers() and self.lock_file.exists()

    def is_taken(self) -> bool:
        """Tell whether the server that answers is of another major.

        Postgres makes its lock file before it listens, and removes it after.
        """
        return self.answers() and not self.lock_file.exists() and self.answers()

    def trust_socket_dir(self) -> None:
        """Make sure that nobody else can put a server of theirs where clients will look for ours.

        Raises:
            EmbeddedUnavailable: the folder was made by somebody else, or others may enter it.
        """
        if self.socket_dir.parent == self.base:
            return
        try:
            found = self.socket_dir.lstat()
        except FileNotFoundError:
            return
        private = stat.S_ISDIR(found.st_mode) and stat.S_IMODE(found.st_mode) == 0o700
        if not private or found.st_uid != os.geteuid():
            raise EmbeddedUnavailable(
                f"The folder {self.socket_dir.name} for the database's socket, among the system's "
                "temporary files, is not yours alone.",
                hint="Remove that folder, or set DRAMATIS_DATA_ROOT to a shorter path.",
            )


def _temporary_folder() -> Path:
    """Return one folder for all processes of a machine.

    TMPDIR would not do: clients that were started by different programs often have different
    ones, and would look for the same server in different places.
    """
    shared = Path("/tmp")  # noqa: S108  # the folder made in it is private, and checked
    if shared.is_dir():
        return shared
    import tempfile

    return Path(tempfile.gettempdir())
