"""What a queue keeps, what a backend must be able to do, and what is promised of both.

The promises:

- A job is accepted once its message is stored; the message carries the payload, or follows it when it is large. Its record is
  stored after that, and only then is 202 answered. So a record never stands for a job that no worker will get, whoever dies
  when.
- Delivery is at least once. A worker that gets a message first makes the record say so (in_progress, one attempt more), and
  whoever finds no record yet makes it: message and record need no common transaction.
- A record is only ever replaced by compare-and-swap against the revision that was read. A worker that has lost its lease thus
  finds its write refused: a result is never overwritten, and none is shown but that of the attempt that the record names.
- The lease stands twice: with the message, so that a dead worker's job comes back, and in the record, so that a message
  delivered twice does not start a job that somebody still works on.
- When a job ends: result, record, webhook's message, removal of the payload, removal of the message, in this order. Each step
  may be done again, and a message that comes back after its job's end only does the later ones.
- Attempts are counted in the record before the handler runs, so that a handler that takes its process along is counted too.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Literal, Protocol

import orjson

Channel = Literal["jobs", "hooks"]
"""Jobs are taken by the workers, hooks (who is told that a job has ended) by the gateway."""


class QueueError(Exception):
    """A queue could not do what it was asked for."""


class Unreachable(QueueError):
    """The backend does not answer; what was asked for may have happened or not."""


class Full(QueueError):
    """The backend has no room for more."""


class Conflict(QueueError):
    """The record is another by now."""


class Missing(QueueError):
    """A payload or result is not there any more."""


class LeaseLost(QueueError):
    """The job is no longer this worker's: it was cancelled, or somebody else has it."""


class Status(StrEnum):
    """Where a job is, as a client sees it."""

    IN_QUEUE = "in_queue"
    IN_PROGRESS = "in_progress"
    COMPLETED = "completed"
    FAILED = "failed"


@dataclass(frozen=True)
class Content:
    """A payload or a result: here, or (when large) under a name in the backend's store. size: in bytes."""

    type: str = ""
    size: int = 0
    data: bytes = b""
    stored: str = ""


@dataclass(frozen=True)
class Ticket:
    """The message of a job. submitted: Unix time. fingerprint: of the request, when it came with an idempotency key."""

    id: str
    submitted: float
    payload: Content
    webhook: str = ""
    fingerprint: str = ""

    def pack(self) -> bytes:
        """As bytes: a line of JSON, and the payload after it."""
        return _pack(self, "payload")

    @classmethod
    def unpack(cls, data: bytes) -> "Ticket":
        """The ticket in a message."""
        fields, content = _unpack(data)
        return cls(**fields, payload=content)


@dataclass(frozen=True)
class Record:
    """What is known of a job.

    attempt: how often it was started. owner: the worker that has it, until `lease_until`. reason and message: why it failed,
    or why the last attempt did. expires: when an ended job is forgotten. payload: where a large one is stored. writer: marks
    this very write. Times are Unix times.
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
        """Whether nothing will happen to the job any more."""
        return self.status in (Status.COMPLETED, Status.FAILED)

    def pack(self) -> bytes:
        """As bytes: a line of JSON, and the result after it."""
        return _pack(self, "result")

    @classmethod
    def unpack(cls, data: bytes) -> "Record":
        """The record in an entry."""
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
    """A record as it is stored. revision: the backend's, for the next compare-and-swap."""

    data: bytes
    revision: Any


@dataclass(frozen=True)
class Delivery:
    """A message held under the lease. times: how often it was delivered, this time included. handle: the backend's."""

    id: str
    data: bytes
    times: int
    handle: Any


@dataclass(frozen=True)
class Depth:
    """How much a channel holds. waiting: not delivered; taken: delivered and not settled; oldest: seconds since the oldest was
    accepted, None when the backend can't tell."""

    waiting: int
    taken: int
    oldest: float | None


Changed = Callable[[float], Awaitable[None]]


class Backend(Protocol):
    """The store and the messages of one API's queue. Each method raises Unreachable, and Full where it stores.

    inline: bytes of a payload or result that travel within message and record.
    """

    inline: int

    async def open(self) -> None:
        """Connect and create what isn't there; the same again changes nothing."""

    async def close(self) -> None:
        """Let go of the connection."""

    async def destroy(self) -> None:
        """Connect and remove the queue with all that is in it; one that is not there is fine. Creates nothing."""

    async def read(self, id: str, *, fresh: bool = False) -> Entry | None:
        """A job's record. fresh: from where writes are decided, not from a copy that may lag."""

    async def write(self, id: str, data: bytes, revision: Any, ttl: float | None) -> Any:
        """Create a record (revision None) or replace the one of this revision; gives the new revision.

        ttl: seconds after which it may go. data: unlike that of any other write, since a revision may be a digest of it. Raises
        Conflict.
        """

    def watch(self, id: str) -> AbstractAsyncContextManager[Changed]:
        """While it is open, what it gives returns when the record may have changed since the last time, after so many seconds
        at the latest. What happens after it was opened is never missed for longer than a poll takes."""

    async def put(self, name: str, data: bytes, ttl: float | None) -> None:
        """Store a payload or result under a name that is used once. ttl: seconds after which it may go."""

    async def get(self, name: str) -> bytes:
        """A payload or result, whole. Raises Missing."""

    async def remove(self, name: str) -> None:
        """Remove a payload; one that is not there is fine."""

    def payloads(self) -> AsyncIterator[str]:
        """Names of the payloads in the store: payload/ID/..."""

    async def publish(self, channel: Channel, id: str, data: bytes) -> None:
        """Store a message; it may come twice. The same data again within a minute may be taken for the same message."""

    async def holds(self, id: str) -> bool | None:
        """Whether a job's message is in the queue; None when the backend can't tell."""

    async def withdraw(self, id: str) -> None:
        """Take a job's message out of the queue where the backend can; else it comes to a worker, who drops it."""

    async def take(self, channel: Channel, limit: int, seconds: float) -> list[Delivery]:
        """Up to so many messages, as soon as there is one; none after so many seconds."""

    async def renew(self, delivery: Delivery) -> None:
        """Begin the lease of a message again."""

    async def release(self, delivery: Delivery, delay: float) -> None:
        """Give a message back, to be delivered again after so many seconds."""

    async def settle(self, delivery: Delivery) -> None:
        """The message is done with."""

    async def depth(self, channel: Channel) -> Depth:
        """How much a channel holds."""

    async def expire(self, keep: float) -> None:
        """Remove ended jobs' records and results that are older than so many seconds, where that doesn't happen by itself."""
