"""Start the embedded server, outlive who asked for it, and stop it after its last client.

Run by path with `python -I -S`: it lives as long as the server does, so it imports nothing of
ours and needs 5 MB. The kernel drops a dead client's lock, so a client that was killed counts as
gone; and because this process, not the client, runs `pg_ctl start`, a client that is killed
meanwhile leaves a server that somebody will stop.
"""

import fcntl
import os
import socket
import sys
import time


def main(arguments: list[str]) -> int:
    """Detach a child that does the work, and answer for it once the server is up.

    Returns:
        What `pg_ctl start` returned. The caller waits for this process only, so it has no
        child left to reap.
    """
    report, done = os.pipe()
    if os.fork():
        os.close(done)
        return (os.read(report, 1) or b"\1")[0]
    os.close(report)
    return keep(arguments, done)


def keep(arguments: list[str], done: int) -> int:
    """Start the server if asked to, then wait until it can be stopped.

    Args:
        arguments: the base, the data directory, the socket, pg_ctl, the linger in seconds, the
            account's uid and gid (empty to stay who we are), the descriptor of the client's
            lock, and the arguments of `pg_ctl start` if the server is not running.
        done: a pipe that takes the exit code of `pg_ctl start`.
    """
    base, data, address, pg_ctl, linger, uid, gid, held, *start = arguments
    client = int(held)
    # Otherwise the server itself would hold the lock that says somebody uses it.
    os.set_inheritable(client, False)
    code = launch(base, data, address, uid, gid, [pg_ctl, *start]) if start else 0
    reaper = os.open(f"{data}.reaper.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(reaper, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        needed = False
    else:
        # A server that took too long to start may yet come up.
        needed = code == 0 or answers(address)
    # This is the client's own lock, shared with us across the fork. It is let go only now, so
    # that an older reaper could not stop the server while it was starting.
    os.close(client)
    tell(done, code)
    if not needed:
        return code
    clients = os.open(f"{base}/clients.lock", os.O_RDWR)
    wait_until_unused(clients, float(linger))
    # Whoever gets the clients' lock after us must find this one free.
    os.close(reaper)
    pinned = os.path.exists(f"{base}/pinned")  # noqa: PTH110  # no pathlib here
    # Without a server pg_ctl would signal whoever has the id in an old lock file.
    if answers(address) and not pinned:
        become(uid, gid)
        # pg_ctl holds the lock until the server has gone; a new client waits for that.
        os.set_inheritable(clients, True)
        os.execv(pg_ctl, [pg_ctl, "-s", "-w", "-m", "fast", "-D", data, "stop"])  # noqa: S606
    return 0


def wait_until_unused(clients: int, linger: float) -> None:
    """Return with the lock held alone, once nobody has been attached for `linger` seconds."""
    fcntl.flock(clients, fcntl.LOCK_EX)
    while linger:
        # A client touches the file when it attaches, which shows one that came and went.
        seen = os.fstat(clients).st_mtime_ns
        fcntl.flock(clients, fcntl.LOCK_UN)
        time.sleep(linger)
        try:
            fcntl.flock(clients, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            fcntl.flock(clients, fcntl.LOCK_EX)
            continue
        if os.fstat(clients).st_mtime_ns == seen:
            return


def launch(base: str, data: str, address: str, uid: str, gid: str, command: list[str]) -> int:
    """Run `pg_ctl start` with its output, and so the server's, in the log; return its exit code."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    try:
        become(uid, gid)
        log = os.open(f"{base}/server.log", os.O_WRONLY | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        disown(f"{data}/postmaster.pid", data)
        disown(f"{address}.lock", data)
        os.execv(command[0], command)  # noqa: S606
    finally:
        os._exit(126)


def become(uid: str, gid: str) -> None:
    """Give up root for the account that runs the server, its groups included."""
    if uid:
        os.setgroups([])
        os.setgid(int(gid))
        os.setuid(int(uid))


def disown(lock_file: str, data: str) -> None:
    """Let Postgres start although an innocent process has the id in an old lock file.

    After a reboot or in a new container that happens. Postgres ignores the id of pg_ctl's parent,
    which is the parent of this process too, and goes on to check the shared memory that the
    file names; removing the file would skip that check. See CreateLockFile() in miscinit.c.
    """
    try:
        with open(lock_file, encoding="utf-8", errors="surrogateescape") as file:  # noqa: PTH123
            first, _, rest = file.read().partition("\n")
    except FileNotFoundError:
        return
    if first.strip("-").isdigit():
        try:
            os.kill(abs(int(first)), 0)
        except (ProcessLookupError, PermissionError):
            # Gone, or another user's: Postgres sees that for itself.
            return
        if serves(abs(int(first)), data):
            return
    text = f"{os.getppid()}\n{rest}".encode(errors="surrogateescape")
    with open(f"{lock_file}.new", "wb") as file:  # noqa: PTH123
        file.write(text)
    os.replace(f"{lock_file}.new", lock_file)  # noqa: PTH105


def serves(pid: int, data: str) -> bool:
    """Tell whether a process may be the server of `data`. Postgres works in its data directory."""
    if os.path.exists("/proc/self/cwd"):  # noqa: PTH110
        try:
            return os.path.samefile(f"/proc/{pid}/cwd", data)  # noqa: PTH121
        except OSError:
            # It ended meanwhile, or is a zombie.
            return False
    import subprocess

    command = ["/bin/ps", "-ww", "-o", "command=", "-p", str(pid)]
    shown = subprocess.run(command, capture_output=True, check=False).stdout  # noqa: S603
    return b"postgres" in shown


def answers(address: str) -> bool:
    """Tell whether a server listens."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)
        try:
            probe.connect(address)
        except BlockingIOError:
            return True
        except OSError:
            return False
    return True


def tell(done: int, code: int) -> None:
    """Answer whoever asked, unless they were killed meanwhile."""
    try:
        os.write(done, bytes([code & 0xFF]))
    except BrokenPipeError:
        return
    finally:
        os.close(done)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
