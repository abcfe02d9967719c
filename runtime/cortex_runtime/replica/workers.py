"""Worker processes as the supervisor sees them: one process with its control channel, and the seat that is always taken again."""

import asyncio
import json
import logging
import os
import signal
import socket
import sys
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from cortex_runtime.errors import StartError
from cortex_runtime.mailboxes import Mailboxes
from cortex_runtime.metrics.shared_memory import SharedMetrics
from cortex_runtime.processes import oom
from cortex_runtime.processes.lifeline import end_group
from cortex_runtime.processes.worker_arguments import WorkerArguments
from cortex_runtime.replica.watchdog import Watchdog

log = logging.getLogger("cortex")

_FIRST_PAUSE, _LONGEST_PAUSE, _STEADY_SECONDS = 0.1, 10.0, 30.0
_ABORT_SECONDS = 2.0
_REMEMBERED_ENDS = 100


def _ignore(report: dict[str, Any]) -> None:
    pass


@dataclass
class Worker:
    """A running worker process."""

    process: asyncio.subprocess.Process
    control: asyncio.StreamWriter
    reports: asyncio.StreamReader
    slot: int
    on_report: Callable[[dict[str, Any]], None] = _ignore
    kills: int = field(init=False, default_factory=oom.count)
    watchdog: Watchdog | None = field(init=False, default=None)
    ending: bool = field(init=False, default=False)

    async def started(self) -> None:
        """Wait until it answers. Raises StartError with its reason, or with how the process ended."""
        while line := await self.reports.readline():
            report = json.loads(line)
            if report["event"] == "ready":
                return
            if report["event"] == "failed":
                await self.process.wait()
                raise StartError(report["reason"], report["message"])
            self.on_report(report)
        status = await self.process.wait()
        raise self.failure("HandlerInitError", f"a worker {ending(status)} while it started", status)

    def failure(self, reason: str, message: str, status: int) -> StartError:
        """Why it has ended: this, unless it is known that it was killed for memory."""
        if status != -signal.SIGKILL or oom.count() == self.kills:
            return StartError(reason, message)
        return StartError(
            "OutOfMemory",
            "a worker was killed: the container needed more memory than its limit. Raise compute.mem or need less",
        )

    async def listen(self) -> None:
        """Pass on what it reports after it has started."""
        while line := await self.reports.readline():
            report = json.loads(line)
            if report["event"] != "alive":
                self.on_report(report)
            elif self.watchdog is not None:
                self.watchdog.on_answer(report["busy"], report["finished"])

    def end_with_stacks(self) -> None:
        """End a process that hangs: SIGABRT has it write the stack of each thread to its log, and SIGKILL follows."""
        self.ending = True
        self.process.send_signal(signal.SIGABRT)
        asyncio.get_running_loop().call_later(_ABORT_SECONDS, self._kill)

    def _kill(self) -> None:
        if self.process.returncode is None:
            self.process.kill()

    def tell(self, order: str) -> None:
        """Send an order: drain, models, ping or stop."""
        if not self.control.is_closing():
            self.control.write(order.encode() + b"\n")


def ending(status: int) -> str:
    """How a process ended, in words."""
    if status >= 0:
        return f"exited with status {status}"
    name = signal.Signals(-status).name
    return f"was killed by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")


async def start(
    arguments: WorkerArguments,
    listener: socket.socket,
    shared_metrics: SharedMetrics,
    mailboxes: Mailboxes,
    slot: int,
    on_report: Callable[[dict[str, Any]], None],
) -> Worker:
    """Start a worker process; it is not ready yet. on_report: is given its reports, but for those about its start."""
    ours, theirs = socket.socketpair()
    arguments = replace(
        arguments,
        listener=listener.fileno(),
        metrics=shared_metrics.descriptor,
        control=theirs.fileno(),
        slot=slot,
        slots=shared_metrics.slots,
        mailboxes=mailboxes.descriptors,
    )
    shared = [end for ends in mailboxes.descriptors for end in ends]
    with theirs:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "cortex_runtime.serving.worker",
            arguments.to_json(),
            pass_fds=(arguments.listener, arguments.metrics, arguments.control, *shared),
            stdin=asyncio.subprocess.DEVNULL,
            # Ctrl-C reaches the supervisor alone, which drains.
            start_new_session=True,
        )
    reader, writer = await asyncio.open_connection(sock=ours)
    return Worker(process, writer, reader, slot, on_report)


class WorkerSlot:
    """One of the replica's workers: when the process dies, the next takes its place, after a pause that grows.

    ready: whether its worker serves. stuck: whether the next one can't start. lost_at: when its last worker died, in seconds of
    the loop's clock. lost: why, and when in seconds since the epoch; it stays when the next worker serves. ends: when its
    workers died. hung: why its worker counts as hung. patience: seconds after which one may; None where that is not watched.
    """

    def __init__(
        self,
        launch: Callable[[], "asyncio.Future[Worker]"],
        vacate: Callable[[int], None],
        patience: float | None = None,
    ) -> None:
        self._launch = launch
        self._vacate = vacate
        self._worker: Worker | None = None
        self._leaving = False
        self.ready = self.stuck = False
        self.lost_at = float("-inf")
        self.lost: tuple[StartError, float] | None = None
        self.ends: deque[float] = deque(maxlen=_REMEMBERED_ENDS)
        self.hung: StartError | None = None
        self._patience = patience
        self.restarts = 0
        self.problem: StartError | None = None
        self.first: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.task = asyncio.create_task(self._keep())

    def tell(self, order: str) -> None:
        """Send an order to the worker; after "stop" the seat stays empty."""
        if order == "stop":
            self._leaving = True
            if not self.ready:
                self.kill()
        if self._worker is not None:
            self._worker.tell(order)

    @property
    def answers(self) -> bool:
        """Whether its worker serves and does not hang."""
        return self.ready and self.hung is None

    def watch(self, seconds: float) -> None:
        """Look whether the worker hangs, and end it when it has done so for long. seconds: since the last look."""
        worker = self._worker
        if not self.ready or worker is None or worker.watchdog is None:
            return
        worker.watchdog.advance(seconds)
        problem = worker.watchdog.problem()
        if problem is not None and self.hung is None:
            self.lost = problem, time.time()
            log.error("process %s: %s", worker.process.pid, problem.message)
        elif problem is None and self.hung is not None:
            log.info("process %s answers again", worker.process.pid)
        self.hung = problem
        if worker.watchdog.is_over and not worker.ending:
            worker.end_with_stacks()

    def kill(self) -> None:
        """End the worker at once."""
        self._leaving = True
        if self._worker is not None and self._worker.process.returncode is None:
            self._worker.process.kill()

    async def _keep(self) -> None:
        loop = asyncio.get_running_loop()
        pause = _FIRST_PAUSE
        while not self._leaving:
            began = loop.time()
            self._worker = worker = await self._launch()
            try:
                if self._leaving:
                    worker.process.kill()
                await worker.started()
                if self._patience is not None:
                    worker.watchdog = Watchdog(partial(worker.tell, "ping"), self._patience)
                self.ready, self.stuck, self.problem = True, False, None
                if not self.first.done():
                    self.first.set_result(None)
                listening = asyncio.create_task(worker.listen())
                status = await worker.process.wait()
                # Its last reports may not be read yet; and a child of it may hold the channel open.
                await asyncio.wait((listening,), timeout=0.2)
                listening.cancel()
                self.lost_at = loop.time()
                if not self._leaving:
                    said = f"a worker {ending(status)} and is being started again"
                    self.problem = self.hung or worker.failure("CrashLoop", said, status)
                    self.lost = self.problem, time.time()
                    self.ends.append(self.lost[1])
                    log.error("process %s: %s", worker.process.pid, self.problem.message)
            except StartError as error:
                self.problem, self.stuck = error, True
                if not self.first.done():
                    self.first.set_exception(error)
                    return
                log.error("a worker can't start again: %s", error)
            finally:
                self.ready, self.hung = False, None
                end_group(worker.process.pid)
                self._vacate(worker.slot)
                worker.control.close()
            if self._leaving:
                return
            if loop.time() - began > _STEADY_SECONDS:
                pause = _FIRST_PAUSE
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)
            self.restarts += 1


def listen(host: str, port: int) -> socket.socket:
    """The socket that all workers accept from. Raises OSError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((host, port))
    listener.listen(2048)
    os.set_inheritable(listener.fileno(), True)
    return listener
