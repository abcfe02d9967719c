"""The data of a queue, the interface of its backends, and the guarantees of both.

What each write means:

- The message is the acceptance of a job: 202 is sent once it is stored, and nothing else is stored for a queued job. It contains
  the payload, or refers to it when it is large; the payload is stored first.
- The record is the state of a job from its first change on. It is written when an attempt has run for a moment (in_progress),
  when an attempt ends without a result, and when the job ends. A job without a record is in the queue if its message exists.
- A backend that can't look up messages (SQS) stores the record of each job after its message, and of each attempt before it
  starts.

Guarantees, which hold when any process exits between any two writes:

- An accepted job is never lost: its message is settled only after the record of its end is stored.
- Delivery is at least once, and a job has one result. A record is created only if there is none, or replaced by compare-and-swap
  against the revision that was read. So the write of a worker that has lost its lease is refused, and no result is overwritten.
- Attempts that kill their process are counted. A first attempt starts without a record. If it is lost, its message is delivered
  again, and the delivery count shows it. Each later attempt is counted in the record before it starts. With maxAttempts 1 the
  first one is too, because a delivery that never reached a worker would fail the job.
- The lease exists with the message, so that the job of a dead worker is delivered again, and in the record if there is one, so
  that a duplicate message does not start a job that is still running.
- A job that may already have a record does not start before it was read: its message was delivered before, was stored by a retry,
  or has an idempotency key. Two cases remain in which a handler may run in vain, and its result is refused: a gateway exits
  between the record of a cancelled job and the deletion of its message, or the server forgets a delivery (see nats.py).
- The queue holds one message of an idempotency key. A gateway reads the record again after it has stored one, because the
  previous job of the key may have ended meanwhile; then that job is returned, and a worker drops the message.
- At the end of a job these steps happen in this order: store the result, write the record, publish the webhook's message, delete
  the payload, settle the message. Each step may be repeated; a message delivered after the end of its job repeats the later ones.
- A failed job keeps its payload until its record expires, so that it can be retried (see dead_letters.py): its message is stored
  before it is settled. If the store is full, new jobs have precedence.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Literal, NamedTuple, Protocol

import orjson

Channel = Literal["jobs", "hooks"]
"""jobs: taken by workers. hooks: webhooks to deliver, taken by gateways."""

FORMAT, TRACED_FORMAT = 2, 3
"""Of the messages of jobs that this version writes, without and with trace context. It reads older ones too."""


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


class NewerFormat(QueueError):
    """A newer version wrote the message."""


class Status(StrEnum):
    """The status of a job, as clients see it."""

    IN_QUEUE = "in_queue"
    IN_PROGRESS = "in_progress"
    COMPLETED = "completed"
    FAILED = "failed"


class Content(NamedTuple):
    """A payload or a result: inline, or (when large) stored in the backend by name. size: in bytes."""

    type: str = ""
    size: int = 0
    data: bytes = b""
    stored: str = ""


class Ticket(NamedTuple):
    """The message of a job.

    submitted: Unix time. fingerprint: a digest of a request with an idempotency key. repeated: whether an earlier try may have
    stored a message of this job. format: of the message; jobs of format 1 have a record from their acceptance on. trace: the
    trace context of the request, as headers; None without one.
    """

    id: str
    submitted: float
    payload: Content
    webhook: str = ""
    fingerprint: str = ""
    repeated: bool = False
    format: int = FORMAT
    trace: dict[str, str] | None = None

    def pack(self) -> bytes:
        """Return the ticket as bytes: a line of JSON, then the payload."""
        fields = self._asdict()
        if self.trace is None:
            del fields["trace"]
        else:
            fields["format"] = TRACED_FORMAT
        return _pack(fields, self.payload, "payload")

    @classmethod
    def unpack(cls, data: bytes) -> "Ticket":
        """Return the ticket of a message. Raises NewerFormat, and ValueError if it is not the message of a job."""
        try:
            fields, content = _unpack(data)
            if (given := fields.setdefault("format", 1)) > TRACED_FORMAT:
                raise NewerFormat(f"its format is {given}, and this version supports {TRACED_FORMAT}")
            return cls(**fields, payload=content)
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"not the message of a job: {error}") from error


class Record(NamedTuple):
    """The state of a job.

    attempt: number of attempts started. owner: the worker that owns it until `lease_until`. reason, message: why the job or its
    last attempt failed. expires: when the record of an ended job expires. payload: the name of a large payload. writer: an id of
    the write that stored it. Times are Unix times.
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

    def pack(self, writer: str = "") -> bytes:
        """Return the record as bytes: a line of JSON, then the result."""
        fields = {name: value for name, value in self._asdict().items() if value not in ("", None)}
        fields["writer"] = writer
        return _pack(fields, self.result, "result")

    @classmethod
    def unpack(cls, data: bytes) -> "Record":
        """Return the record of an entry."""
        fields, content = _unpack(data)
        return cls(**{**fields, "status": Status(fields["status"])}, result=content)


def _pack(fields: dict[str, Any], content: Content, name: str) -> bytes:
    del fields[name]
    fields["content"] = {"type": content.type, "size": content.size, "stored": content.stored}
    return orjson.dumps(fields) + b"\n" + content.data


def _unpack(data: bytes) -> tuple[dict[str, Any], Content]:
    head, _, body = data.partition(b"\n")
    fields = orjson.loads(head)
    return fields, Content(**fields.pop("content"), data=body)


class Entry(NamedTuple):
    """A stored record. revision: of the backend, for the next compare-and-swap."""

    data: bytes
    revision: Any


class Delivery(NamedTuple):
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


Kind = Literal["payload", "failed"]
"""Objects: large payloads, and the messages of failed jobs."""

Changed = Callable[[float], Awaitable[None]]
"""Waits until a record may have changed, at most the given number of seconds."""


class Backend(Protocol):
    """The store and the messages of one API's queue. Each method raises Unreachable; methods that store also raise Full.

    inline: maximum size in bytes of a payload in its message and of a result in its record. finds_messages: whether `find` and
    `oldest` return messages of jobs, `publish` refuses a second one, and Delivery.times counts all deliveries.
    """

    inline: int
    finds_messages: bool

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

    def stored(self, kind: Kind) -> AsyncIterator[str]:
        """Yield the names of the stored payloads (payload/ID/...) or dead letters (failed/...), in any order."""

    async def publish(self, channel: Channel, id: str, data: bytes) -> None:
        """Store a message, which may be delivered twice.

        With finds_messages, raises Conflict if the queue has a message of the same job.
        """

    async def find(self, id: str) -> bytes | None:
        """Return the message of a job that is queued or running, or None. Only with finds_messages."""

    async def oldest(self, limit: int) -> list[bytes]:
        """Return the messages of the oldest jobs that are queued or running. Only with finds_messages."""

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
