"""Takes jobs from the queue, gives them to processes, holds them meanwhile, and writes down how they ended. Runs in the
consumer.

A job whose last attempt ended with its process gets a process for itself, so that it takes no other job along again and again.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from cortex_runtime.jobs.job_workers import Done, Failed, JobWorker, Outcome, Running, WorkerGone
from cortex_runtime.jobs.metrics import ConsumerMetrics
from cortex_runtime.queues.base import Full, LeaseLost, QueueError, Unreachable
from cortex_runtime.queues.queue import CRASHED, Job, Queue

log = logging.getLogger("cortex")

_TAKE_SECONDS = 1.0
_PAUSE, _LONGEST_PAUSE = 0.1, 2.0
_PROGRESS_SECONDS = 1.0
_GIVE_BACK_SECONDS = 10.0


@dataclass
class _Place:
    """A process, and the job that it is kept free for."""

    worker: JobWorker
    kept_for: str = ""


@dataclass
class Dispatcher:
    """limit: jobs in hand at the same time, in all processes. problem: why the queue can't be reached, if so."""

    queue: Queue
    metrics: ConsumerMetrics
    limit: int
    problem: str = "it has not been reached yet"
    _places: list[_Place] = field(default_factory=list)
    _tasks: set["asyncio.Task[None]"] = field(default_factory=set)
    _changed: asyncio.Event = field(default_factory=asyncio.Event)
    _stopping: bool = False
    _giving_up: bool = False

    def notice(self, worker: JobWorker) -> None:
        """A process got ready, ended a job, or is gone."""
        known = [place for place in self._places if place.worker is worker]
        if worker.ready and not known:
            self._places.append(_Place(worker))
        elif not worker.ready and known:
            self._places.remove(known[0])
        self._changed.set()

    def running(self) -> int:
        """Jobs in hand."""
        return len(self._tasks)

    async def run(self) -> None:
        """Reach the queue, and work until `stop`."""
        await self._reach()
        pause = _PAUSE
        while not self._stopping:
            if not (room := self._room()):
                self._changed.clear()
                await self._changed.wait()
                continue
            try:
                jobs = await self.queue.take(room, _TAKE_SECONDS)
                self.problem = ""
                pause = _PAUSE
            except QueueError as error:
                if not self.problem:
                    log.error("the queue can't be reached, and is tried again: %s", error)
                self.problem = str(error)
                await asyncio.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)
                # A server that came back with an empty disk has no streams; where there is one, nothing changes.
                await self._reach()
                continue
            for job in jobs:
                task = asyncio.create_task(self._work(job))
                self._tasks.add(task)
                task.add_done_callback(self._over)

    def stop(self) -> None:
        """Take no more jobs."""
        self._stopping = True
        self._changed.set()

    async def drain(self, grace: float, kill: Callable[[], None]) -> None:
        """Wait for what is in hand, so many seconds at most; the rest is given back to the queue. kill: ends the processes."""
        self.stop()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=grace)
        if self._tasks:
            log.warning("%d jobs were not finished within %g s, and are given back", len(self._tasks), grace)
            self._giving_up = True
            self._changed.set()
            kill()
            await asyncio.wait(self._tasks, timeout=_GIVE_BACK_SECONDS)

    async def _reach(self) -> None:
        pause = _PAUSE
        while not self._stopping:
            try:
                await self.queue.backend.open()
                self.problem = ""
                return
            except QueueError as error:
                if self.problem != str(error):
                    log.error("the queue can't be reached, and is tried again: %s", error)
                self.problem = str(error)
                await asyncio.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)

    def _room(self) -> int:
        free = sum(place.worker.free for place in self._places if not place.kept_for)
        return max(0, min(free, self.limit - len(self._tasks)))

    def _over(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        self._changed.set()
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a job could not be worked off", exc_info=error)

    async def _work(self, job: Job) -> None:
        """The whole of one attempt."""
        began = time.monotonic()
        self.metrics.started(job.record.attempt, job.record.updated - job.record.submitted)
        holding = None
        try:
            worker = await self._worker_for(job)
            if worker is None:
                await self.queue.hand_back(job)
                self.metrics.attempted("handed_back", time.monotonic() - began)
                return
            running = worker.begin(job.id, job.ticket.payload.type, job.payload)
            # Only the process needs it from here on.
            job.payload = b""
            holding = asyncio.create_task(self._hold(job, worker, running))
            outcome = await self._outcome(job, running)
            how = await self._end(job, outcome)
        except LeaseLost:
            how = "lost"
            log.warning("job %s was cancelled, or is somebody else's by now; what it gave is dropped", job.id)
        except QueueError as error:
            how = "lost"
            log.error("the end of job %s could not be stored; it will run again: %s", job.id, error)
        finally:
            for place in self._places:
                if place.kept_for == job.id:
                    place.kept_for = ""
            if holding is not None:
                holding.cancel()
                await asyncio.gather(holding, return_exceptions=True)
        self.metrics.attempted(how, time.monotonic() - began)

    async def _outcome(self, job: Job, running: Running) -> Outcome | None:
        """How an attempt ended; None when it was broken off to be given back."""
        try:
            return await running.outcome
        except WorkerGone as error:
            if self._giving_up:
                return None
            log.error("the process that worked on job %s %s", job.id, error)
            return Failed(CRASHED, f"the process that worked on it {error}", True)

    async def _end(self, job: Job, outcome: Outcome | None) -> str:
        """Write down how an attempt ended; gives it in a word."""
        if outcome is None:
            await self.queue.hand_back(job)
            return "handed_back"
        if isinstance(outcome, Done):
            try:
                await self.queue.complete(job, outcome.result)
                self._ended(job)
                return "completed"
            except (Full, Unreachable) as error:
                outcome = Failed("ResultNotStored", f"the result could not be stored: {error}", True)
        if outcome.again and await self.queue.retry(job, outcome.reason, outcome.message):
            log.warning("job %s will be tried again: %s", job.id, outcome.message)
            return "retried"
        if not outcome.again:
            await self.queue.fail(job, outcome.reason, outcome.message)
        log.error("job %s failed: %s", job.id, job.record.message, extra={"reason": outcome.reason})
        self._ended(job, outcome.reason if outcome.again else "")
        return "failed"

    def _ended(self, job: Job, dead: str = "") -> None:
        self.metrics.ended(job.record.status.value, job.record.updated - job.record.submitted, dead)

    async def _worker_for(self, job: Job) -> JobWorker | None:
        """The process for a job, once there is one; None when there will be none any more."""
        while not self._giving_up:
            usable = [p for p in self._places if p.worker.ready and not p.worker.stopping]
            if (place := _choose(usable, job)) is not None:
                return place.worker
            if self._stopping and not usable:
                return None
            self._changed.clear()
            await self._waiting(job)
        return None

    async def _waiting(self, job: Job) -> None:
        """Until something changes, with the job held."""
        try:
            async with asyncio.timeout(self.queue.settings.lease / 3):
                await self._changed.wait()
        except TimeoutError:
            await self.queue.renew(job)

    async def _hold(self, job: Job, worker: JobWorker, running: Running) -> None:
        """Renew the lease while the job runs, and sooner when there is progress to tell."""
        every = self.queue.settings.lease / 3
        due = time.monotonic() + every
        while True:
            await asyncio.sleep(min(_PROGRESS_SECONDS, every))
            if not running.reported and time.monotonic() < due:
                continue
            running.reported = False
            try:
                await self.queue.renew(job, running.progress, running.note)
            except LeaseLost:
                worker.cancel(job.id)
                return
            except QueueError as error:
                log.warning("the lease of job %s could not be renewed: %s", job.id, error)
            else:
                due = time.monotonic() + every


def _choose(usable: list[_Place], job: Job) -> _Place | None:
    """Where a job runs now; a suspect one where nothing else does, which may have to be kept free for it first."""
    if not job.suspect:
        free = [place for place in usable if place.worker.free and not place.kept_for]
        return max(free, key=lambda place: place.worker.free) if free else None
    own = [place for place in usable if place.kept_for == job.id]
    if not own:
        own = sorted((p for p in usable if not p.kept_for), key=lambda place: len(place.worker.jobs))[:1]
    for place in own:
        place.kept_for = job.id
        if not place.worker.jobs:
            return place
    return None
