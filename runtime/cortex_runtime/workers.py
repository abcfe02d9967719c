"""Worker processes as the supervisor sees them: one process with its control channel, and the seat that is always taken again."""

import asyncio
import json
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from cortex_runtime import memory
from cortex_runtime.board import Board
from cortex_runtime.errors import StartError
from cortex_runtime.lifeline import end_group
from cortex_runtime.order import Order

log = logging.getLogger("cortex")

_FIRST_PAUSE, _LONGEST_PAUSE, _STEADY_SECONDS = 0.1, 10.0, 30.0


def _ignore(report: dict[str, Any]) -> None:
    pass


@dataclass
class Worker:
    """A running worker process."""

    process: asyncio.subprocess.Process
    control: asyncio.StreamWriter
    reports: asyncio.StreamReader
    slot: int
    heed: Callable[[dict[str, Any]], None] = _ignore
    kills: int = field(init=False, default_factory=memory.kills)

    async def started(self) -> None:
        """Wait until it answers. Raises StartError with its reason, or with how the process ended."""
        while line := await self.reports.readline():
            report = json.loads(line)
            if report["event"] == "ready":
                return
            if report["event"] == "failed":
                await self.process.wait()
                raise StartError(report["reason"], report["message"])
            self.heed(report)
        status = await self.process.wait()
        raise self.failure("HandlerInitError", f"a worker {ending(status)} while it started", status)

    def failure(self, reason: str, message: str, status: int) -> StartError:
        """Why it has ended: this, unless it is known that it was killed for memory."""
        if status != -signal.SIGKILL or memory.kills() == self.kills:
            return StartError(reason, message)
        return StartError(
            "OutOfMemory",
            "a worker was killed: the container needed more memory than its limit. Raise compute.mem or need less",
        )

    async def listen(self) -> None:
        """Pass on what it reports after it has started."""
        while line := await self.reports.readline():
            self.heed(json.loads(line))

    def tell(self, order: str) -> None:
        """Send an order: drain, models or stop."""
        if not self.control.is_closing():
            self.control.write(order.encode() + b"\n")


def ending(status: int) -> str:
    """How a process ended, in words."""
    if status >= 0:
        return f"exited with status {status}"
    name = signal.Signals(-status).name
    return f"was killed by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")


async def start(
    order: Order, listener: socket.socket, board: Board, slot: int, heed: Callable[[dict[str, Any]], None]
) -> Worker:
    """Start a worker process; it is not ready yet. heed: is given its reports, but for those about its start."""
    ours, theirs = socket.socketpair()
    order = replace(
        order,
        listener=listener.fileno(),
        board=board.descriptor,
        control=theirs.fileno(),
        slot=slot,
        slots=board.rows,
    )
    with theirs:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "cortex_runtime.worker",
            order.to_json(),
            pass_fds=(order.listener, order.board, order.control),
            stdin=asyncio.subprocess.DEVNULL,
            # Ctrl-C reaches the supervisor alone, which drains.
            start_new_session=True,
        )
    reader, writer = await asyncio.open_connection(sock=ours)
    return Worker(process, writer, reader, slot, heed)


class Seat:
    """One of the replica's workers: when the process dies, the next takes its place, after a pause that grows.

    ready: whether its worker serves. stuck: whether the next one can't start. lost_at: when its last worker died, in seconds of
    the loop's clock. lost: why, and when in seconds since the epoch; it stays when the next worker serves.
    """

    def __init__(self, launch: Callable[[], "asyncio.Future[Worker]"], vacate: Callable[[int], None]) -> None:
        self._launch = launch
        self._vacate = vacate
        self._worker: Worker | None = None
        self._leaving = False
        self.ready = self.stuck = False
        self.lost_at = float("-inf")
        self.lost: tuple[StartError, float] | None = None
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
                    self.problem = worker.failure("CrashLoop", said, status)
                    self.lost = self.problem, time.time()
                    log.error("process %s: %s", worker.process.pid, self.problem.message)
            except StartError as error:
                self.problem, self.stuck = error, True
                if not self.first.done():
                    self.first.set_exception(error)
                    return
                log.error("a worker can't start again: %s", error)
            finally:
                self.ready = False
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
