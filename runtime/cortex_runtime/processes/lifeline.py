"""What the supervisor starts ends with it, however it ends: also when it is killed by force and can end nobody any more.

The supervisor holds a pipe open. Each process that it starts opens the pipe once more and asks the kernel for SIGKILL to its
whole group when the other end is closed (F_SETSIG in fcntl(2)): that takes no thread and no lock of the interpreter, so it
works however the user's code blocks, and it reaches what that code has started. Where there is no such signal, a thread looks
for the parent.

As a program it runs a command that ends so; it knows nothing beyond the standard library.
"""

import fcntl
import os
import signal
import sys
import threading
import time
from collections.abc import Sequence

_LOOK = 0.5
"""Seconds between two looks for the parent."""


class Lifeline:
    """The supervisor's end, which the end of its process closes. name: what its children find it by."""

    def __init__(self) -> None:
        self._ends = os.pipe()
        self.name = f"/proc/{os.getpid()}/fd/{self._ends[0]}"

    def command(self, command: Sequence[str]) -> list[str]:
        """The command line that runs a command which ends with this process. It has to lead a group of its own."""
        # Isolated: whatever folder it starts in, no module of that folder is taken for one of the standard library.
        return [sys.executable, "-IS", __file__, self.name, *command]


def hold(name: str) -> int | None:
    """End this process's group, or where it leads none this process, when its parent goes, who has the Lifeline of that name.

    Returns the descriptor that does it, or None where a thread does.
    """
    parent = int(name.split("/")[2])
    try:
        descriptor = os.open(name, os.O_RDONLY | os.O_NONBLOCK)
        fcntl.fcntl(descriptor, fcntl.F_SETOWN, -os.getpid() if _leads() else os.getpid())
        fcntl.fcntl(descriptor, fcntl.F_SETSIG, signal.SIGKILL)
        fcntl.fcntl(descriptor, fcntl.F_SETFL, os.O_ASYNC | os.O_NONBLOCK)
    except (OSError, AttributeError):
        # No Linux, no /proc, or no parent any more: the thread will see.
        threading.Thread(target=_watch, args=(parent,), name="lifeline", daemon=True).start()
        return None
    try:
        gone = os.read(descriptor, 1) == b""
    except BlockingIOError:
        gone = False
    if gone:
        _end()
    return descriptor


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_LOOK)
    _end()


def _leads() -> bool:
    return os.getpgrp() == os.getpid()


def _end() -> None:
    if _leads():
        os.killpg(0, signal.SIGKILL)
    os._exit(1)


def end_group(leader: int) -> None:
    """End what a process that is gone has left of the group that it led."""
    try:
        os.killpg(leader, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        # Nothing is left, or, on macOS, a zombie.
        return


def main(name: str, *command: str) -> None:
    """Become the command, which goes on holding the line."""
    descriptor = hold(name)
    if descriptor is not None:
        os.set_inheritable(descriptor, True)
    try:
        os.execvp(command[0], command)
    except OSError as error:
        sys.exit(f"{command[0]} can't be run: {error.strerror}")


if __name__ == "__main__":
    main(*sys.argv[1:])
