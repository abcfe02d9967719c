"""Claims jobs for a worker: decides from the message, and from the record if there may be one, whether an attempt starts."""

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from cortex_runtime.queues.base import (
    Backend,
    Conflict,
    Delivery,
    NewerFormat,
    Record,
    Status,
    Ticket,
)
from cortex_runtime.queues.records import Records, Settings, new_record

log = logging.getLogger("cortex")

LOST, CRASHED = "WorkerLost", "WorkerCrashed"
"""Reasons: the worker disappeared during the attempt, or its process exited."""
_LOST_MESSAGE = "the worker died or lost its lease"


@dataclass
class Job:
    """A job that this worker owns. revision: of its record; None while it has none.

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


class Claims:
    """The claims of one worker. owner: its identity. clock: returns Unix time."""

    def __init__(
        self,
        backend: Backend,
        settings: Settings,
        records: Records,
        owner: str,
        clock: Callable[[], float],
    ) -> None:
        self._backend = backend
        self._settings = settings
        self._records = records
        self._owner = owner
        self._clock = clock

    async def claim(self, delivery: Delivery) -> Job | None:
        """Claim the job of a message; None when it has ended or is running. Its payload is not loaded if it is large."""
        try:
            ticket = Ticket.unpack(delivery.data)
        except NewerFormat as error:
            log.error("left a job of a newer version in the queue: %s", error)
            await self._backend.release(delivery, self._settings.lease)
            return None
        except ValueError as error:
            log.error("dropped an invalid message of the queue: %s", error)
            await self._backend.settle(delivery)
            return None
        if delivery.times == 1 and self._starts_without_record(ticket):
            started = self._started(new_record(ticket), self._clock())
            return Job(ticket, started, ticket.payload.data, delivery, None)
        return await self._claim_record(ticket, delivery)

    def _starts_without_record(self, ticket: Ticket) -> bool:
        """Return whether the first delivery of a message starts its job without reading or writing the record."""
        return (
            self._backend.finds_messages
            and ticket.format > 1
            and not ticket.repeated
            and not ticket.fingerprint
            and self._settings.max_attempts > 1
        )

    async def _claim_record(self, ticket: Ticket, delivery: Delivery) -> Job | None:
        fresh = False
        while True:
            entry = await self._backend.read(ticket.id, fresh=fresh)
            record = self._unrecorded(ticket, delivery) if entry is None else Record.unpack(entry.data)
            if self._records.precedes(record, ticket):
                record = new_record(ticket)
            if record.fingerprint != ticket.fingerprint:
                # Two requests with the same key and different content arrived at the same time; this one was refused.
                if ticket.payload.stored:
                    await self._backend.remove(ticket.payload.stored)
                await self._backend.settle(delivery)
                return None
            now = self._clock()
            if record.ended:
                await self._records.after_end(record, ticket, delivery)
                return None
            if record.status is Status.IN_PROGRESS and record.lease_until > now:
                # A duplicate message of a running job.
                await self._backend.release(delivery, record.lease_until - now + 0.05)
                return None
            revision = None if entry is None else entry.revision
            try:
                if record.attempt >= self._settings.max_attempts:
                    await self._fail_exhausted(record, revision, ticket, delivery)
                    return None
                started = self._started(record, now)
                revision = await self._records.write(started, revision, time.monotonic() + 5)
            except Conflict:
                fresh = True
                continue
            suspect = record.reason in (LOST, CRASHED)
            return Job(ticket, started, ticket.payload.data, delivery, revision, suspect)

    def _unrecorded(self, ticket: Ticket, delivery: Delivery) -> Record:
        """Return the state of a job without a record. An earlier delivery may have started an attempt, at most one."""
        record = new_record(ticket)
        if delivery.times > 1 and self._starts_without_record(ticket):
            return record._replace(attempt=1, reason=LOST, message=_LOST_MESSAGE)
        return record

    def _started(self, record: Record, now: float) -> Record:
        """Return the record of a job whose next attempt starts."""
        return record._replace(
            status=Status.IN_PROGRESS,
            attempt=record.attempt + 1,
            owner=self._owner,
            updated=now,
            lease_until=now + self._settings.lease,
            progress=None,
            note="",
            reason=LOST,
            message=_LOST_MESSAGE,
        )

    async def _fail_exhausted(
        self, record: Record, revision: Any, ticket: Ticket, delivery: Delivery
    ) -> None:
        """Fail a job whose last attempt did not end. Raises Conflict."""
        reason, message = exhausted(record.attempt, record.reason or LOST, record.message or _LOST_MESSAGE)
        final = self._records.final(record, Status.FAILED, reason, message)
        await self._records.write(final, revision, time.monotonic() + 5)
        log.error("job %s failed: %s", ticket.id, final.message, extra={"reason": final.reason})
        await self._records.after_end(final, ticket, delivery)


def exhausted(attempts: int, reason: str, message: str) -> tuple[str, str]:
    """Return the reason and the message of a job whose last attempt has failed."""
    times = "1 attempt" if attempts == 1 else f"{attempts} attempts"
    return reason, f"failed after {times}, the limit of maxAttempts: {message}"
