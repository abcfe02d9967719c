"""A worker process as its supervisor sees it. Used for workers that serve requests and for workers that run jobs. launcher.py
starts it."""

import asyncio
import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from cortex_runtime import messages
from cortex_runtime.errors import StartError
from cortex_runtime.messages import Command, Message, Pong, Ready, StartFailed
from cortex_runtime.processes import oom
from cortex_runtime.processes.template_process import UNKNOWN_STATUS, ForkedProcess

Process = asyncio.subprocess.Process | ForkedProcess

_ABORT_SECONDS = 2.0
"""Seconds between SIGABRT and SIGKILL."""


class Spawned(NamedTuple):
    """A process and both directions of its control channel."""

    process: Process
    control: asyncio.StreamWriter
    reports: asyncio.StreamReader


def _ignore(report: Message) -> None:
    pass


@dataclass
class ChildProcess:
    """A running worker process. slot: its index in the shared metrics. on_report: called with the reports that the process
    does not handle itself.
    """

    process: Process
    control: asyncio.StreamWriter
    reports: asyncio.StreamReader
    slot: int
    on_report: Callable[[Message], None] = _ignore
    on_pong: Callable[[Pong], None] = field(init=False, default=_ignore)
    is_aborted: bool = field(init=False, default=False)
    _oom_count: int = field(init=False, default_factory=oom.count_kills)

    async def wait_until_ready(self) -> None:
        """Wait until the worker is ready. Raises StartError with its reason, or with how the process exited."""
        while (report := await messages.receive(self.reports)) is not None:
            if isinstance(report, Ready):
                return
            if isinstance(report, StartFailed):
                await self.process.wait()
                raise StartError(report.reason, report.message)
            self.on_report(report)
        status = await self.process.wait()
        raise self.failure("HandlerInitError", f"a worker {describe_exit(status)} while it started", status)

    def failure(self, reason: str, message: str, status: int) -> StartError:
        """Return this reason and message, or OutOfMemory when the kernel has killed a process since the worker started."""
        if status != -signal.SIGKILL or oom.count_kills() == self._oom_count:
            return StartError(reason, message)
        return StartError(
            "OutOfMemory",
            "a worker was killed because the container exceeded its memory limit; raise compute.mem or use less memory",
        )

    async def read_reports(self) -> None:
        """Dispatch the reports of a worker that is ready, until its channel is closed."""
        while (report := await messages.receive(self.reports)) is not None:
            if isinstance(report, Pong):
                self.on_pong(report)
            elif not self.handle(report):
                self.on_report(report)

    def handle(self, report: Message) -> bool:
        """Handle a report of this kind of worker. Return False for any other report."""
        return False

    def send(self, command: Command) -> None:
        """Send a command; a worker that has exited receives none."""
        if not self.control.is_closing():
            self.control.write(messages.encode(command))

    def abort(self) -> None:
        """End a hung process: on SIGABRT it logs the stack of each thread, and SIGKILL follows."""
        self.is_aborted = True
        self.process.send_signal(signal.SIGABRT)
        asyncio.get_running_loop().call_later(_ABORT_SECONDS, self.kill)

    def kill(self) -> None:
        """Send SIGKILL if the process still runs."""
        if self.process.returncode is None:
            self.process.kill()


def describe_exit(status: int) -> str:
    """Return a description of how a process exited."""
    if status == UNKNOWN_STATUS:
        return "exited (its status is unknown, because its template process had exited before)"
    if status >= 0:
        return f"exited with status {status}"
    name = signal.Signals(-status).name
    return f"was killed by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")
