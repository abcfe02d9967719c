"""The messages of failed jobs, kept until the records of the jobs expire, so that the jobs can be retried.

The name of a dead letter is derived from the record of the failure, so a later failure of the job has another one. The names sort
by the time of the failure, the newest first.
"""

import asyncio
import contextlib
import heapq
import time
from collections.abc import Callable

from cortex_runtime.queues.base import (
    FORMAT,
    Backend,
    Conflict,
    Missing,
    QueueError,
    Record,
    Status,
    Ticket,
)
from cortex_runtime.queues.records import CANCELLED, Records, is_retryable, letter_name, new_record

_RETRY_SECONDS = 5.0


class NotRetryable(QueueError):
    """The job has not failed, or its payload does not exist any more."""


class DeadLetters:
    """The dead letters of one API. clock: returns Unix time."""

    def __init__(self, backend: Backend, records: Records, clock: Callable[[], float]) -> None:
        self._backend = backend
        self._records = records
        self._clock = clock

    async def list(self, limit: int) -> tuple[list[Record], int]:
        """Return the records of the newest failures, the newest first, and the number of dead letters. Raises Unreachable."""
        names = [name async for name in self._backend.stored("failed")]
        newest = heapq.nsmallest(limit, names)
        found = await asyncio.gather(*(self._read(name) for name in newest))
        return [record for record in found if record is not None], len(names)

    async def exists(self, record: Record) -> bool:
        """Return whether a job has a dead letter, so that it can be retried."""
        if not is_retryable(record):
            return False
        try:
            await self._backend.get(letter_name(record))
        except Missing:
            return False
        return True

    async def _read(self, name: str) -> Record | None:
        """Return the record of a dead letter; None if the job was retried meanwhile, or has expired."""
        entry = await self._backend.read(name.rpartition("/")[2])
        if entry is None:
            return None
        record = Record.unpack(entry.data)
        return None if letter_name(record) != name or self._records.has_expired(record) else record

    async def retry(self, identity: str) -> Record | None:
        """Queue a failed job again, with its id and all its attempts. Return its record; None if it does not exist.

        Raises NotRetryable, Full and Unreachable.
        """
        entry = await self._backend.read(identity, fresh=True)
        if entry is None or self._records.has_expired(failed := Record.unpack(entry.data)):
            return None
        if not is_retryable(failed):
            raise NotRetryable(refusal(failed))
        name = letter_name(failed)
        try:
            ticket = Ticket.unpack(await self._backend.get(name))
        except (Missing, ValueError):
            raise NotRetryable(refusal(failed)) from None
        # The worker must read the record, because it exists.
        ticket = ticket._replace(submitted=self._clock(), repeated=True, format=FORMAT, trace=None)
        waiting = new_record(ticket)
        until = time.monotonic() + _RETRY_SECONDS
        try:
            revision = await self._records.write(waiting, entry.revision, until)
        except Conflict:
            raise NotRetryable("the job has changed meanwhile; it may have been retried already") from None
        try:
            await self._publish(ticket, until)
        except QueueError:
            with contextlib.suppress(QueueError):
                await self._records.write(failed, revision, time.monotonic() + _RETRY_SECONDS)
            raise
        with contextlib.suppress(QueueError):
            # Otherwise it expires.
            await self._backend.remove(name)
        return waiting

    async def _publish(self, ticket: Ticket, until: float) -> None:
        """Store the message of a retried job."""
        while True:
            try:
                await self._records.persist(
                    lambda: self._backend.publish("jobs", ticket.id, ticket.pack()), until
                )
                return
            except Conflict:
                # The message of the failed job is not settled yet. If that was lost, the message is delivered again, which starts
                # the job too.
                if time.monotonic() > until:
                    return
                await asyncio.sleep(0.1)


def refusal(record: Record) -> str:
    """Return why a job cannot be retried."""
    if record.status is not Status.FAILED:
        return f"the job is {record.status.value}; only a failed job can be retried"
    if record.reason == CANCELLED:
        return "the job was cancelled; submit it as a new job"
    return "the payload of the job is not stored any more; submit it as a new job"
