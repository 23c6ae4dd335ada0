"""File locks, which the kernel lets go when their holder is killed: see flock(2)."""

import errno
import os
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from db.unavailable import EmbeddedInUse

if sys.platform != "win32":  # pragma: no branch
    import fcntl

# How long `share_with_nobody` waits for a server that is being stopped.
STOPPING_PATIENCE_S = 60.0
# Between two tries to have a lock.
PAUSE_S = 0.02


def open_lock(path: Path) -> int:
    """Open the file of a lock; closing the descriptor lets the lock go."""
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


@contextmanager
def alone(path: Path, *, patience_s: float | None = None) -> Generator[None]:
    """Wait for a lock that only one process has at a time, and hold it.

    Raises:
        TimeoutError: somebody else has had it for longer than `patience_s`.
    """
    lock = open_lock(path)
    try:
        if patience_s is None:
            fcntl.flock(lock, fcntl.LOCK_EX)
        else:
            _wait_for(lock, time.monotonic() + patience_s)
        yield
    finally:
        os.close(lock)


def is_free(path: Path) -> bool:
    """Tell whether nobody holds the lock."""
    lock = open_lock(path)
    try:
        return _taken_at_once(lock, fcntl.LOCK_EX)
    finally:
        os.close(lock)


def take(lock: int) -> bool:
    """Have a lock alone from then on, unless somebody else has it."""
    return _taken_at_once(lock, fcntl.LOCK_EX)


def share(lock: int) -> None:
    """Wait until nobody has the lock alone, and share it from then on."""
    fcntl.flock(lock, fcntl.LOCK_SH)


def share_with_nobody(lock: int) -> None:
    """Have a lock alone that may have been shared before; on failure it is as it was.

    Raises:
        EmbeddedInUse: others share it, or have had it alone for too long.
    """
    deadline = time.monotonic() + STOPPING_PATIENCE_S
    while not _taken_at_once(lock, fcntl.LOCK_EX):
        # Trying for more has lost what was shared. If it can be shared again, others share it;
        # if not, a reaper has it, which stops the server and goes.
        shared = _taken_at_once(lock, fcntl.LOCK_SH)
        if shared or time.monotonic() > deadline:
            raise EmbeddedInUse(
                "The embedded database is in use.",
                hint="End the other sessions and workers that use it, then try again.",
            )
        time.sleep(PAUSE_S)


def _wait_for(lock: int, deadline: float) -> None:
    # A file lock cannot be waited for with a limit.
    while not _taken_at_once(lock, fcntl.LOCK_EX):
        if time.monotonic() > deadline:
            raise TimeoutError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))
        time.sleep(PAUSE_S)


def _taken_at_once(lock: int, how: int) -> bool:
    try:
        fcntl.flock(lock, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
