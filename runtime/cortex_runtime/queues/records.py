"""Records of jobs: each change is a compare-and-swap that outlives a backend which is away for a moment."""

import asyncio
import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from cortex_runtime.queues.base import (
    Backend,
    Conflict,
    Delivery,
    Entry,
    Full,
    Record,
    Status,
    Ticket,
    Unreachable,
)

log = logging.getLogger("cortex")

_PAUSES = (0.05, 0.1, 0.25, 0.5, 1.0)
_MESSAGE_LIFE = 13.5 * 24 * 3600
"""SQS drops a message after 14 days."""


@dataclass(frozen=True)
class Settings:
    """spec.queue in numbers. lease, retention: in seconds."""

    max_attempts: int
    lease: float
    retention: float

    @property
    def keep(self) -> float:
        """Seconds for which the record of an ended job is stored: longer than shown, so that a late message still finds it."""
        return self.retention + max(60.0, 2 * self.lease)


class Records:
    """One API's records. clock: Unix time."""

    def __init__(self, backend: Backend, settings: Settings, clock: Callable[[], float]) -> None:
        self.backend = backend
        self.settings = settings
        self.clock = clock

    async def write(self, record: Record, revision: Any, until: float | None) -> tuple[Any, Record]:
        """Compare-and-swap; gives the new revision and what was written. Tries on while the backend can't be reached, or is
        full.

        until: monotonic time, None for ever. A write whose answer was lost is known again by its mark.
        """
        record = replace(record, writer=os.urandom(8).hex())
        data = record.pack()
        ttl = self.settings.keep if record.ended else None

        async def attempt() -> Any:
            try:
                return await self.backend.write(record.id, data, revision, ttl)
            except Conflict:
                entry = await self.backend.read(record.id, fresh=True)
                if entry is not None and Record.unpack(entry.data).writer == record.writer:
                    return entry.revision
                raise

        return await self.persist(attempt, until), record

    async def persist(self, action: Callable[[], Any], until: float | None = None) -> Any:
        """What the action gives, which is tried while the backend can't be reached or is full. until: as for `write`."""
        pauses = iter(_PAUSES)
        while True:
            try:
                return await action()
            except (Unreachable, Full) as error:
                pause = next(pauses, _PAUSES[-1])
                if until is not None and time.monotonic() + pause > until:
                    raise
                log.warning("the queue could not store something, and is tried again: %s", error)
                await asyncio.sleep(pause)

    def final(self, record: Record, status: Status, reason: str, message: str) -> Record:
        """The record of a job that ends now."""
        now = self.clock()
        return replace(
            record,
            status=status,
            reason=reason,
            message=message,
            updated=now,
            lease_until=0.0,
            owner="",
            expires=now + self.settings.retention,
        )

    async def without_message(self, record: Record, entry: Entry) -> Record:
        """An open job of which nothing was heard for long: still open while the queue has its message, else failed."""
        held = await self.backend.holds(record.id)
        if held is None:
            held = self.clock() - record.submitted < _MESSAGE_LIFE
        if held:
            return record
        final = self.final(record, Status.FAILED, "MessageLost", "the queue does not hold the job any more")
        try:
            await self.write(final, entry.revision, time.monotonic() + 5)
        except Conflict:
            return record
        await self.announce(final)
        return final

    async def after_end(self, record: Record, ticket: Ticket, delivery: Delivery) -> None:
        """What follows once the record says that the job has ended; all of it may happen twice."""
        try:
            await self.announce(record)
            if ticket.payload.stored:
                await self.backend.remove(ticket.payload.stored)
            await self.backend.settle(delivery)
        except (Unreachable, Full) as error:
            # The message comes again, and with it this.
            log.warning("job %s has ended, but its message could not be settled: %s", record.id, error)

    async def announce(self, record: Record) -> None:
        """Have somebody told of a job's end, if anybody is."""
        if record.webhook:
            await self.backend.publish("hooks", record.id, str(record.expires).encode())

    def forgotten(self, record: Record) -> bool:
        """Whether the job ended longer than `retention` ago."""
        return record.ended and self.clock() > record.expires

    @staticmethod
    def precedes(record: Record, ticket: Ticket) -> bool:
        """Whether the record is of a job that was forgotten before this one came, under the same idempotency key."""
        return record.ended and ticket.submitted > record.expires


def first(ticket: Ticket) -> Record:
    """The record of a job that nobody has touched yet."""
    return Record(
        ticket.id,
        Status.IN_QUEUE,
        ticket.submitted,
        ticket.submitted,
        webhook=ticket.webhook,
        fingerprint=ticket.fingerprint,
        payload=ticket.payload.stored,
    )
