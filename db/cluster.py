"""Make, start, set up and stop the server of one cluster.

Everything here is done by one process at a time, the one that holds the start lock, and can be
repeated after that process was killed at any point.
"""

import logging
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import IO, TypedDict, Unpack

from db import binaries
from db.places import Places
from db.unavailable import SET_A_URL, EmbeddedUnavailable

# Recovery after a crash counts as starting.
START_TIMEOUT_S = 120
STOP_TIMEOUT_S = 60
# How long the processes of a server that was killed may take to end.
RETRY_FOR_S = 15.0
RETRY_PAUSE_S = 0.1
LOG_SIZE_BYTES = 4_000_000

# Given at each start, so that no ALTER SYSTEM lifts them: trust is only for who may open the socket.
_FENCE = {"listen_addresses": "", "unix_socket_permissions": "0700", "port": "5432"}
_TUNING = {"shared_buffers": "64MB", "jit": "off", "max_connections": "100"}
# The processes of a killed server need a moment to notice.
_PASSING = ("already exists", "still in use")
_REAPER = Path(__file__).with_name("reaper.py")
_log = logging.getLogger(__name__)


class RunOptions(TypedDict, total=False):
    """What `subprocess.run` takes; without any, input is empty and output is in the result."""

    input: bytes
    stdin: int | IO[bytes]
    stdout: int | IO[bytes]
    stderr: int | IO[bytes]
    check: bool
    timeout: float


@dataclass(frozen=True, slots=True)
class Cluster:
    """One cluster, and the account that runs it; `None` is the one we are."""

    places: Places
    programs: Path
    account: binaries.Account | None

    @classmethod
    def at(cls, places: Places) -> "Cluster":
        """Find the programs and the account to run them.

        Raises:
            EmbeddedUnavailable: one of them cannot be had.
        """
        if os.geteuid() != 0:
            return cls(places, binaries.installation(places.major) / "bin", None)
        account = binaries.unprivileged_account()
        return cls(places, binaries.shared_installation(places.major) / "bin", account)

    def start(self, clients_fd: int, linger: timedelta) -> None:
        """Bring the server up, made and set up first if need be.

        Args:
            clients_fd: the client's lock, kept by the process that starts the server.
            linger: how long the server stays after its last client.

        Raises:
            EmbeddedUnavailable: Postgres refused; its reason is in the message.
        """
        places = self.places
        binaries.make_folder(places.socket_dir, 0o700, self.account)
        places.trust_socket_dir()
        self._open_log()
        for leftover in places.base.glob(f"{places.data.name}.new-*"):
            # Of a client that was killed; its initdb may still be at work.
            shutil.rmtree(leftover, ignore_errors=True)
        if not (places.data / "PG_VERSION").exists():
            self._create()
        self._bring_up(clients_fd, linger)
        if not places.set_up.exists():
            self._set_up()

    def watch(self, clients_fd: int, linger: timedelta) -> None:
        """Leave a process behind that stops the running server after its last client."""
        self._keep(clients_fd, linger)

    def stop(self) -> None:
        """Stop the running server, its clients' connections included.

        Raises:
            EmbeddedUnavailable: it did not stop in time.
        """
        stop = ("-s", "-w", "-t", str(STOP_TIMEOUT_S), "-m", "fast", "-D", self.places.data, "stop")
        result = self.run("pg_ctl", *stop)
        # The reaper may have been stopping it too, and was faster.
        if result.returncode and self.places.is_running():
            raise EmbeddedUnavailable(
                "The embedded database did not stop: " + self._last_words(result.stderr),
                hint="Wait for its work to end and try again.",
            )

    def run(
        self, program: str, *arguments: str | Path, **options: Unpack[RunOptions]
    ) -> subprocess.CompletedProcess[bytes]:
        """Run a program of Postgres as the account that runs the server."""
        no_input = None if "input" in options else subprocess.DEVNULL
        return subprocess.run(  # noqa: S603  # a program of the wheel
            [self.programs / program, *arguments],
            input=options.get("input"),
            stdin=options.get("stdin", no_input),
            stdout=options.get("stdout", subprocess.PIPE),
            stderr=options.get("stderr", subprocess.PIPE),
            check=options.get("check", False),
            timeout=options.get("timeout"),
            env=binaries.ENVIRONMENT,
            cwd="/",
            user=self.account and self.account.uid,
            group=self.account and self.account.gid,
            extra_groups=() if self.account else None,
        )

    def _create(self) -> None:
        """Make the cluster beside its place and rename it, so that half of one never counts."""
        places = self.places
        places.set_up.unlink(missing_ok=True)
        fresh = Path(tempfile.mkdtemp(prefix=f"{places.data.name}.new-", dir=places.base))
        try:
            if self.account:
                os.chown(fresh, self.account.uid, self.account.gid)
            result = self.run("initdb", "-D", fresh, *_initdb_options(places.major))
            if result.returncode:
                raise EmbeddedUnavailable(
                    "The embedded database could not be made: " + self._last_words(result.stderr),
                    hint=f"Check that the disk has 100 MB free, or {SET_A_URL}.",
                )
            fresh.rename(places.data)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
        _log.info("Made a Postgres %s cluster.", places.major)

    def _bring_up(self, clients_fd: int, linger: timedelta) -> None:
        began = time.monotonic()
        while not self.places.is_ready():
            waited = time.monotonic() - began
            if self.places.is_taken():
                raise EmbeddedUnavailable(
                    "A server of another major version of Postgres runs on this data root.",
                    hint="End the sessions of the other version of Dramatis, then try again.",
                )
            if self.places.answers():
                # It recovers, or is being stopped.
                words, patience = "it takes too long", START_TIMEOUT_S
            else:
                seen = self.places.log.stat().st_size
                if self._keep(clients_fd, linger, "start") == 0:
                    continue
                with self.places.log.open("rb") as log:
                    log.seek(seen)
                    said = log.read()
                words, passing = self._last_words(said), _may_pass(said)
                patience = RETRY_FOR_S if passing else 0
            if waited >= patience:
                raise EmbeddedUnavailable(
                    f"The embedded database did not start: {words}",
                    hint=f"Its log is {self.places.log.name} in the database's folder.",
                )
            time.sleep(RETRY_PAUSE_S)
        _log.info("The embedded Postgres is up.")

    def _keep(self, clients_fd: int, linger: timedelta, *command: str) -> int:
        """Run the reaper until it has started the server, if asked to; it stays behind.

        Returns:
            The exit code of `pg_ctl start`; 0 without `command`.
        """
        places, account = self.places, self.account
        settings = {**_FENCE, "unix_socket_directories": _socket_setting(places)}
        server = ["-D", str(places.data)]
        server += [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        # pg_ctl hands these to a shell and quotes its own -D badly: it gets that by PGDATA.
        start = ["-s", "-w", "-t", str(START_TIMEOUT_S), "-o", shlex.join(server), *command]
        who = [str(account.uid), str(account.gid)] if account else ["", ""]
        return subprocess.run(  # noqa: S603  # our own module
            [sys.executable, "-I", "-S", _REAPER, places.base, places.data, places.address]
            + [self.programs / "pg_ctl", str(linger.total_seconds()), *who, str(clients_fd)]
            + (start if command else []),
            env=binaries.ENVIRONMENT | {"PGDATA": str(places.data)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=(clients_fd,),
            start_new_session=True,
            cwd="/",
            check=False,
        ).returncode

    def _set_up(self) -> None:
        import psycopg

        from db.bootstrap import bootstrap

        try:
            bootstrap(self.places.socket_dir)
        except psycopg.Error as error:
            raise EmbeddedUnavailable(
                f"The embedded database could not be set up: {self._last_words(str(error))}",
                hint=f"Its log is {self.places.log.name} in the database's folder.",
            ) from error
        self.places.set_up.touch()

    def _open_log(self) -> None:
        """Make the log, which its account may write but not replace; keep one old one."""
        log = self.places.log
        if log.exists() and log.stat().st_size > LOG_SIZE_BYTES:
            log.replace(log.with_suffix(".log.1"))
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            if self.account:
                os.fchown(descriptor, self.account.uid, self.account.gid)
        finally:
            os.close(descriptor)

    def _last_words(self, said: bytes | str) -> str:
        """Return the last line that says what is wrong, with no path of this machine."""
        text = said.decode("utf-8", "replace") if isinstance(said, bytes) else said
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        for mark in ("FATAL:", "PANIC:", "error:", "ERROR:"):
            for line in reversed(lines):
                if mark in line:
                    return self._without_paths(line.partition(mark)[2])
        return self._without_paths(lines[-1] if lines else "it gives no reason")

    def _without_paths(self, line: str) -> str:
        for path in (self.places.base, self.programs.parent, self.places.socket_dir.parent):
            line = line.replace(f"{path}/", "")
        return f"{line.strip().rstrip('.')}."


def _may_pass(said: bytes) -> bool:
    return any(phrase.encode() in said for phrase in _PASSING)


def _initdb_options(major: int) -> list[str]:
    """Choose what a cluster keeps for life; 16 knows neither the builtin locale nor io_method."""
    options = ["--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C"]
    settings = {**_FENCE, **_TUNING}
    if major >= 17:
        options += ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
    if major >= 18:
        settings["io_method"] = "sync"
    return options + [f"--set={name}={value}" for name, value in settings.items()]


def _socket_setting(places: Places) -> str:
    """Name the socket's folder as the server sees it, which works in its data directory.

    The setting is a list in a syntax of its own: a relative path needs no quotes whatever the
    base is called.
    """
    inside = places.socket_dir.parent == places.base
    return f"../{places.socket_dir.name}" if inside else str(places.socket_dir)
