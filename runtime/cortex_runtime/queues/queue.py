"""The jobs of one AsyncAPI, from submission to result, on any backend. Used by the gateway and the consumer; runs no user code.

See base.py for the guarantees. submissions.py accepts jobs, claims.py starts their attempts; webhooks are in hooks.py.
"""

import asyncio
import logging
import os
import time
from collections.abc import Callable
from typing import Any

from cortex_runtime.backoff import pause_after
from cortex_runtime.queues.base import (
    Backend,
    Conflict,
    Content,
    Delivery,
    Depth,
    Entry,
    LeaseLost,
    Missing,
    NewerFormat,
    Record,
    Status,
    Ticket,
)
from cortex_runtime.queues.claims import Claims, Job, exhausted
from cortex_runtime.queues.dead_letters import DeadLetters
from cortex_runtime.queues.hooks import Hooks
from cortex_runtime.queues.records import CANCELLED, PAYLOAD_LOST, Records, Settings, new_record
from cortex_runtime.queues.submissions import Submissions

log = logging.getLogger("cortex")

_FIRST_RETRY, _LONGEST_RETRY = 1.0, 60.0


class Queue:
    """The jobs of one API.

    owner: identity of this worker, unique among all processes. clock: returns Unix time. hooks: the webhooks to deliver.
    dead_letters: the jobs that have failed.
    """

    def __init__(
        self,
        backend: Backend,
        settings: Settings,
        owner: str = "",
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.backend = backend
        self.settings = settings
        owner = owner or f"{os.uname().nodename}-{os.getpid()}-{os.urandom(4).hex()}"
        self._clock = clock
        self._suspects: set[str] = set()
        self._records = Records(backend, settings, clock)
        self.hooks = Hooks(backend, self._records)
        self.dead_letters = DeadLetters(backend, self._records, clock)
        self._submissions = Submissions(backend, self._records, clock)
        self._claims = Claims(backend, settings, self._records, owner, clock)

    # Clients

    async def submit(
        self,
        payload: bytes,
        content_type: str,
        *,
        key: str = "",
        webhook: str = "",
        trace: dict[str, str] | None = None,
        retry_seconds: float = 5.0,
    ) -> str:
        """Accept a job and return its id; from then on the job can't be lost.

        key: idempotency key; the same key returns the same job. trace: the trace context, as headers. retry_seconds: how long an
        unreachable backend is retried.
        Raises OtherRequest, Full and Unreachable (then the job may have been accepted or not).
        """
        return await self._submissions.submit(payload, content_type, key, webhook, retry_seconds, trace)

    async def status(self, identity: str, *, fresh: bool = False) -> Record | None:
        """Return the record of a job; None if it does not exist or ended longer than `retention` ago.

        fresh: read from the leader instead of a replica that may lag.
        """
        found = await self._find(identity, fresh)
        if found is None:
            return None
        record, revision = found
        if (
            revision is not None
            and not record.ended
            and self._clock() - record.updated > 2 * self.settings.lease + 60
        ):
            return await self._records.fail_without_message(record, revision)
        return record

    async def result(self, record: Record) -> bytes:
        """Return the result of a completed job as JSON. Raises Missing."""
        if record.result.stored:
            return await self.backend.get(record.result.stored)
        return record.result.data

    async def wait(self, identity: str, seconds: float) -> Record | None:
        """Return `status` once the job has ended, or after `seconds`."""
        end = time.monotonic() + seconds
        async with self.backend.watch(identity) as changed:
            while True:
                record = await self.status(identity, fresh=True)
                left = end - time.monotonic()
                if record is None or record.ended or left <= 0:
                    return record
                await changed(left)

    async def cancel(self, identity: str) -> Record | None:
        """Fail a job that has not ended, with reason Cancelled. Return its record; None if it does not exist.

        A running method is not stopped, but its result is discarded.
        """
        fresh = False
        while (found := await self._find(identity, fresh)) is not None:
            record, revision = found
            if record.ended:
                return record
            final = self._records.final(record, Status.FAILED, CANCELLED, "the job was cancelled")
            try:
                await self._records.write(final, revision, time.monotonic() + 5)
            except Conflict:
                fresh = True
                continue
            await self._records.announce(final)
            if record.status is Status.IN_QUEUE:
                await self.backend.withdraw(identity)
                if record.payload:
                    await self.backend.remove(record.payload)
            return final
        return None

    async def oldest(self, limit: int) -> list[Record] | None:
        """Return the oldest jobs that have not ended, the oldest first. None if the backend cannot list them."""
        if not self.backend.finds_messages:
            return None
        messages = await self.backend.oldest(limit)
        found = await asyncio.gather(*(self._open_job(data) for data in messages))
        return [record for record in found if record is not None]

    async def _open_job(self, data: bytes) -> Record | None:
        """Return the record of the job of a message; None if it has ended, or the message is invalid."""
        try:
            ticket = Ticket.unpack(data)
        except (ValueError, NewerFormat):
            return None
        entry = await self.backend.read(ticket.id)
        if entry is None or self._records.precedes(record := Record.unpack(entry.data), ticket):
            return new_record(ticket)
        return None if record.ended else record

    async def _find(self, identity: str, fresh: bool) -> tuple[Record, Any] | None:
        """Return the record of a job and its revision: None if only its message exists. None if the job is unknown or expired."""
        entry = await self.backend.read(identity, fresh=fresh)
        if self.backend.finds_messages and (entry is None or self._has_expired(entry)):
            ticket = await self._message(identity)
            if ticket is not None and (
                entry is None or self._records.precedes(Record.unpack(entry.data), ticket)
            ):
                return new_record(ticket), None if entry is None else entry.revision
            # The job may have ended between the two reads.
            entry = await self.backend.read(identity, fresh=True)
        if entry is None or self._has_expired(entry):
            return None
        return Record.unpack(entry.data), entry.revision

    def _has_expired(self, entry: Entry) -> bool:
        return self._records.has_expired(Record.unpack(entry.data))

    async def _message(self, identity: str) -> Ticket | None:
        """Return the message of a job; None if the queue has none, or an invalid one."""
        try:
            data = await self.backend.find(identity)
            return None if data is None else Ticket.unpack(data)
        except ValueError:
            return None

    async def depth(self) -> Depth:
        """Return the number of queued and running jobs."""
        return await self.backend.depth("jobs")

    async def sweep(self) -> int:
        """Delete expired results, and payloads that no job needs. Return the number of payloads.

        Called every few minutes; a payload is deleted when two consecutive calls find it unused.
        """
        await self.backend.expire(self.settings.keep)
        orphans = set()
        async for name in self.backend.stored("payload"):
            if await self._is_orphan(name):
                orphans.add(name)
        gone = orphans & self._suspects
        for name in gone:
            await self.backend.remove(name)
        self._suspects = orphans - gone
        return len(gone)

    async def _is_orphan(self, name: str) -> bool:
        """Return whether no job needs a stored payload."""
        identity = name.split("/")[1]
        entry = await self.backend.read(identity, fresh=True)
        if entry is not None:
            record = Record.unpack(entry.data)
            if not record.ended:
                return False
            if record.payload == name and await self.dead_letters.exists(record):
                return False
        if not self.backend.finds_messages:
            return True
        # An ended record may belong to the previous job of the same idempotency key.
        try:
            ticket = await self._message(identity)
        except NewerFormat:
            return False
        return ticket is None or ticket.payload.stored != name

    # Workers

    async def take(self, limit: int, seconds: float) -> list[Job]:
        """Wait for jobs and claim at most `limit`; an empty list after `seconds`.

        Each must be renewed, and then completed, failed, retried or released.
        """
        deliveries = await self.backend.take("jobs", limit, seconds)
        claims = await asyncio.gather(*(self._claim(d) for d in deliveries), return_exceptions=True)
        jobs = []
        for delivery, claim in zip(deliveries, claims, strict=True):
            if isinstance(claim, Job):
                jobs.append(claim)
            elif isinstance(claim, BaseException):
                # The message is delivered again after its lease.
                log.warning("failed to claim job %s: %s", delivery.id, claim)
        return jobs

    async def _claim(self, delivery: Delivery) -> Job | None:
        job = await self._claims.claim(delivery)
        if job is not None and job.ticket.payload.stored:
            try:
                job.payload = await self.backend.get(job.ticket.payload.stored)
            except Missing:
                await self.fail(job, PAYLOAD_LOST, "the payload is missing in the store")
                return None
        return job

    async def renew(self, job: Job, progress: float | None = None, note: str = "") -> None:
        """Renew the lease of a job, and record that it runs. Raises LeaseLost."""
        async with job.lock:
            if job.over:
                return
            now = self._clock()
            record = job.record._replace(
                updated=now,
                lease_until=now + self.settings.lease,
                progress=job.record.progress if progress is None else progress,
                note=note or job.record.note,
            )
            await self._replace(job, record, time.monotonic() + self.settings.lease / 3)
            await self.backend.renew(job.delivery)

    async def complete(self, job: Job, result: bytes) -> None:
        """Complete a job with its result (JSON). Retries for one lease. Raises LeaseLost, Full and Unreachable."""
        content = Content("application/json", len(result), result)
        if len(result) > self.backend.inline:
            # Unique to this attempt, so that a worker that has lost the job can't overwrite it. The lease is renewed meanwhile.
            name = f"result/{job.id}/{job.record.attempt}-{os.urandom(4).hex()}"
            content = Content("application/json", len(result), stored=name)
            until = time.monotonic() + self.settings.lease
            await self._records.persist(lambda: self.backend.put(name, result, self.settings.keep), until)
        async with job.lock:
            final = self._records.final(job.record, Status.COMPLETED, "", "")._replace(
                progress=1.0, result=content
            )
            await self._end(job, final)

    async def fail(self, job: Job, reason: str, message: str) -> None:
        """Fail a job. Raises LeaseLost."""
        async with job.lock:
            await self._end(job, self._records.final(job.record, Status.FAILED, reason, message))

    async def retry(self, job: Job, reason: str, message: str) -> bool:
        """Release a job for another attempt with backoff; after the last attempt fail it as a dead letter and return False.

        Raises LeaseLost.
        """
        if job.record.attempt >= self.settings.max_attempts:
            await self.fail(job, *exhausted(job.record.attempt, reason, message))
            return False
        delay = pause_after(job.record.attempt, _FIRST_RETRY, _LONGEST_RETRY)
        await self._release(job, delay, job.record._replace(reason=reason, message=message))
        return True

    async def release(self, job: Job) -> None:
        """Release an unfinished job at once, without counting the attempt. Raises LeaseLost."""
        record = job.record._replace(attempt=job.record.attempt - 1, reason="", message="")
        await self._release(job, 0.0, record)

    # The life of a record

    async def _end(self, job: Job, final: Record) -> None:
        await self._replace(job, final, time.monotonic() + self.settings.lease)
        job.over = True
        await self._records.after_end(final, job.ticket, job.delivery)

    async def _release(self, job: Job, delay: float, record: Record) -> None:
        async with job.lock:
            waiting = record._replace(
                status=Status.IN_QUEUE,
                owner="",
                lease_until=0.0,
                updated=self._clock(),
                progress=None,
                note="",
            )
            await self._replace(job, waiting, time.monotonic() + self.settings.lease)
            job.over = True
            await self.backend.release(job.delivery, delay)

    async def _replace(self, job: Job, record: Record, until: float | None) -> None:
        if job.over:
            raise LeaseLost(f"job {job.id} has ended or was released")
        try:
            job.revision = await self._records.write(record, job.revision, until)
            job.record = record
        except Conflict:
            job.over = True
            raise LeaseLost(f"the lease of job {job.id} is lost") from None
