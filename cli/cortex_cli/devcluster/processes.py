"""Process groups that never outlive the dev cluster.

Every container is the leader of its own group. A guard, a tiny process of its own, knows all groups through a pipe and kills
what is left of them when the pipe closes, however the dev cluster came to its end.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

_GUARD = """
import os, signal, sys
groups = set()
for line in sys.stdin:
    (groups.add if line[0] == "+" else groups.discard)(int(line[1:]))
for group in groups:
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        pass
"""


class Processes:
    """Starts and signals process groups; `close` ends them all."""

    def __init__(self) -> None:
        command = [sys.executable, "-S", "-c", _GUARD]
        self._guard = subprocess.Popen(command, stdin=subprocess.PIPE, text=True, start_new_session=True)

    def _tell(self, line: str) -> None:
        assert self._guard.stdin is not None
        self._guard.stdin.write(line + "\n")
        self._guard.stdin.flush()

    async def start(
        self, command: Sequence[str], env: Mapping[str, str], cwd: Path, log: Path
    ) -> asyncio.subprocess.Process:
        """A process with both outputs appended to `log`. Raises OSError when it can't start."""
        with log.open("ab") as output:
            process = await asyncio.create_subprocess_exec(
                *command,
                env=dict(env),
                cwd=cwd,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        self._tell(f"+{process.pid}")
        return process

    def signal(self, process: asyncio.subprocess.Process, number: signal.Signals) -> None:
        """Signals the whole group for SIGKILL, its leader otherwise (as a container's first process)."""
        try:
            if number == signal.SIGKILL:
                os.killpg(process.pid, number)
            elif process.returncode is None:
                process.send_signal(number)
        except ProcessLookupError:
            return

    def ended(self, process: asyncio.subprocess.Process) -> None:
        """Kills what the leader left behind and forgets the group."""
        self.signal(process, signal.SIGKILL)
        self._tell(f"-{process.pid}")

    def close(self) -> None:
        assert self._guard.stdin is not None
        self._guard.stdin.close()
        self._guard.wait()
