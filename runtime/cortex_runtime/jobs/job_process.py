"""A child process of the consumer that runs jobs; worker_main.py is the other end of the control channel."""

import asyncio
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cortex_runtime import messages
from cortex_runtime.messages import (
    CancelJob,
    Command,
    Describe,
    JobCompleted,
    JobFailed,
    JobProgress,
    Message,
    RunJob,
    RunTracedJob,
    Stop,
)
from cortex_runtime.processes.child_process import ChildProcess, describe_exit

if TYPE_CHECKING:
    from cortex_api.handler import AsyncHandler

Outcome = JobCompleted | JobFailed


class WorkerExited(Exception):
    """The process exited while it ran the job; the message says how."""


@dataclass
class RunningJob:
    """An attempt that a process runs.

    id: unique in the process, which may run two attempts of one job after the first has lost its lease. progress, note: from the
    last report. has_news: whether they have changed since it was reset.
    """

    id: str
    outcome: "asyncio.Future[Outcome]"
    progress: float | None = None
    note: str = ""
    has_news: bool = False


@dataclass
class JobProcess(ChildProcess):
    """One process.

    capacity: jobs that it runs at the same time. on_change: called when it gets ready, ends a job or exits. describes: whether it
    sends the interface of its handler once it is ready.
    """

    capacity: int = 1
    on_change: Callable[["JobProcess"], None] = lambda worker: None
    jobs: dict[str, RunningJob] = field(default_factory=dict)
    describes: bool = False
    is_ready: bool = False
    is_stopping: bool = False
    _attempts: int = 0
    _commands: list[bytes] = field(default_factory=list)

    async def wait_until_ready(self) -> None:
        """Wait until it can run jobs. Raises StartError."""
        await super().wait_until_ready()
        self.is_ready = True
        if self.describes:
            self.send(Describe("", "jobs"))
        self.on_change(self)

    def send(self, command: Command) -> None:
        """Send a command; after `Stop` the process finishes its jobs and exits."""
        if isinstance(command, Stop):
            self.is_stopping = True
        if not self._commands:
            # All commands of one iteration of the loop are sent together.
            asyncio.get_running_loop().call_soon(self._flush)
        self._commands.append(messages.encode(command))

    def _flush(self) -> None:
        if not self.control.is_closing():
            self.control.writelines(self._commands)
        self._commands = []

    @property
    def free(self) -> int:
        """The number of jobs that it can accept now."""
        return self.capacity - len(self.jobs) if self.is_ready and not self.is_stopping else 0

    def run(
        self, job: str, attempt: int, content_type: str, payload: bytes, trace: dict[str, str] | None = None
    ) -> RunningJob:
        """Run an attempt of a job. trace: the trace context.

        The outcome raises WorkerExited when the process exits before the job ends.
        """
        self._attempts += 1
        running = RunningJob(str(self._attempts), asyncio.get_running_loop().create_future())
        self.jobs[running.id] = running
        if trace is None:
            self.send(RunJob(running.id, job, attempt, content_type, payload))
        else:
            self.send(RunTracedJob(running.id, job, attempt, content_type, payload, trace))
        return running

    def cancel(self, running: RunningJob) -> None:
        """Cancel an attempt: an async method is interrupted, any other one runs to its end."""
        if running.id in self.jobs:
            self.send(CancelJob(running.id))

    async def read_reports(self) -> None:
        """Handle all reports until the process has exited."""
        try:
            async for reports in messages.receive_all(self.reports):
                for report in reports:
                    if not self.handle(report):
                        self.on_report(report)
        finally:
            self.is_ready = False
            status = await self.process.wait()
            for running in self.jobs.values():
                if not running.outcome.done():
                    running.outcome.set_exception(WorkerExited(describe_exit(status)))
            self.jobs.clear()
            self.on_change(self)

    def handle(self, report: Message) -> bool:
        """Handle a report about a job. Return False for any other report."""
        if isinstance(report, JobProgress):
            if (running := self.jobs.get(report.id)) is not None:
                running.progress, running.note, running.has_news = report.fraction, report.note, True
            return True
        if not isinstance(report, Outcome):
            return False
        if (running := self.jobs.pop(report.id, None)) is not None:
            if not running.outcome.done():
                running.outcome.set_result(report)
            self.on_change(self)
        return True


def jobs_per_process(handler: "AsyncHandler") -> int:
    """Return the number of jobs that one process runs at the same time. handler: of the spec."""
    share = math.ceil(handler.max_concurrency / handler.processes_per_replica)
    return max(share, handler.threads_per_process)


def jobs_per_replica(handler: "AsyncHandler") -> int:
    """Return the number of jobs that all processes of a replica run at the same time. handler: of the spec."""
    return max(handler.max_concurrency, handler.processes_per_replica * handler.threads_per_process)
