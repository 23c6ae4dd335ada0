"""Run a command, and end all that belongs to it as soon as the worker that wanted it is gone.

Run by path with `python -I -S`, as the leader of a session: it lives as long as the command, so it
imports nothing of ours and needs 9 MB. A worker that is killed can end nothing any more, but the
kernel closes its end of a socket; then the command must not go on, for another worker starts the
job anew.
"""

import _thread
import os
import signal
import sys
import time

GRACE_S = 3


def main(arguments: list[str]) -> None:
    """Start the command, wait until it ends, and tell how.

    Args:
        arguments: the descriptor of the socket, what `LC_CTYPE` shall be, and the command.
    """
    held, ctype, *command = arguments
    worker = int(held)
    os.set_inheritable(worker, False)
    child = os.fork()
    if not child:
        become(command, worker, ctype)
    # Whoever asks the group to end asks the command, which may take its time.
    for sign in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(sign, signal.SIG_IGN)
    # Whoever reads what the command says must notice that it has closed its end.
    null = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(null, stream)
    _thread.start_new_thread(end_without, (worker,))
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    try:
        os.write(worker, f"code {code}\n".encode())
    except BrokenPipeError:
        # What the command left running is ended by the other thread, and we with it.
        time.sleep(2 * GRACE_S)


def become(command: list[str], worker: int, ctype: str) -> None:
    """Be the command, as if the worker had started it; where that cannot be, tell why."""
    try:
        # Python ignores these, and a program that never heard of that would go on ignoring them.
        for sign in (signal.SIGPIPE, signal.SIGXFSZ):
            signal.signal(sign, signal.SIG_DFL)
        # Python sets it for itself and its children where the locale is C, as PEP 538 says.
        if ctype:
            os.putenv("LC_CTYPE", ctype)
        else:
            os.unsetenv("LC_CTYPE")
        # The operator's command, and no shell is to read it.
        os.execvp(command[0], command)  # noqa: S606
    except OSError as error:
        os.write(worker, f"errno {error.errno}\n".encode())
    finally:
        os._exit(127)


def end_without(worker: int) -> None:
    """End the whole group, this process included, once the worker is gone. It sends nothing."""
    os.read(worker, 1)
    os.killpg(os.getpid(), signal.SIGTERM)
    # For those who tidy up; this thread has nothing else to do.
    time.sleep(GRACE_S)
    os.killpg(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main(sys.argv[1:])
