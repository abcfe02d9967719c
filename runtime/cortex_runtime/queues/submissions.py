"""Accepts jobs: stores the payload and the message of each, once for each idempotency key."""

import hashlib
import os
import time
from collections.abc import Callable

from cortex_runtime.queues.base import Backend, Conflict, Content, QueueError, Record, Ticket
from cortex_runtime.queues.records import Records, new_record


class OtherRequest(QueueError):
    """The idempotency key was used before with another request."""


class Submissions:
    """The acceptance of the jobs of one API. clock: returns Unix time."""

    def __init__(self, backend: Backend, records: Records, clock: Callable[[], float]) -> None:
        self._backend = backend
        self._records = records
        self._clock = clock
        self._random = b""

    async def submit(
        self,
        payload: bytes,
        content_type: str,
        key: str,
        webhook: str,
        retry_seconds: float,
        trace: dict[str, str] | None = None,
    ) -> str:
        """See Queue.submit."""
        identity, fingerprint = self._new_id(), ""
        until = time.monotonic() + retry_seconds
        if key:
            identity = hashlib.sha256(b"idempotency\0" + key.encode()).hexdigest()[:32]
            fingerprint = hashlib.sha256(
                content_type.encode() + b"\0" + webhook.encode() + b"\0" + payload
            ).hexdigest()
            entry = await self._records.persist(lambda: self._backend.read(identity, fresh=True), until)
            if entry is not None and not self._records.has_expired(found := Record.unpack(entry.data)):
                return _existing(found, fingerprint)
        content = Content(content_type, len(payload), payload)
        if len(payload) > self._backend.inline:
            # Unique to this request: others may have the same key.
            name = f"payload/{identity}/{os.urandom(8).hex()}"
            content = Content(content_type, len(payload), stored=name)
            await self._records.persist(lambda: self._backend.put(name, payload, None), until)
        ticket = Ticket(identity, self._clock(), content, webhook, fingerprint, trace=trace)
        if self._backend.finds_messages:
            return await self._store(ticket, until)
        await self._records.persist(lambda: self._backend.publish("jobs", identity, ticket.pack()), until)
        return await self._create_record(ticket, until)

    def _new_id(self) -> str:
        """Return 16 random bytes as hexadecimal digits. Reads many from the system at a time."""
        if not self._random:
            self._random = os.urandom(16 * 256)
        identity, self._random = self._random[-16:].hex(), self._random[:-16]
        return identity

    async def _store(self, ticket: Ticket, until: float) -> str:
        """Store the message of a job, unless the queue has one of the same key. Return the id of the job."""
        stored = ticket

        async def publish() -> None:
            nonlocal stored
            data = stored.pack()
            # After a lost response, the first message may be stored, and its job ended.
            stored = ticket._replace(repeated=True)
            await self._backend.publish("jobs", ticket.id, data)

        while True:
            try:
                await self._records.persist(publish, until)
                break
            except Conflict:
                if not ticket.fingerprint:
                    # An earlier try was stored.
                    return ticket.id
            if (message := await self._backend.find(ticket.id)) is not None:
                found = Ticket.unpack(message)
                if ticket.payload.stored and ticket.payload.stored != found.payload.stored:
                    await self._backend.remove(ticket.payload.stored)
                return _existing(found, ticket.fingerprint)
            # The job of that message has just ended.
            if (record := await self._previous(ticket)) is not None:
                return _existing(record, ticket.fingerprint)
        if ticket.fingerprint and (record := await self._previous(ticket)) is not None:
            return _existing(record, ticket.fingerprint)
        return ticket.id

    async def _previous(self, ticket: Ticket) -> Record | None:
        """Return the record of the key's job, if it has not expired."""
        entry = await self._backend.read(ticket.id, fresh=True)
        if entry is None or self._records.precedes(record := Record.unpack(entry.data), ticket):
            return None
        return record

    async def _create_record(self, ticket: Ticket, until: float) -> str:
        """Store the record of a job whose message is stored. Return the id of the job."""
        revision = None
        while True:
            try:
                await self._records.write(new_record(ticket), revision, until)
                return ticket.id
            except Conflict:
                # A worker was faster, the request is a duplicate, or the last job of the key has expired.
                entry = await self._backend.read(ticket.id, fresh=True)
            revision = None if entry is None else entry.revision
            if entry is not None and not self._records.precedes(found := Record.unpack(entry.data), ticket):
                return _existing(found, ticket.fingerprint) if ticket.fingerprint else ticket.id


def _existing(found: Record | Ticket, fingerprint: str) -> str:
    """Return the id of the job that an idempotency key already has. Raises OtherRequest."""
    if found.fingerprint != fingerprint:
        raise OtherRequest("this Idempotency-Key was already used with another body, content type or webhook")
    return found.id
