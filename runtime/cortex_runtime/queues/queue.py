"""The jobs of one AsyncAPI, from submission to result, on any backend. Used by the gateway and the consumer; runs no user code.

See base.py for the guarantees. Each change of a job is a compare-and-swap of its record. Webhooks are in hooks.py.
"""

import asyncio
import hashlib
import logging
import os
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from cortex_runtime.queues.base import (
    Backend,
    Conflict,
    Content,
    Delivery,
    Depth,
    LeaseLost,
    Missing,
    QueueError,
    Record,
    Status,
    Ticket,
)
from cortex_runtime.queues.hooks import Hooks
from cortex_runtime.queues.records import Records, Settings, new_record

log = logging.getLogger("cortex")

_FIRST_RETRY, _LONGEST_RETRY = 1.0, 60.0
LOST, CRASHED = "WorkerLost", "WorkerCrashed"
"""Reasons: the worker disappeared during the attempt, or its process exited."""


class OtherRequest(QueueError):
    """The idempotency key was used before with another request."""


@dataclass
class Job:
    """A job that this worker owns.

    suspect: the last attempt ended with the exit of its process, which the job may have caused. over: the job has ended or was
    released, so it can't be changed any more. lock: serializes the changes.
    """

    ticket: Ticket
    record: Record
    payload: bytes
    delivery: Delivery
    revision: Any
    suspect: bool = False
    over: bool = False
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def id(self) -> str:
        """The id of the job."""
        return self.record.id


class Queue:
    """The jobs of one API.

    owner: identity of this worker, unique among all processes. clock: returns Unix time. hooks: the webhooks to deliver.
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
        self._owner = owner or f"{os.uname().nodename}-{os.getpid()}-{os.urandom(4).hex()}"
        self._clock = clock
        self._suspects: set[str] = set()
        self._records = Records(backend, settings, clock)
        self.hooks = Hooks(backend, self._records)

    # Clients

    async def submit(
        self,
        payload: bytes,
        content_type: str,
        *,
        key: str = "",
        webhook: str = "",
        retry_seconds: float = 5.0,
    ) -> str:
        """Accept a job and return its id; from then on the job can't be lost.

        key: idempotency key; the same key returns the same job. retry_seconds: how long an unreachable backend is retried.
        Raises OtherRequest, Full and Unreachable (then the job may have been accepted or not).
        """
        identity, fingerprint = uuid.uuid4().hex, ""
        until = time.monotonic() + retry_seconds
        if key:
            identity = hashlib.sha256(b"idempotency\0" + key.encode()).hexdigest()[:32]
            fingerprint = hashlib.sha256(
                content_type.encode() + b"\0" + webhook.encode() + b"\0" + payload
            ).hexdigest()
            entry = await self._records.persist(lambda: self.backend.read(identity, fresh=True), until)
            if entry is not None and not self._records.has_expired(found := Record.unpack(entry.data)):
                return _existing(found, fingerprint)
        content = Content(content_type, len(payload), payload)
        if len(payload) > self.backend.inline:
            # Unique to this request: others may have the same key.
            name = f"payload/{identity}/{os.urandom(8).hex()}"
            content = Content(content_type, len(payload), stored=name)
            await self._records.persist(lambda: self.backend.put(name, payload, None), until)
        now = self._clock()
        ticket = Ticket(identity, now, content, webhook, fingerprint)
        await self._records.persist(lambda: self.backend.publish("jobs", identity, ticket.pack()), until)
        revision = None
        while True:
            try:
                await self._records.write(new_record(ticket), revision, until)
                return identity
            except Conflict:
                # A worker was faster, the request is a duplicate, or the last job of the key has expired.
                entry = await self.backend.read(identity, fresh=True)
            revision = None if entry is None else entry.revision
            if entry is not None and not self._records.precedes(found := Record.unpack(entry.data), ticket):
                return _existing(found, fingerprint) if key else identity

    async def status(self, identity: str, *, fresh: bool = False) -> Record | None:
        """Return the record of a job; None if it does not exist or ended longer than `retention` ago.

        fresh: read from the leader instead of a replica that may lag.
        """
        entry = await self.backend.read(identity, fresh=fresh)
        if entry is None:
            return None
        record = Record.unpack(entry.data)
        if self._records.has_expired(record):
            return None
        if not record.ended and self._clock() - record.updated > 2 * self.settings.lease + 60:
            return await self._records.fail_without_message(record, entry)
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
        while (entry := await self.backend.read(identity, fresh=fresh)) is not None:
            record = Record.unpack(entry.data)
            if self._records.has_expired(record):
                return None
            if record.ended:
                return record
            final = self._records.final(record, Status.FAILED, "Cancelled", "the job was cancelled")
            try:
                await self._records.write(final, entry.revision, time.monotonic() + 5)
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

    async def depth(self) -> Depth:
        """Return the number of queued and running jobs."""
        return await self.backend.depth("jobs")

    async def sweep(self) -> int:
        """Delete expired results, and payloads whose job has ended or was never accepted. Return the number of payloads.

        Called every few minutes; a payload is deleted when two consecutive calls find it unused.
        """
        await self.backend.expire(self.settings.keep)
        orphans = set()
        async for name in self.backend.payloads():
            identity = name.split("/")[1]
            if await self._needs_no_payload(identity):
                orphans.add(name)
        gone = orphans & self._suspects
        for name in gone:
            await self.backend.remove(name)
        self._suspects = orphans - gone
        return len(gone)

    async def _needs_no_payload(self, identity: str) -> bool:
        entry = await self.backend.read(identity, fresh=True)
        if entry is not None:
            return Record.unpack(entry.data).ended
        return not await self.backend.holds(identity)

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

    async def renew(self, job: Job, progress: float | None = None, note: str = "") -> None:
        """Renew the lease of a job. Raises LeaseLost."""
        async with job.lock:
            if job.over:
                return
            now = self._clock()
            record = replace(
                job.record,
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
            final = replace(
                self._records.final(job.record, Status.COMPLETED, "", ""), progress=1.0, result=content
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
            await self.fail(job, *_exhausted(job.record.attempt, reason, message))
            return False
        delay = min(_LONGEST_RETRY, _FIRST_RETRY * 2 ** (job.record.attempt - 1))
        await self._release(job, delay, replace(job.record, reason=reason, message=message))
        return True

    async def release(self, job: Job) -> None:
        """Release an unfinished job at once, without counting the attempt. Raises LeaseLost."""
        record = replace(job.record, attempt=job.record.attempt - 1, reason="", message="")
        await self._release(job, 0.0, record)

    # The life of a record

    async def _claim(self, delivery: Delivery) -> Job | None:
        """Claim the job of a message; None when it has ended or is running."""
        try:
            ticket = Ticket.unpack(delivery.data)
        except (ValueError, KeyError, TypeError) as error:
            log.error("dropped an invalid message of the queue: %s", error)
            await self.backend.settle(delivery)
            return None
        fresh = False
        while True:
            entry = await self.backend.read(ticket.id, fresh=fresh)
            record = new_record(ticket) if entry is None else Record.unpack(entry.data)
            if self._records.precedes(record, ticket):
                record = new_record(ticket)
            if record.fingerprint != ticket.fingerprint:
                # Two requests with the same key and different content arrived at the same time; this one was refused.
                if ticket.payload.stored:
                    await self.backend.remove(ticket.payload.stored)
                await self.backend.settle(delivery)
                return None
            now = self._clock()
            if record.ended:
                await self._records.after_end(record, ticket, delivery)
                return None
            if record.status is Status.IN_PROGRESS and record.lease_until > now:
                # A duplicate message of a running job.
                await self.backend.release(delivery, record.lease_until - now + 0.05)
                return None
            revision = None if entry is None else entry.revision
            try:
                if record.attempt >= self.settings.max_attempts:
                    reason = record.reason or LOST
                    message = record.message or "the worker died or lost its lease"
                    final = self._records.final(
                        record, Status.FAILED, *_exhausted(record.attempt, reason, message)
                    )
                    await self._records.write(final, revision, time.monotonic() + 5)
                    log.error("job %s failed: %s", ticket.id, final.message, extra={"reason": final.reason})
                    await self._records.after_end(final, ticket, delivery)
                    return None
                claimed = replace(
                    record,
                    status=Status.IN_PROGRESS,
                    attempt=record.attempt + 1,
                    owner=self._owner,
                    updated=now,
                    lease_until=now + self.settings.lease,
                    progress=None,
                    note="",
                    reason=LOST,
                    message="the worker died or lost its lease",
                )
                revision, claimed = await self._records.write(claimed, revision, time.monotonic() + 5)
            except Conflict:
                fresh = True
                continue
            suspect = record.reason in (LOST, CRASHED)
            job = Job(ticket, claimed, ticket.payload.data, delivery, revision, suspect)
            if ticket.payload.stored:
                try:
                    job.payload = await self.backend.get(ticket.payload.stored)
                except Missing:
                    await self.fail(job, "PayloadLost", "the payload is missing in the store")
                    return None
            return job

    async def _end(self, job: Job, final: Record) -> None:
        await self._replace(job, final, time.monotonic() + self.settings.lease)
        job.over = True
        await self._records.after_end(final, job.ticket, job.delivery)

    async def _release(self, job: Job, delay: float, record: Record) -> None:
        async with job.lock:
            waiting = replace(
                record,
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
            job.revision, job.record = await self._records.write(record, job.revision, until)
        except Conflict:
            job.over = True
            raise LeaseLost(f"the lease of job {job.id} is lost") from None


def _existing(record: Record, fingerprint: str) -> str:
    """Return the id of the job that an idempotency key already has. Raises OtherRequest."""
    if record.fingerprint != fingerprint:
        raise OtherRequest("this Idempotency-Key was already used with another body, content type or webhook")
    return record.id


def _exhausted(attempts: int, reason: str, message: str) -> tuple[str, str]:
    """Return the reason and the message of a job whose last attempt has failed."""
    times = "1 attempt" if attempts == 1 else f"{attempts} attempts"
    return reason, f"failed after {times}, the limit of maxAttempts: {message}"
