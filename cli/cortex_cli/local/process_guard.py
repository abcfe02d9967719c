"""Clean up process groups and a folder when the current process exits, even if it is killed.

A guard is a small separate process that receives the process group ids through a pipe. When the pipe closes, it kills the
remaining groups and removes the folder. `cortex run` and the dev cluster use it for their child processes.
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
    """Kill registered process groups and remove a folder when the owner exits.

    folder: the folder to remove, if any.
    """

    def __init__(self, folder: Path | None = None) -> None:
        command = [sys.executable, "-S", "-c", _GUARD, *([str(folder)] if folder else [])]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, text=True, start_new_session=True)

    def watch(self, group: int) -> None:
        """Register a process group by the pid of its leader."""
        self._send(f"+{group}")

    def forget(self, group: int) -> None:
        """Unregister a process group that has exited."""
        self._send(f"-{group}")

    def close(self) -> None:
        """Kill the remaining process groups and wait until the guard has exited."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def _send(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()


def kill_group(leader: int) -> None:
    """Send SIGKILL to a process group, if it still exists."""
    try:
        os.killpg(leader, signal.SIGKILL)
    except ProcessLookupError:
        return
