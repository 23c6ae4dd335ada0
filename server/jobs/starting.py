"""Start a worker on this machine when a job needs one and none is here.

Who is here is a file lock, so the kernel knows when a worker has been killed.
"""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Collection, Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from platform import node

from db import locks
from db.session import BadDatabaseUrl, psycopg_url
from server.errors import Unavailable
from server.settings import Settings

# Of the hashes in names. The queue announces jobs on a channel with the name of theirs, which may
# have 40 bytes.
DIGITS = 10
LOG_BYTES = 1_000_000
# On a busy machine it is a while until a worker hears that it is to go.
PATIENCE_S = 5.0
PAUSE_S = 0.02
# What is left of workers with settings that nobody has any more is kept for this long.
KEPT_S = 7 * 24 * 3600


class WorkerNotStarted(Unavailable):
    code = "worker_not_started"


class WorkerNotStopped(Unavailable):
    code = "worker_not_stopped"


@dataclass(frozen=True, slots=True)
class Station:
    """Where the workers of a data root are known that may run somebody's jobs.

    Attributes:
        database: stands for the database, all of whose jobs operators' workers run.
        owner: stands for one login, machine, data root, tenant and database.
        kin: stands for what the owner's jobs run on, too: which command, or whose models.
        queue: that of the jobs which the owner invoked with the same settings and keys. Each has a
            worker of its own, for a job must not meet the keys or the command of another.
    """

    folder: Path
    database: str
    owner: str
    kin: str
    queue: str

    @classmethod
    def of(cls, settings: Settings) -> "Station":
        """Find the station; one data root may serve several databases and tenants."""
        url = _identity(settings)
        uid = os.getuid() if sys.platform != "win32" else 0
        tenant = settings.tenant.strip().lower()
        # The embedded database is on one machine, whatever that is called today.
        machine = node() if url else ""
        owner = f"own-{_short(machine, str(uid), str(settings.data_root.resolve()), tenant, url)}"
        database = _short(url) if url else "embedded"
        kin = f"{owner}-{settings.runner_digest()[:DIGITS]}"
        queue = f"{kin}-{settings.worker_digest()[:DIGITS]}"
        return cls(settings.data_root / "workers", database, owner, kin, queue)

    @property
    def present(self) -> Path:
        """The lock that the workers share that operators started."""
        return self.folder / f"{self.database}.present"

    @property
    def on_demand(self) -> Path:
        """The lock of the worker that was started for a job, from before it runs.

        Its holder has written its process id into it.
        """
        return self._lock_of(self.queue)

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
        """Tell whether a worker for jobs of this owner is here, or on its way."""
        if not self.folder.is_dir():
            return False
        with self.looking():
            return not locks.is_free(self.present) or bool(self.held())

    def abandoned(self, queues: Collection[str]) -> set[str]:
        """Find those of the same kin that no worker takes care of; only for who looks."""
        if not locks.is_free(self.present):
            return set()
        kin = {one for one in queues if re.fullmatch(rf"{self.kin}-[0-9a-f]{{{DIGITS}}}", one)}
        return {one for one in kin if locks.is_free(self._lock_of(one))}

    def held(self) -> list[Path]:
        """List the locks of the owner's workers on demand; only for who looks."""
        return [lock for lock in self._locks() if not locks.is_free(lock)]

    def tidy(self) -> None:
        """Remove what is left of workers that are gone for long; only for who looks."""
        long_ago = time.time() - KEPT_S
        for lock in self._locks():
            if lock.stat().st_mtime < long_ago and locks.is_free(lock):
                lock.unlink()
                lock.with_suffix(".log").unlink(missing_ok=True)

    @contextmanager
    def looking(self) -> Generator[None]:
        """Be the only one who looks at the locks: who looks has them, and would count as here.

        Raises:
            TimeoutError: somebody else looks for too long, such as a process that is frozen.
        """
        with locks.alone(self.folder / "looking", patience_s=PATIENCE_S):
            yield

    def _lock_of(self, queue: str) -> Path:
        return self.folder / f"{queue}.on-demand"

    def _locks(self) -> list[Path]:
        return [*self.folder.glob(f"{self.owner}-*.on-demand")]


def sign(lock: int) -> None:
    """Write our process id into the lock of a worker on demand, for `stop_workers`."""
    # A disk that is full is no reason not to work.
    with suppress(OSError):
        os.ftruncate(lock, 0)
        os.pwrite(lock, str(os.getpid()).encode(), 0)


def start_worker(
    station: Station, settings: Settings, queues: Collection[str] | None = None
) -> None:
    """Start a worker that outlives us, unless one is here; returns before it is ready.

    Args:
        queues: where jobs wait. None is started where it would take care of none of them; `None`
            stands for its own.

    Raises:
        WorkerNotStarted: the machine refuses. Jobs wait until somebody starts one.
    """
    try:
        station.folder.mkdir(parents=True, exist_ok=True)
        with station.looking():
            wanted = queues is None or station.abandoned(queues)
            if wanted and locks.is_free(station.present):
                _start(station, settings)
    except (OSError, subprocess.CalledProcessError) as error:
        why = getattr(error, "strerror", None) or "the system refused"
        raise WorkerNotStarted(
            f"No worker can be started here: {why}. The job waits.",
            hint="Start one by hand with `dramatis worker`.",
        ) from error


def stop_workers(station: Station, *, patience_s: float = PATIENCE_S) -> int:
    """Tell the owner's workers that were started for a job to go when what they run has ended.

    Args:
        patience_s: how long one may take to hear of it.

    Returns:
        How many there were.

    Raises:
        WorkerNotStopped: some do not hear; the others were told.
    """
    if not station.folder.is_dir():
        return 0
    told: dict[Path, int] = {}
    deadline = time.monotonic() + patience_s
    with station.looking():
        all_of_them = here = station.held()
        while here:
            for lock in here:
                # One that was just started has not signed yet.
                if lock not in told and (signed := lock.read_bytes()):
                    told[lock] = int(signed)
                    with suppress(ProcessLookupError):
                        os.kill(told[lock], signal.SIGTERM)
            if time.monotonic() > deadline:
                silent = ", ".join(str(told.get(lock, "one that starts")) for lock in here)
                raise WorkerNotStopped(
                    f"No answer from these workers: {silent}.",
                    hint="Look at the processes, and end them.",
                )
            # A file lock cannot be waited for with a limit.
            time.sleep(PAUSE_S)
            here = [lock for lock in here if not locks.is_free(lock)]
    return len(all_of_them)


def _start(station: Station, settings: Settings) -> None:
    """Start a worker, unless one has the lock, which is handed on to it."""
    station.tidy()
    lock = locks.open_lock(station.on_demand)
    try:
        if locks.take(lock):
            os.ftruncate(lock, 0)
            _spawn(station, settings, lock)
    finally:
        os.close(lock)


def _spawn(station: Station, settings: Settings, lock: int) -> None:
    how = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    if station.log.exists() and station.log.stat().st_size > LOG_BYTES:
        how |= os.O_TRUNC
    log = os.open(station.log, how, 0o600)
    # Not `-m`: that would look for our modules in the folder it starts in.
    program = [sys.executable, "-P", "-c", "from server.cli import main; main()"]
    # By a shell that ends at once, so that the worker is no child whose end we had to wait for.
    detached = ["/bin/sh", "-c", '"$@" &', "sh"]
    try:
        subprocess.run(  # noqa: S603  # the shell's own text is fixed, and the rest are arguments
            [*detached, *program, "worker", "--on-demand", str(lock)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=settings.data_root,
            env=settings.environment(),
            pass_fds=(lock,),
            start_new_session=True,
            check=True,
        )
    finally:
        os.close(log)


def _identity(settings: Settings) -> str:
    """Name the database without its password, which has no place in what others see."""
    if settings.database_url is None:
        return ""
    url = settings.database_url.get_secret_value()
    with suppress(BadDatabaseUrl):
        return psycopg_url(url).set(password=None).render_as_string()
    return url


def _short(*parts: str) -> str:
    return sha256("\0".join(parts).encode()).hexdigest()[:DIGITS]
