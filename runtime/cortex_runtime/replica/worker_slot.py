"""A slot of the worker pool: it starts a worker process, watches it, and replaces it when it exits.

A dead worker is detected here: `WorkerSlot._run_worker` waits for the exit of the process, and `WorkerSlot._run` starts the next
one. The pool calls `WorkerSlot.check` periodically, which only detects a worker that hangs.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable
from functools import partial

from cortex_runtime.backoff import backoff
from cortex_runtime.errors import StartError
from cortex_runtime.messages import Command, Drain, Ping, Stop
from cortex_runtime.processes.child_process import ChildProcess, describe_exit
from cortex_runtime.processes.parent_pipe import kill_group
from cortex_runtime.replica.hang_detector import HangDetector

log = logging.getLogger("cortex")

_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 10.0
_STEADY_SECONDS = 1.0
"""Seconds for which a worker must have been ready, and longer than its start took, to be restarted without a pause."""
_DRAIN_REPORTS_SECONDS = 0.2
_REMEMBERED_DEATHS = 100


class WorkerSlot:
    """One worker of a replica, restarted with backoff when its process exits.

    launch: starts a process. on_exit: is called with the process after it has exited. hang_timeout: seconds after which a worker
    may count as hung; None where hangs are not detected.

    is_ready: whether the worker is ready. is_failing: whether the last start failed. first_start: done once the first process is
    ready, or with its StartError. problem: why the worker is not ready. hung: why the worker counts as hung. last_failure: the
    last death or hang and its Unix time; kept while the next worker serves. died_at: the time of the last death by the clock of
    the loop. deaths: Unix times of unexpected deaths.
    """

    def __init__(
        self,
        launch: Callable[[], Awaitable[ChildProcess]],
        on_exit: Callable[[ChildProcess], None],
        hang_timeout: float | None = None,
    ) -> None:
        self._launch = launch
        self._on_exit = on_exit
        self._hang_timeout = hang_timeout
        self._worker: ChildProcess | None = None
        self._hang_detector: HangDetector | None = None
        self._is_draining = self._is_stopping = False
        self._ready_at: float | None = None
        self.is_ready = self.is_failing = False
        self.restarts = 0
        self.problem: StartError | None = None
        self.hung: StartError | None = None
        self.last_failure: tuple[StartError, float] | None = None
        self.died_at = float("-inf")
        self.deaths: deque[float] = deque(maxlen=_REMEMBERED_DEATHS)
        self.first_start: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.task = asyncio.create_task(self._run())

    @property
    def is_serving(self) -> bool:
        """Whether the worker is ready and not hung."""
        return self.is_ready and self.hung is None

    def send(self, command: Command) -> None:
        """Send a command to the worker. `Drain` is also sent to the next ones; after `Stop` there is none."""
        if isinstance(command, Drain):
            self._is_draining = True
        elif isinstance(command, Stop):
            self._is_stopping = True
            if not self.is_ready:
                self.kill()
        if self._worker is not None:
            self._worker.send(command)

    def kill(self) -> None:
        """Kill the worker and do not replace it."""
        self._is_stopping = True
        if self._worker is not None:
            self._worker.kill()

    def check(self, seconds: float) -> None:
        """Check whether the worker hangs, and abort it after a while. seconds: since the last check."""
        worker, hang_detector = self._worker, self._hang_detector
        if not self.is_ready or worker is None or hang_detector is None:
            return
        hang_detector.advance(seconds)
        problem = hang_detector.problem()
        if problem is not None and self.hung is None:
            self.last_failure = problem, time.time()
            log.error("process %s: %s", worker.process.pid, problem.message)
        elif problem is None and self.hung is not None:
            log.info("process %s responds again", worker.process.pid)
        self.hung = problem
        if hang_detector.is_expired and not worker.is_aborted:
            worker.abort()

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        pauses = backoff(_FIRST_PAUSE, _LONGEST_PAUSE)
        while not self._is_stopping:
            began = loop.time()
            self._ready_at = None
            try:
                await self._run_once()
            except StartError as error:
                self.problem, self.is_failing = error, True
                if not self.first_start.done():
                    self.first_start.set_exception(error)
                    return
                if not self._is_stopping:
                    log.error("failed to restart a worker: %s", error)
            if self._is_stopping:
                return
            ready_at = self._ready_at
            if ready_at is not None and loop.time() - ready_at > max(_STEADY_SECONDS, ready_at - began):
                pauses = backoff(_FIRST_PAUSE, _LONGEST_PAUSE)
            else:
                await asyncio.sleep(next(pauses))
            self.restarts += 1

    async def _run_once(self) -> None:
        """Start a process and wait until it has exited. Raises StartError."""
        try:
            self._worker = worker = await self._launch()
        except OSError as error:
            raise StartError(
                "HandlerInitError", f"failed to start a worker process: {error.strerror}"
            ) from error
        try:
            await self._run_worker(worker)
        finally:
            self.is_ready, self.hung, self._hang_detector = False, None, None
            kill_group(worker.process.pid)
            self._on_exit(worker)
            worker.control.close()

    async def _run_worker(self, worker: ChildProcess) -> None:
        if self._is_stopping:
            worker.kill()
        await worker.wait_until_ready()
        if self._hang_timeout is not None:
            self._hang_detector = HangDetector(partial(worker.send, Ping()), self._hang_timeout)
            worker.on_pong = self._hang_detector.on_pong
        self.is_ready, self.is_failing, self.problem = True, False, None
        self._ready_at = asyncio.get_running_loop().time()
        if self._is_draining:
            worker.send(Drain())
        if not self.first_start.done():
            self.first_start.set_result(None)
        reading = asyncio.create_task(worker.read_reports())
        status = await worker.process.wait()
        # Its last reports may still be unread, but a child process may keep the channel open.
        await asyncio.wait((reading,), timeout=_DRAIN_REPORTS_SECONDS)
        reading.cancel()
        self.died_at = asyncio.get_running_loop().time()
        if not self._is_stopping:
            message = f"a worker {describe_exit(status)} and is being restarted"
            self.problem = self.hung or worker.failure("CrashLoop", message, status)
            self.last_failure = self.problem, time.time()
            self.deaths.append(self.last_failure[1])
            log.error("process %s: %s", worker.process.pid, self.problem.message)
