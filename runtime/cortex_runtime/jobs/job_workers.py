"""A process that works on jobs, as the consumer sees it. What passes between the two goes over the control socket, each
message a line of JSON that may announce so many bytes after it; worker.py is the other end.
"""

import asyncio
import json
import math
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from cortex_runtime.metrics.shared_memory import SharedMetrics
from cortex_runtime.processes.worker_arguments import WorkerArguments
from cortex_runtime.replica.workers import Worker, ending


@dataclass(frozen=True)
class Done:
    """A job's method has returned. result: JSON."""

    result: bytes


@dataclass(frozen=True)
class Failed:
    """A job's method has not returned, or not what it should. again: whether another attempt may help."""

    reason: str
    message: str
    again: bool


Outcome = Done | Failed


class WorkerGone(Exception):
    """The process ended while it worked on the job; the message says how."""


@dataclass
class Running:
    """A job in a process. progress, note: what its method reported last."""

    outcome: "asyncio.Future[Outcome]"
    progress: float | None = None
    note: str = ""
    reported: bool = False


@dataclass
class JobWorker(Worker):
    """One process. capacity: jobs at the same time. changed: called when it gets ready, and when it is gone."""

    capacity: int = 1
    changed: Callable[["JobWorker"], None] = lambda worker: None
    jobs: dict[str, Running] = field(default_factory=dict)
    ready: bool = False
    stopping: bool = False

    async def started(self) -> None:
        """Wait until it can work. Raises StartError."""
        await super().started()
        self.ready = True
        self.changed(self)

    def tell(self, order: str) -> None:
        """Send an order; after "stop" it ends what it works on, and then itself."""
        if order == "stop":
            self.stopping = True
        super().tell(order)

    @property
    def free(self) -> int:
        """Jobs that it can take now."""
        return self.capacity - len(self.jobs) if self.ready and not self.stopping else 0

    def begin(self, identity: str, content_type: str, payload: bytes) -> Running:
        """Give it a job. The outcome is a WorkerGone when the process ends before the job does."""
        running = Running(asyncio.get_running_loop().create_future())
        self.jobs[identity] = running
        head = {"run": identity, "type": content_type, "size": len(payload)}
        self.control.write(json.dumps(head).encode() + b"\n" + payload)
        return running

    def cancel(self, identity: str) -> None:
        """Nobody waits for a job any more; an async method is interrupted, another one runs to its end."""
        if identity in self.jobs and not self.control.is_closing():
            self.control.write(json.dumps({"cancel": identity}).encode() + b"\n")

    async def listen(self) -> None:
        """Take what it reports, until it is gone."""
        try:
            while line := await self.reports.readline():
                report = json.loads(line)
                data = await self.reports.readexactly(report["size"]) if "size" in report else b""
                self._take(report, data)
        except (OSError, asyncio.IncompleteReadError):
            # It died in the middle of a message; how, is told below.
            pass
        finally:
            self.ready = False
            status = await self.process.wait()
            for running in self.jobs.values():
                if not running.outcome.done():
                    running.outcome.set_exception(WorkerGone(ending(status)))
            self.jobs.clear()
            self.changed(self)

    def _take(self, report: dict[str, Any], data: bytes) -> None:
        if "id" not in report:
            self.on_report(report)
            return
        running = self.jobs.get(report["id"])
        if running is None:
            return
        if report["event"] == "progress":
            running.progress, running.note, running.reported = report["progress"], report["note"], True
            return
        del self.jobs[report["id"]]
        if not running.outcome.done():
            running.outcome.set_result(
                Done(data)
                if report["event"] == "done"
                else Failed(report["reason"], report["message"], report["again"])
            )
        self.changed(self)


def jobs_per_process(handler: Any) -> int:
    """How many jobs one process works on at the same time, of a spec's handler."""
    share = math.ceil(handler.max_concurrency / handler.processes_per_replica)
    return int(max(share, handler.threads_per_process))


def jobs_per_replica(handler: Any) -> int:
    """How many jobs all processes together work on at the same time."""
    return int(max(handler.max_concurrency, handler.processes_per_replica * handler.threads_per_process))


async def start(
    arguments: WorkerArguments,
    shared_metrics: SharedMetrics,
    slot: int,
    on_report: Callable[[dict[str, Any]], None],
    capacity: int,
    changed: Callable[[JobWorker], None],
) -> JobWorker:
    """Start a process; it is not ready yet. on_report: is given its reports, but for those about its start and its jobs."""

    ours, theirs = socket.socketpair()
    arguments = replace(
        arguments,
        metrics=shared_metrics.descriptor,
        control=theirs.fileno(),
        slot=slot,
        slots=shared_metrics.slots,
    )
    with theirs:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "cortex_runtime.jobs.worker",
            arguments.to_json(),
            pass_fds=(arguments.metrics, arguments.control),
            stdin=asyncio.subprocess.DEVNULL,
            # Ctrl-C reaches the consumer alone, which drains.
            start_new_session=True,
        )
    reader, writer = await asyncio.open_connection(sock=ours)
    return JobWorker(process, writer, reader, slot, on_report, capacity, changed)
