"""The data of a queue, the interface of its backends, and the guarantees of both.

Guarantees:

- A job is accepted once its message is stored. The message contains the payload, or refers to it when it is large. The record is
  stored after the message, and 202 is sent after that. So no record exists for a job that no worker will receive.
- Delivery is at least once. A worker that receives a message first updates the record (in_progress, attempt + 1) and creates a
  record that does not exist yet. Message and record therefore need no common transaction.
- A record is only replaced by compare-and-swap against the revision that was read, so the write of a worker that has lost its
  lease is refused. A result is never overwritten, and only that of the attempt in the record is returned.
- The lease exists twice: with the message, so that the job of a dead worker is delivered again, and in the record, so that a
  duplicate message does not start a job that is still running.
- At the end of a job these steps happen in this order: store the result, update the record, publish the webhook's message, delete
  the payload, settle the message. Each step may be repeated; a message delivered after the end of its job repeats the later ones.
- Attempts are counted in the record before the handler runs, so attempts that kill their process are counted too.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Literal, Protocol

import orjson

Channel = Literal["jobs", "hooks"]
"""jobs: taken by workers. hooks: webhooks to deliver, taken by gateways."""


class QueueError(Exception):
    """An operation on a queue has failed."""


class Unreachable(QueueError):
    """The backend does not respond; the operation may have taken effect or not."""


class Full(QueueError):
    """The backend is out of space."""


class Conflict(QueueError):
    """The record has been changed since it was read."""


class Missing(QueueError):
    """A payload or result does not exist."""


class LeaseLost(QueueError):
    """This worker no longer owns the job: it was cancelled, or another worker has taken it."""


class Status(StrEnum):
    """The status of a job, as clients see it."""

    IN_QUEUE = "in_queue"
    IN_PROGRESS = "in_progress"
    COMPLETED = "completed"
    FAILED = "failed"


@dataclass(frozen=True)
class Content:
    """A payload or a result: inline, or (when large) stored in the backend by name. size: in bytes."""

    type: str = ""
    size: int = 0
    data: bytes = b""
    stored: str = ""


@dataclass(frozen=True)
class Ticket:
    """The message of a job. submitted: Unix time. fingerprint: a digest of a request with an idempotency key."""

    id: str
    submitted: float
    payload: Content
    webhook: str = ""
    fingerprint: str = ""

    def pack(self) -> bytes:
        """Return the ticket as bytes: a line of JSON, then the payload."""
        return _pack(self, "payload")

    @classmethod
    def unpack(cls, data: bytes) -> "Ticket":
        """Return the ticket of a message."""
        fields, content = _unpack(data)
        return cls(**fields, payload=content)


@dataclass(frozen=True)
class Record:
    """The state of a job.

    attempt: number of attempts started. owner: the worker that owns it until `lease_until`. reason, message: why the job or its
    last attempt failed. expires: when the record of an ended job expires. payload: the name of a large payload. writer: an id of
    this write. Times are Unix times.
    """

    id: str
    status: Status
    submitted: float
    updated: float
    attempt: int = 0
    owner: str = ""
    lease_until: float = 0.0
    progress: float | None = None
    note: str = ""
    reason: str = ""
    message: str = ""
    expires: float = 0.0
    webhook: str = ""
    fingerprint: str = ""
    payload: str = ""
    writer: str = ""
    result: Content = Content()

    @property
    def ended(self) -> bool:
        """Whether the job is completed or failed."""
        return self.status in (Status.COMPLETED, Status.FAILED)

    def pack(self) -> bytes:
        """Return the record as bytes: a line of JSON, then the result."""
        return _pack(self, "result")

    @classmethod
    def unpack(cls, data: bytes) -> "Record":
        """Return the record of an entry."""
        fields, content = _unpack(data)
        return cls(**{**fields, "status": Status(fields["status"])}, result=content)


def _pack(value: Ticket | Record, body: str) -> bytes:
    content: Content = getattr(value, body)
    fields = {name: item for name, item in vars(value).items() if name != body}
    fields["content"] = {"type": content.type, "size": content.size, "stored": content.stored}
    return orjson.dumps(fields) + b"\n" + content.data


def _unpack(data: bytes) -> tuple[dict[str, Any], Content]:
    head, _, body = data.partition(b"\n")
    fields = orjson.loads(head)
    return fields, replace(Content(**fields.pop("content")), data=body)


@dataclass(frozen=True)
class Entry:
    """A stored record. revision: of the backend, for the next compare-and-swap."""

    data: bytes
    revision: Any


@dataclass(frozen=True)
class Delivery:
    """A message under a lease. times: number of deliveries, including this one. handle: of the backend."""

    id: str
    data: bytes
    times: int
    handle: Any


@dataclass(frozen=True)
class Depth:
    """The number of messages of a channel.

    waiting: not delivered. taken: delivered and not settled. oldest: age of the oldest in seconds; None if the backend does not
    report it.
    """

    waiting: int
    taken: int
    oldest: float | None


Changed = Callable[[float], Awaitable[None]]
"""Waits until a record may have changed, at most the given number of seconds."""


class Backend(Protocol):
    """The store and the messages of one API's queue. Each method raises Unreachable; methods that store also raise Full.

    inline: maximum size in bytes of a payload in its message and of a result in its record.
    """

    inline: int

    async def open(self) -> None:
        """Connect, and create missing resources. Idempotent."""

    async def close(self) -> None:
        """Close the connection."""

    async def destroy(self) -> None:
        """Connect, and delete the queue with all its content. A missing queue is not an error; nothing is created."""

    async def read(self, id: str, *, fresh: bool = False) -> Entry | None:
        """Return the record of a job. fresh: read from the leader instead of a replica that may lag."""

    async def write(self, id: str, data: bytes, revision: Any, ttl: float | None) -> Any:
        """Create a record (revision None) or replace the one of this revision. Return the new revision. Raises Conflict.

        ttl: seconds after which it may be deleted. data: must be unique, because a revision may be a digest of it.
        """

    def watch(self, id: str) -> AbstractAsyncContextManager[Changed]:
        """Return a context with a function that waits until the record may have changed, or for some seconds.

        A change after the context was entered is never missed for longer than one poll.
        """

    async def put(self, name: str, data: bytes, ttl: float | None) -> None:
        """Store a payload or result under a unique name. ttl: seconds after which it may be deleted."""

    async def get(self, name: str) -> bytes:
        """Return a complete payload or result. Raises Missing."""

    async def remove(self, name: str) -> None:
        """Delete a payload. A missing one is not an error."""

    def payloads(self) -> AsyncIterator[str]:
        """Yield the names of the stored payloads: payload/ID/..."""

    async def publish(self, channel: Channel, id: str, data: bytes) -> None:
        """Store a message, which may be delivered twice. The same data within a minute may be stored once."""

    async def holds(self, id: str) -> bool | None:
        """Return whether the queue has the message of a job; None if the backend can't look it up."""

    async def withdraw(self, id: str) -> None:
        """Delete the message of a job if the backend can; otherwise a worker receives it and drops it."""

    async def take(self, channel: Channel, limit: int, seconds: float) -> list[Delivery]:
        """Wait for messages and return at most `limit`; an empty list after `seconds`."""

    async def renew(self, delivery: Delivery) -> None:
        """Renew the lease of a message."""

    async def release(self, delivery: Delivery, delay: float) -> None:
        """Release a message, to be delivered again after `delay` seconds."""

    async def settle(self, delivery: Delivery) -> None:
        """Delete a message that has been processed."""

    async def depth(self, channel: Channel) -> Depth:
        """Return the depth of a channel."""

    async def expire(self, keep: float) -> None:
        """Delete records and results of ended jobs older than `keep` seconds, unless the backend does so automatically."""
