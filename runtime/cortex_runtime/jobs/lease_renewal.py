"""Renews the leases of running jobs, and publishes their progress. Part of the consumer.

`Dispatcher._wait_for_change` (dispatcher.py) renews the lease of a job that still waits for a process.
"""

import asyncio
import logging
import math
import time
from dataclasses import dataclass

from cortex_runtime.jobs.job_process import JobProcess, RunningJob
from cortex_runtime.queues.base import LeaseLost, QueueError
from cortex_runtime.queues.claims import Job
from cortex_runtime.queues.queue import Queue

log = logging.getLogger("cortex")

_CHECK_SECONDS = 0.1
"""Seconds after which a running job is recorded as in progress, and between two checks of the running jobs."""
_PROGRESS_SECONDS = 1.0


@dataclass(eq=False)
class RenewedLease:
    """The lease of a job that a process runs.

    due: monotonic time of the next renewal. progress_due: the same if the job has reported progress since the last one.
    """

    job: Job
    worker: JobProcess
    running: RunningJob
    due: float
    progress_due: float
    renewal: "asyncio.Task[None] | None" = None


class LeaseRenewal:
    """Renews leases while there are any, with one task for all of them. seconds: between two renewals of a lease."""

    def __init__(self, queue: Queue) -> None:
        self.seconds = queue.settings.lease / 3
        self._queue = queue
        # One job can have two: a lost lease may not be removed yet when the job runs again.
        self._leases: set[RenewedLease] = set()
        self._task: asyncio.Task[None] | None = None

    def start(self, job: Job, worker: JobProcess, running: RunningJob) -> RenewedLease:
        """Start to renew the lease of a job. If the lease is lost, the job is cancelled in its process."""
        now = time.monotonic()
        first = _CHECK_SECONDS if job.revision is None else self.seconds
        lease = RenewedLease(job, worker, running, now + first, now)
        self._leases.add(lease)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run())
        return lease

    async def stop(self, lease: RenewedLease) -> None:
        """Stop renewing a lease, and cancel a renewal in progress."""
        self._leases.remove(lease)
        if lease.renewal is not None:
            lease.renewal.cancel()
            await asyncio.gather(lease.renewal, return_exceptions=True)

    async def _run(self) -> None:
        while self._leases:
            await asyncio.sleep(_CHECK_SECONDS)
            now = time.monotonic()
            for lease in self._leases:
                is_due = now >= lease.due or (lease.running.has_news and now >= lease.progress_due)
                if is_due and lease.renewal is None:
                    lease.renewal = asyncio.create_task(self._renew(lease))

    async def _renew(self, lease: RenewedLease) -> None:
        job, running = lease.job, lease.running
        running.has_news = False
        try:
            await self._queue.renew(job, running.progress, running.note)
        except LeaseLost:
            lease.worker.cancel(running)
            # Nothing is left to renew.
            lease.due = lease.progress_due = math.inf
        except QueueError as error:
            log.warning("failed to renew the lease of job %s: %s", job.id, error)
        else:
            lease.due = time.monotonic() + self.seconds
            lease.progress_due = time.monotonic() + min(_PROGRESS_SECONDS, self.seconds)
        finally:
            lease.renewal = None
