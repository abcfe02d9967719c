"""Ends the processes of a supervisor when it exits, even if it is killed and cannot end them.

The supervisor keeps a pipe open. Each process that it starts opens the pipe too and asks the kernel to send SIGKILL to its
process group when the supervisor's end is closed (F_SETSIG, see fcntl(2)). This needs no thread and no interpreter lock, so it
works while user code blocks, and it reaches child processes of that code. Without F_SETSIG a thread polls the parent process.

As a program, it runs a command that exits with this process. It imports only the standard library.
"""

import fcntl
import os
import signal
import sys
import threading
import time
from collections.abc import Sequence

_POLL_SECONDS = 0.5


class ParentPipe:
    """The supervisor's end of the pipe. name: the path by which child processes open it."""

    def __init__(self) -> None:
        self._ends = os.pipe()
        self.name = f"/proc/{os.getpid()}/fd/{self._ends[0]}"

    def command(self, command: Sequence[str]) -> list[str]:
        """Return the command line that runs a command which exits with this process. It must lead its own process group."""
        # -I: no module in the working directory may shadow one of the standard library.
        return [sys.executable, "-IS", __file__, self.name, *command]


def exit_with_parent(name: str) -> int | None:
    """Kill this process, and its group if it leads one, when the parent process with the ParentPipe of this name exits.

    Return the descriptor that must stay open, or None where a thread polls the parent.
    """
    parent = int(name.split("/")[2])
    try:
        descriptor = os.open(name, os.O_RDONLY | os.O_NONBLOCK)
        fcntl.fcntl(descriptor, fcntl.F_SETOWN, -os.getpid() if _leads() else os.getpid())
        fcntl.fcntl(descriptor, fcntl.F_SETSIG, signal.SIGKILL)
        fcntl.fcntl(descriptor, fcntl.F_SETFL, os.O_ASYNC | os.O_NONBLOCK)
    except (OSError, AttributeError):
        # Not on Linux, no /proc, or the parent has exited already, which the thread detects.
        threading.Thread(target=_poll, args=(parent,), name="parent-pipe", daemon=True).start()
        return None
    try:
        gone = os.read(descriptor, 1) == b""
    except BlockingIOError:
        gone = False
    if gone:
        _kill()
    return descriptor


def _poll(parent: int) -> None:
    is_child = os.getppid() == parent  # In a fork, the parent is the template process.
    while os.getppid() == parent if is_child else _runs(parent):
        time.sleep(_POLL_SECONDS)
    _kill()


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except OSError as error:
        return isinstance(error, PermissionError)
    return True


def _leads() -> bool:
    return os.getpgrp() == os.getpid()


def _kill() -> None:
    if _leads():
        os.killpg(0, signal.SIGKILL)
    os._exit(1)


def kill_group(leader: int) -> None:
    """Kill the remaining processes of the group whose leader has exited."""
    try:
        os.killpg(leader, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        # The group is empty, or has only a zombie (macOS).
        return


def main(name: str, *command: str) -> None:
    """Replace this process by the command, which inherits the descriptor."""
    descriptor = exit_with_parent(name)
    if descriptor is not None:
        os.set_inheritable(descriptor, True)
    try:
        os.execvp(command[0], command)
    except OSError as error:
        sys.exit(f"failed to run {command[0]}: {error.strerror}")


if __name__ == "__main__":
    main(*sys.argv[1:])
