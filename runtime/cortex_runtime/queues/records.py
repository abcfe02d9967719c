"""Records of jobs. Each change is a compare-and-swap that is retried while the backend is unreachable."""

import asyncio
import itertools
import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from cortex_runtime.backoff import backoff
from cortex_runtime.queues.base import (
    Backend,
    Conflict,
    Delivery,
    Full,
    Record,
    Status,
    Ticket,
    Unreachable,
)

log = logging.getLogger("cortex")

CANCELLED, PAYLOAD_LOST, MESSAGE_LOST = "Cancelled", "PayloadLost", "MessageLost"
"""Reasons of jobs that cannot be retried."""
_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 1.0
_LATEST = 10**14
"""Milliseconds of Unix time that are not reached."""
_MESSAGE_LIFE = 13.5 * 24 * 3600
"""Seconds. SQS deletes a message after 14 days."""


@dataclass(frozen=True)
class Settings:
    """The settings of spec.queue. lease, retention: in seconds."""

    max_attempts: int
    lease: float
    retention: float

    @property
    def keep(self) -> float:
        """Seconds for which the record of an ended job is stored: longer than its retention, for messages that arrive late."""
        return self.retention + max(60.0, 2 * self.lease)


class Records:
    """The records of one API. clock: returns Unix time."""

    def __init__(self, backend: Backend, settings: Settings, clock: Callable[[], float]) -> None:
        self.backend = backend
        self.settings = settings
        self.clock = clock
        self._writer = os.urandom(8).hex()
        self._writes = itertools.count()

    async def write(self, record: Record, revision: Any, until: float | None) -> Any:
        """Compare and swap a record. Return the new revision. Retries while the backend is unreachable or full.

        until: monotonic time of the last retry; None: no limit. A write whose response was lost is recognized by `writer`.
        """
        writer = f"{self._writer}-{next(self._writes)}"
        data = record.pack(writer)
        ttl = self.settings.keep if record.ended else None

        async def attempt() -> Any:
            try:
                return await self.backend.write(record.id, data, revision, ttl)
            except Conflict:
                entry = await self.backend.read(record.id, fresh=True)
                if entry is not None and Record.unpack(entry.data).writer == writer:
                    return entry.revision
                raise

        return await self.persist(attempt, until)

    async def persist(self, action: Callable[[], Any], until: float | None = None) -> Any:
        """Return the result of an action; retry it while the backend is unreachable or full. until: as for `write`."""
        pauses = backoff(_FIRST_PAUSE, _LONGEST_PAUSE)
        while True:
            try:
                return await action()
            except (Unreachable, Full) as error:
                pause = next(pauses)
                if until is not None and time.monotonic() + pause > until:
                    raise
                log.warning("failed to write to the queue; retrying: %s", error)
                await asyncio.sleep(pause)

    def final(self, record: Record, status: Status, reason: str, message: str) -> Record:
        """Return the record of a job that ends now."""
        now = self.clock()
        return record._replace(
            status=status,
            reason=reason,
            message=message,
            updated=now,
            lease_until=0.0,
            owner="",
            expires=now + self.settings.retention,
        )

    async def fail_without_message(self, record: Record, revision: Any) -> Record:
        """Return the record of a job without recent updates. Fail the job if the queue has lost its message."""
        if self.backend.finds_messages:
            held = await self.backend.find(record.id) is not None
        else:
            held = self.clock() - record.submitted < _MESSAGE_LIFE
        if held:
            return record
        final = self.final(
            record, Status.FAILED, MESSAGE_LOST, "the message of the job is missing in the queue"
        )
        try:
            await self.write(final, revision, time.monotonic() + 5)
        except Conflict:
            return record
        await self.announce(final)
        return final

    async def after_end(self, record: Record, ticket: Ticket, delivery: Delivery) -> None:
        """Run the steps after the end of a job. Idempotent."""
        try:
            await self.announce(record)
            if is_retryable(record):
                await self._keep(record, ticket)
            elif ticket.payload.stored:
                await self.backend.remove(ticket.payload.stored)
            await self.backend.settle(delivery)
        except (Unreachable, Full) as error:
            # The message is delivered again, which repeats these steps.
            log.warning("job %s has ended, but failed to settle its message: %s", record.id, error)

    async def _keep(self, record: Record, ticket: Ticket) -> None:
        """Store the message of a failed job. In a full store, the job cannot be retried: the space must become free."""
        try:
            await self.backend.put(letter_name(record), ticket.pack(), self.settings.keep)
        except Full as error:
            log.warning("job %s cannot be retried, because its payload was not kept: %s", record.id, error)
            if ticket.payload.stored:
                await self.backend.remove(ticket.payload.stored)

    async def announce(self, record: Record) -> None:
        """Publish the message for the webhook of a job, if it has one."""
        if record.webhook:
            await self.backend.publish("hooks", record.id, str(record.expires).encode())

    def has_expired(self, record: Record) -> bool:
        """Return whether the job ended longer than `retention` ago."""
        return record.ended and self.clock() > record.expires

    @staticmethod
    def precedes(record: Record, ticket: Ticket) -> bool:
        """Return whether the record belongs to an expired earlier job with the same idempotency key."""
        return record.ended and ticket.submitted > record.expires


def is_retryable(record: Record) -> bool:
    """Return whether a job has failed in a way that keeps its payload."""
    return record.status is Status.FAILED and record.reason not in (CANCELLED, PAYLOAD_LOST, MESSAGE_LOST)


def letter_name(record: Record) -> str:
    """Return the name of the dead letter of a failed job. The newest failure has the first name in alphabetical order."""
    return f"failed/{_LATEST - int(record.updated * 1000):015d}/{record.id}"


def new_record(ticket: Ticket) -> Record:
    """Return the record of a new job."""
    return Record(
        ticket.id,
        Status.IN_QUEUE,
        ticket.submitted,
        ticket.submitted,
        webhook=ticket.webhook,
        fingerprint=ticket.fingerprint,
        payload=ticket.payload.stored,
    )
