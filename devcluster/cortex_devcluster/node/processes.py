"""The processes of containers. Each has its own process group, and none outlives the dev cluster."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path

from cortex_cli.local.process_guard import Guard, kill_group


class Processes:
    """Starts and signals process groups."""

    def __init__(self) -> None:
        self._guard = Guard()

    async def start(
        self, command: Sequence[str], env: Mapping[str, str], cwd: Path, log: Path
    ) -> asyncio.subprocess.Process:
        """Start a process and append its output to `log`. Raises OSError if it cannot start."""
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
        self._guard.watch(process.pid)
        return process

    def signal(self, process: asyncio.subprocess.Process, number: signal.Signals) -> None:
        """Send SIGKILL to the whole group, another signal to its leader only."""
        if number == signal.SIGKILL:
            kill_group(process.pid)
        elif process.returncode is None:
            process.send_signal(number)

    def ended(self, process: asyncio.subprocess.Process) -> None:
        """Kill the remaining processes of a group after its leader exited."""
        kill_group(process.pid)
        self._guard.forget(process.pid)

    def close(self) -> None:
        """Kill all groups."""
        self._guard.close()
