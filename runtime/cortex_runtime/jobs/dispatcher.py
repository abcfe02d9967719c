"""Takes jobs from the queue, runs them in worker processes and stores their results. Part of the consumer.

A job whose last attempt ended with the exit of its process gets a process of its own, so that it takes no other jobs down.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from cortex_runtime.backoff import backoff
from cortex_runtime.jobs.job_process import JobProcess, Outcome, RunningJob, WorkerExited
from cortex_runtime.jobs.lease_renewal import LeaseRenewal
from cortex_runtime.jobs.metrics import ConsumerMetrics
from cortex_runtime.messages import JobCompleted, JobFailed
from cortex_runtime.queues.base import Full, LeaseLost, QueueError, Unreachable
from cortex_runtime.queues.claims import CRASHED, Job
from cortex_runtime.queues.queue import Queue

log = logging.getLogger("cortex")

_TAKE_SECONDS = 1.0
_PAUSE, _LONGEST_PAUSE = 0.1, 2.0
_RELEASE_SECONDS = 10.0


@dataclass
class _WorkerSlot:
    """A process. reserved_for: the id of the only job that it may run, if any."""

    worker: JobProcess
    reserved_for: str = ""


@dataclass
class Dispatcher:
    """Runs the jobs of a queue. limit: concurrent jobs of all processes. problem: why the queue can't be reached, if so."""

    queue: Queue
    metrics: ConsumerMetrics
    limit: int
    problem: str = "not reached yet"
    _slots: list[_WorkerSlot] = field(default_factory=list)
    _tasks: set["asyncio.Task[None]"] = field(default_factory=set)
    _leases: LeaseRenewal = field(init=False)
    _changed: asyncio.Event = field(default_factory=asyncio.Event)
    _is_stopping: bool = False
    _is_releasing: bool = False

    def __post_init__(self) -> None:
        self._leases = LeaseRenewal(self.queue)

    def on_worker_change(self, worker: JobProcess) -> None:
        """Handle a process that got ready, ended a job or exited."""
        known = [slot for slot in self._slots if slot.worker is worker]
        if worker.is_ready and not known:
            self._slots.append(_WorkerSlot(worker))
        elif not worker.is_ready and known:
            self._slots.remove(known[0])
        self._changed.set()

    def running(self) -> int:
        """Return the number of jobs taken from the queue and not ended."""
        return len(self._tasks)

    async def run(self) -> None:
        """Connect to the queue and run its jobs until `stop`."""
        await self._connect()
        pauses = backoff(_PAUSE, _LONGEST_PAUSE)
        while not self._is_stopping:
            if not (room := self._room()):
                self._changed.clear()
                await self._changed.wait()
                continue
            try:
                jobs = await self.queue.take(room, _TAKE_SECONDS)
                self.problem = ""
                pauses = backoff(_PAUSE, _LONGEST_PAUSE)
            except QueueError as error:
                if not self.problem:
                    log.error("failed to reach the queue; retrying: %s", error)
                self.problem = str(error)
                await asyncio.sleep(next(pauses))
                # A server that restarts with an empty disk has lost its streams; existing ones stay unchanged.
                await self._connect()
                continue
            for job in jobs:
                task = asyncio.create_task(self.run_attempt(job))
                self._tasks.add(task)
                task.add_done_callback(self._on_done)

    def stop(self) -> None:
        """Take no more jobs."""
        self._is_stopping = True
        self._changed.set()

    async def drain(self, grace: float, kill: Callable[[], None]) -> None:
        """Wait for the running jobs and release the rest. grace: seconds to wait. kill: kills the processes."""
        self.stop()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=grace)
        if self._tasks:
            log.warning("%d jobs did not finish within %g s and return to the queue", len(self._tasks), grace)
            self._is_releasing = True
            self._changed.set()
            kill()
            await asyncio.wait(self._tasks, timeout=_RELEASE_SECONDS)

    async def _connect(self) -> None:
        for pause in backoff(_PAUSE, _LONGEST_PAUSE):
            if self._is_stopping:
                return
            try:
                await self.queue.backend.open()
                self.problem = ""
                return
            except QueueError as error:
                if self.problem != str(error):
                    log.error("failed to reach the queue; retrying: %s", error)
                self.problem = str(error)
                await asyncio.sleep(pause)

    def _room(self) -> int:
        free = sum(slot.worker.free for slot in self._slots if not slot.reserved_for)
        return max(0, min(free, self.limit - len(self._tasks)))

    def _on_done(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        self._changed.set()
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("failed to process the job", exc_info=error)

    def start(self, job: Job, worker: JobProcess) -> RunningJob:
        """Start an attempt in a process."""
        return worker.run(job.id, job.record.attempt, job.ticket.payload.type, job.payload)

    async def run_attempt(self, job: Job) -> None:
        """Run one attempt, from choosing a process to storing the result."""
        began = time.monotonic()
        self.metrics.started(job.record.attempt, job.record.updated - job.record.submitted)
        renewed = None
        try:
            worker = await self._worker_for(job)
            if worker is None:
                await self.queue.release(job)
                self.metrics.attempted("released", time.monotonic() - began)
                return
            running = self.start(job, worker)
            # Only the process needs it now; a large payload must not be held twice.
            job.payload = b""
            renewed = self._leases.start(job, worker, running)
            outcome = await self._outcome(job, running)
            how = await self._store_outcome(job, outcome)
        except LeaseLost:
            how = "lost"
            log.warning("job %s was cancelled or is owned by another worker; its result is discarded", job.id)
        except QueueError as error:
            how = "lost"
            log.error("failed to store the result of job %s; it will run again: %s", job.id, error)
        finally:
            for slot in self._slots:
                if slot.reserved_for == job.id:
                    slot.reserved_for = ""
            if renewed is not None:
                await self._leases.stop(renewed)
        self.metrics.attempted(how, time.monotonic() - began)

    async def _outcome(self, job: Job, running: RunningJob) -> Outcome | None:
        """Return the outcome of an attempt; None when the job must be released."""
        try:
            return await running.outcome
        except WorkerExited as error:
            if self._is_releasing:
                return None
            log.error("the process that ran job %s %s", job.id, error)
            return JobFailed(job.id, CRASHED, f"the process that ran it {error}", True)

    async def _store_outcome(self, job: Job, outcome: Outcome | None) -> str:
        """Store the outcome of an attempt. Return its label in the metrics."""
        if outcome is None:
            await self.queue.release(job)
            return "released"
        if isinstance(outcome, JobCompleted):
            try:
                await self.queue.complete(job, outcome.body)
                self._ended(job)
                return "completed"
            except (Full, Unreachable) as error:
                outcome = JobFailed(job.id, "ResultNotStored", f"failed to store the result: {error}", True)
        if outcome.retryable and await self.queue.retry(job, outcome.reason, outcome.message):
            log.warning("job %s will be retried: %s", job.id, outcome.message)
            return "retried"
        if not outcome.retryable:
            await self.queue.fail(job, outcome.reason, outcome.message)
        log.error("job %s failed: %s", job.id, job.record.message, extra={"reason": outcome.reason})
        self._ended(job, outcome.reason if outcome.retryable else "")
        return "failed"

    def _ended(self, job: Job, dead: str = "") -> None:
        self.metrics.ended(job.record.status.value, job.record.updated - job.record.submitted, dead)

    async def _worker_for(self, job: Job) -> JobProcess | None:
        """Wait for the process that runs a job; None when no process is left and none will start."""
        while not self._is_releasing:
            usable = [p for p in self._slots if p.worker.is_ready and not p.worker.is_stopping]
            if (slot := _choose(usable, job)) is not None:
                return slot.worker
            if self._is_stopping and not usable:
                return None
            self._changed.clear()
            await self._wait_for_change(job)
        return None

    async def _wait_for_change(self, job: Job) -> None:
        """Wait until a process changes, and renew the lease meanwhile."""
        try:
            async with asyncio.timeout(self._leases.seconds):
                await self._changed.wait()
        except TimeoutError:
            await self.queue.renew(job)


def _choose(usable: list[_WorkerSlot], job: Job) -> _WorkerSlot | None:
    """Return the slot that can run a job now. A suspect job gets a slot of its own, which is reserved until it is empty."""
    if not job.suspect:
        free = [slot for slot in usable if slot.worker.free and not slot.reserved_for]
        return max(free, key=lambda slot: slot.worker.free) if free else None
    own = [slot for slot in usable if slot.reserved_for == job.id]
    if not own:
        own = sorted((p for p in usable if not p.reserved_for), key=lambda slot: len(slot.worker.jobs))[:1]
    for slot in own:
        slot.reserved_for = job.id
        if not slot.worker.jobs:
            return slot
    return None
