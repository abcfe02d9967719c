"""Process groups and a folder that never outlive the process that made them, however that comes to its end.

A guard, a tiny process of its own, knows them through a pipe; when the pipe closes it kills the groups that are left and
removes the folder. `cortex run` and the dev cluster start what they start under one.
"""

import os
import signal
import subprocess
import sys
from pathlib import Path

_GUARD = """
import os, shutil, signal, sys
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, signal.SIG_IGN)
groups = set()
for line in sys.stdin:
    (groups.add if line[0] == "+" else groups.discard)(int(line[1:]))
for group in groups:
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        pass
if len(sys.argv) > 1:
    shutil.rmtree(sys.argv[1], ignore_errors=True)
"""


class Guard:
    """Ends what it was told of when its owner is gone. folder: removed then."""

    def __init__(self, folder: Path | None = None) -> None:
        command = [sys.executable, "-S", "-c", _GUARD, *([str(folder)] if folder else [])]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, text=True, start_new_session=True)

    def watch(self, group: int) -> None:
        """A process group (the id of its leader) that must not outlive this process."""
        self._tell(f"+{group}")

    def forget(self, group: int) -> None:
        """A group that has ended."""
        self._tell(f"-{group}")

    def close(self) -> None:
        """End what is left; return when it is done."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def _tell(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()


def kill_group(leader: int) -> None:
    """End a whole process group at once, if there is anything left of it."""
    try:
        os.killpg(leader, signal.SIGKILL)
    except ProcessLookupError:
        return
