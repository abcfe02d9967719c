"""Reaps the processes that the first process of a container adopts: those of user code whose parent has exited.

Otherwise each remains as a zombie until the container ends, and they count for its limit of processes.
"""

import contextlib
import os
from pathlib import Path


class OrphanReaper:
    """Does nothing in a process that is not the first one of its container."""

    def __init__(self) -> None:
        self._zombies: set[int] = set()

    def reap(self) -> None:
        """Reap the children that were zombies at the last call too. A process that this one waits for is reaped at once."""
        if os.getpid() != 1:
            return
        zombies = {pid for pid in _children() if _is_zombie(pid)}
        for pid in zombies & self._zombies:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
        self._zombies = zombies


def _children() -> list[int]:
    found: list[int] = []
    for file in Path("/proc/self/task").glob("*/children"):
        with contextlib.suppress(OSError):
            found += map(int, file.read_text().split())
    return found


def _is_zombie(pid: int) -> bool:
    try:
        # The name is in parentheses and may contain anything.
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return False
