"""The control channel between a supervisor and its worker processes: all messages, with one encoding for both directions.

A message is a line of JSON with its type and fields, followed by a body of `size` bytes where the message has one.
"""

import asyncio
import json
import socket
import threading
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Drain:
    """To a worker: close each connection after its next response."""


@dataclass(frozen=True)
class Stop:
    """To a worker: accept no more work, finish running calls and exit."""


@dataclass(frozen=True)
class ReloadModels:
    """To a worker: the index of the models has changed, so read it again."""


@dataclass(frozen=True)
class Ping:
    """To a worker: answer with `Pong` from the event loop."""


@dataclass(frozen=True)
class RunJob:
    """To a job worker: run the handler's method. body: the payload."""

    id: str
    content_type: str
    body: bytes


@dataclass(frozen=True)
class CancelJob:
    """To a job worker: interrupt a job if its method is async."""

    id: str


@dataclass(frozen=True)
class Ready:
    """From a worker: it has started and accepts work."""


@dataclass(frozen=True)
class StartFailed:
    """From a worker: it failed to start and exits."""

    reason: str
    message: str


@dataclass(frozen=True)
class Step:
    """From a starting worker: the current step."""

    description: str


@dataclass(frozen=True)
class ModelFailed:
    """From a worker: a model could not be loaded."""

    model: str


@dataclass(frozen=True)
class Pong:
    """From a worker: its event loop responds. busy: whether all its threads are. finished: number of completed calls."""

    busy: bool
    finished: int


@dataclass(frozen=True)
class JobProgress:
    """From a job worker: the progress of a job, from 0 to 1."""

    id: str
    fraction: float
    note: str


@dataclass(frozen=True)
class JobCompleted:
    """From a job worker: the method of a job has returned. body: its result as JSON."""

    id: str
    body: bytes


@dataclass(frozen=True)
class JobFailed:
    """From a job worker: a job has no result. retryable: whether another attempt may succeed."""

    id: str
    reason: str
    message: str
    retryable: bool


Command = Drain | Stop | ReloadModels | Ping | RunJob | CancelJob
Report = Ready | StartFailed | Step | ModelFailed | Pong | JobProgress | JobCompleted | JobFailed
Message = Command | Report

_TYPES: dict[str, type[Message]] = {
    each.__name__: each
    for each in (
        *(Drain, Stop, ReloadModels, Ping, RunJob, CancelJob),
        *(Ready, StartFailed, Step, ModelFailed, Pong, JobProgress, JobCompleted, JobFailed),
    )
}


def encode(message: Message) -> bytes:
    """Return the bytes of a message."""
    fields: dict[str, Any] = {"type": type(message).__name__, **vars(message)}
    body: bytes | None = fields.pop("body", None)
    if body is None:
        return json.dumps(fields).encode() + b"\n"
    return json.dumps({**fields, "size": len(body)}).encode() + b"\n" + body


def decode(head: bytes, body: bytes = b"") -> Message:
    """Return the message of a line and the body that follows it."""
    fields = json.loads(head)
    kind = _TYPES[fields.pop("type")]
    if fields.pop("size", None) is not None:
        fields["body"] = body
    return kind(**fields)


def body_size(head: bytes) -> int:
    """Return the number of bytes that follow a line."""
    size: int = json.loads(head).get("size", 0)
    return size


async def receive(reader: asyncio.StreamReader) -> Message | None:
    """Return the next message; None if the connection is closed, even in the middle of a message."""
    try:
        head = await reader.readline()
        if not head.endswith(b"\n"):
            return None
        return decode(head, await reader.readexactly(body_size(head)))
    except (OSError, asyncio.IncompleteReadError):
        return None


class ControlChannel:
    """The worker's end of the channel. Any thread may send; only one may receive."""

    def __init__(self, descriptor: int) -> None:
        self._socket = socket.socket(fileno=descriptor)
        self._stream = self._socket.makefile("rb")
        self._lock = threading.Lock()

    def send(self, message: Report) -> None:
        """Send a report to the supervisor. Raises OSError if the supervisor has exited."""
        data = encode(message)
        with self._lock:
            self._socket.sendall(data)

    def receive(self) -> Message | None:
        """Wait for a command and return it; None if the supervisor has exited."""
        try:
            head = self._stream.readline()
            return decode(head, self._stream.read(body_size(head))) if head.endswith(b"\n") else None
        except OSError:
            return None
