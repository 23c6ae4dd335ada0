"""Start a worker on this machine when a job needs one and none is here.

Who is here is a file lock, so the kernel knows when a worker has been killed.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from platform import node

from db import locks
from db.session import BadDatabaseUrl, psycopg_url
from server.errors import Unavailable
from server.settings import Settings

LOG_BYTES = 1_000_000
# On a busy machine it is a while until a worker hears that it is to go.
PATIENCE_S = 5.0
PAUSE_S = 0.02
# Stands in the record instead of the digest.
TOLD = "told"


class WorkerNotStarted(Unavailable):
    code = "worker_not_started"


@dataclass(frozen=True, slots=True)
class Station:
    """Where the workers of a data root are known that may run somebody's jobs.

    Attributes:
        database: stands for the database, all of whose jobs operators' workers run.
        queue: that of the jobs which the worker on demand runs: those of one login and tenant, for
            it has the keys and the command of whoever started it.
    """

    folder: Path
    database: str
    queue: str

    @classmethod
    def of(cls, settings: Settings) -> "Station":
        """Find the station; one data root may serve several databases and tenants."""
        url = _identity(settings)
        uid = os.getuid() if sys.platform != "win32" else 0
        tenant = settings.tenant.strip().lower()
        own = _short(node(), str(uid), str(settings.data_root.resolve()), tenant, url)
        database = _short(url) if url else "embedded"
        return cls(settings.data_root / "workers", database, f"own-{own}")

    @property
    def present(self) -> Path:
        """The lock that the workers share that operators started."""
        return self.folder / f"{self.database}.present"

    @property
    def on_demand(self) -> Path:
        """The lock of the worker that was started for a job, from before it runs."""
        return self.folder / f"{self.queue}.on-demand"

    @property
    def record(self) -> Path:
        """What whoever started that one has noted of it."""
        return self.folder / f"{self.queue}.worker"

    @property
    def log(self) -> Path:
        return self.folder / f"{self.queue}.log"

    def attend(self) -> int:
        """Count as present until the returned lock is closed."""
        self.folder.mkdir(parents=True, exist_ok=True)
        lock = locks.open_lock(self.present)
        locks.share(lock)
        return lock

    def is_staffed(self) -> bool:
        """Tell whether a worker is here, or on its way."""
        if not self.folder.is_dir():
            return False
        with self.looking():
            return not (locks.is_free(self.present) and locks.is_free(self.on_demand))

    @contextmanager
    def looking(self) -> Generator[None]:
        """Be the only one who looks at the locks: who looks has them, and would count as here."""
        with locks.alone(self.folder / "looking"):
            yield


def start_worker(station: Station, settings: Settings) -> None:
    """Start a worker that outlives us, unless one is here; returns before it is ready.

    Raises:
        WorkerNotStarted: the machine refuses. Jobs wait until somebody starts one.
    """
    with _starting(station):
        if locks.is_free(station.present):
            _start(station, settings)


def renew_worker(station: Station, settings: Settings, *, patience_s: float = PATIENCE_S) -> None:
    """Start a worker as `start_worker` does, also in place of one that has other settings.

    That one takes no more jobs, and goes when those that it runs have ended. For whoever invokes:
    those who look at jobs would replace each other's workers for as long as a job waits.

    Args:
        patience_s: how long that one may take to hear of it.

    Raises:
        WorkerNotStarted: the machine refuses, or the other one does not hear. Jobs wait.
    """
    with _starting(station):
        if not locks.is_free(station.present) or _start(station, settings):
            return
        here = _recorded(station)
        if here is None or here.digest == settings.worker_digest():
            return
        if not _send_away(station, here, patience_s):
            raise WorkerNotStarted(
                "The worker that is here has other settings, and does not go. The job waits.",
                hint=f"End the process {here.pid}, and start one with `dramatis worker`.",
            )
        _start(station, settings)


def stop_worker(station: Station, *, patience_s: float = PATIENCE_S) -> bool:
    """Tell the worker that was started for a job to go when what it runs has ended.

    Returns:
        False when none is here.
    """
    if not station.folder.is_dir():
        return False
    with station.looking():
        here = None if locks.is_free(station.on_demand) else _recorded(station)
        if here is None:
            return False
        _send_away(station, here, patience_s)
        return True


@dataclass(frozen=True, slots=True)
class _Recorded:
    pid: int
    digest: str


def _recorded(station: Station) -> _Recorded | None:
    """Read who has the lock. Where nobody has it, the record is of one who has left."""
    try:
        pid, digest = station.record.read_text(encoding="ascii").split()
        return _Recorded(int(pid), digest)
    except (FileNotFoundError, ValueError):
        # Who started it was killed before it wrote this.
        return None


def _send_away(station: Station, here: _Recorded, patience_s: float) -> bool:
    """Tell a worker to go, and wait until it has let its lock go, unless it does not hear."""
    # Told twice, it would not wait for what it runs.
    if here.digest != TOLD:
        with suppress(ProcessLookupError):
            os.kill(here.pid, signal.SIGTERM)
        station.record.write_text(f"{here.pid} {TOLD}\n", encoding="ascii")
    deadline = time.monotonic() + patience_s
    while not locks.is_free(station.on_demand):
        if time.monotonic() > deadline:
            return False
        # A file lock cannot be waited for with a limit; this runs in a worker thread.
        time.sleep(PAUSE_S)
    return True


@contextmanager
def _starting(station: Station) -> Generator[None]:
    try:
        station.folder.mkdir(parents=True, exist_ok=True)
        with station.looking():
            yield
    except (OSError, subprocess.CalledProcessError) as error:
        why = getattr(error, "strerror", None) or "the system refused"
        raise WorkerNotStarted(
            f"No worker can be started here: {why}. The job waits.",
            hint="Start one by hand with `dramatis worker`.",
        ) from error


def _start(station: Station, settings: Settings) -> bool:
    """Start a worker, unless one has the lock, which is handed on to it."""
    lock = locks.open_lock(station.on_demand)
    try:
        if not locks.take(lock):
            return False
        station.record.unlink(missing_ok=True)
        pid = _spawn(station, settings, lock)
        record = os.open(station.record, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(record, "w", encoding="ascii") as file:
            file.write(f"{pid} {settings.worker_digest()}\n")
    finally:
        os.close(lock)
    return True


def _spawn(station: Station, settings: Settings, lock: int) -> int:
    """Start the process, and return its id."""
    how = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    if station.log.exists() and station.log.stat().st_size > LOG_BYTES:
        how |= os.O_TRUNC
    log = os.open(station.log, how, 0o600)
    # Not `-m`: that would look for our modules in the folder it starts in.
    program = [sys.executable, "-P", "-c", "from server.cli import main; main()"]
    # By a shell that ends at once, so that the worker is no child whose end we had to wait for.
    detached = ["/bin/sh", "-c", '"$@" >&2 & echo $!', "sh"]
    try:
        shell = subprocess.run(  # noqa: S603
            [*detached, *program, "worker", "--on-demand", str(lock)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            cwd=settings.data_root,
            env=settings.environment(),
            pass_fds=(lock,),
            start_new_session=True,
            check=True,
        )
    finally:
        os.close(log)
    return int(shell.stdout)


def _identity(settings: Settings) -> str:
    """Name the database without its password, which has no place in what others see."""
    if settings.database_url is None:
        return ""
    url = settings.database_url.get_secret_value()
    with suppress(BadDatabaseUrl):
        return psycopg_url(url).set(password=None).render_as_string()
    return url


def _short(*parts: str) -> str:
    return sha256("\0".join(parts).encode()).hexdigest()[:12]
