"""The control channel between a supervisor and its worker processes: all messages, with one encoding for both directions.

A message is a line of JSON with its type and fields, followed by a body of `size` bytes where the message has one.
"""

import asyncio
import json
import socket
import threading
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import orjson


class Drain(msgspec.Struct, frozen=True):
    """To a worker: close each connection after its next response."""


class Stop(msgspec.Struct, frozen=True):
    """To a worker: accept no more work, finish running calls and exit."""


class ReloadModels(msgspec.Struct, frozen=True):
    """To a worker: the index of the models has changed, so read it again."""


class ReloadSplit(msgspec.Struct, frozen=True):
    """To a worker: the file of the split has changed, so read it again."""


class Describe(msgspec.Struct, frozen=True):
    """To a worker: send a `Description`.

    topic: "interface", or "classes" or "differences" of the compared responses; of a job worker "jobs".
    """

    id: str
    topic: str


class Ping(msgspec.Struct, frozen=True):
    """To a worker: answer with `Pong` from the event loop."""


class RunJob(msgspec.Struct, frozen=True):
    """To a job worker: run the handler's method.

    id: of this attempt in this process. job: id of the job. attempt: its number, from 1. body: the payload.
    """

    id: str
    job: str
    attempt: int
    content_type: str
    body: bytes


class RunTracedJob(RunJob, frozen=True):
    """To a job worker: the same, with the trace context as headers."""

    trace: dict[str, str]


class CancelJob(msgspec.Struct, frozen=True):
    """To a job worker: interrupt an attempt if its method is async."""

    id: str


class Ready(msgspec.Struct, frozen=True):
    """From a worker: it has started and accepts work."""


class StartFailed(msgspec.Struct, frozen=True):
    """From a worker: it failed to start and exits."""

    reason: str
    message: str


class Step(msgspec.Struct, frozen=True):
    """From a starting worker: the current step."""

    description: str


class ModelFailed(msgspec.Struct, frozen=True):
    """From a worker: a model could not be loaded."""

    model: str


class ModelsChanged(msgspec.Struct, frozen=True):
    """From a worker: a client has loaded or unloaded a model, so all workers must read which ones are unloaded."""


class Description(msgspec.Struct, frozen=True):
    """From a worker: the answer to `Describe`. body: JSON."""

    id: str
    body: bytes


class Pong(msgspec.Struct, frozen=True):
    """From a worker: its event loop responds. busy: whether all its threads are. finished: number of completed calls."""

    busy: bool
    finished: int


class JobProgress(msgspec.Struct, frozen=True):
    """From a job worker: the progress of a job, from 0 to 1."""

    id: str
    fraction: float
    note: str


class JobCompleted(msgspec.Struct, frozen=True):
    """From a job worker: the method of a job has returned. body: its result as JSON."""

    id: str
    body: bytes


class JobFailed(msgspec.Struct, frozen=True):
    """From a job worker: a job has no result. retryable: whether another attempt may succeed."""

    id: str
    reason: str
    message: str
    retryable: bool


Command = Drain | Stop | ReloadModels | ReloadSplit | Describe | Ping | RunJob | CancelJob
Report = (
    Ready
    | StartFailed
    | Step
    | ModelFailed
    | ModelsChanged
    | Description
    | Pong
    | JobProgress
    | JobCompleted
    | JobFailed
)
Message = Command | Report

_CHUNK = 1 << 18

_TYPES: dict[str, type[Message]] = {
    each.__name__: each
    for each in (
        *(Drain, Stop, ReloadModels, ReloadSplit, Describe, Ping, RunJob, RunTracedJob, CancelJob),
        *(Ready, StartFailed, Step, ModelFailed, ModelsChanged, Description, Pong),
        *(JobProgress, JobCompleted, JobFailed),
    )
}


def encode(message: Message) -> bytes:
    """Return the bytes of a message."""
    fields: dict[str, Any] = {"type": type(message).__name__, **msgspec.structs.asdict(message)}
    body: bytes | None = fields.pop("body", None)
    if body is not None:
        fields["size"] = len(body)
    try:
        line = orjson.dumps(fields)
    except TypeError:
        # A text of user code with a lone surrogate, which only `json` accepts.
        line = json.dumps(fields).encode()
    return b"%b\n%b" % (line, body or b"")


def _decode(head: bytes) -> tuple[type[Message], dict[str, Any], int | None]:
    """Return the type and the fields of a message, and the size of the body that follows its line, if it has one."""
    try:
        fields = orjson.loads(head)
    except orjson.JSONDecodeError:
        fields = json.loads(head)
    return _TYPES[fields.pop("type")], fields, fields.pop("size", None)


async def receive(reader: asyncio.StreamReader) -> Message | None:
    """Return the next message; None if the connection is closed, even in the middle of a message."""
    try:
        head = await reader.readline()
        if not head.endswith(b"\n"):
            return None
        kind, fields, size = _decode(head)
        if size is not None:
            fields["body"] = await reader.readexactly(size)
        return kind(**fields)
    except (OSError, asyncio.IncompleteReadError):
        return None


async def receive_all(reader: asyncio.StreamReader) -> AsyncIterator[list[Message]]:
    """Yield all messages that have arrived, until the other end is closed."""
    buffer, needed = bytearray(), 1
    while True:
        try:
            data = await reader.read(_CHUNK)
        except OSError:
            return
        if not data:
            return
        buffer += data
        if len(buffer) >= needed:
            found, needed = _take(buffer)
            yield found


def _take(buffer: bytearray) -> tuple[list[Message], int]:
    """Remove the complete messages from a buffer. Return them, and the size of the buffer that the next one needs."""
    found: list[Message] = []
    start, needed = 0, 0
    while (end := buffer.find(b"\n", start)) >= 0:
        kind, fields, size = _decode(bytes(buffer[start:end]))
        last = end + 1
        if size is not None:
            last += size
            if last > len(buffer):
                needed = last
                break
            fields["body"] = bytes(buffer[end + 1 : last])
        found.append(kind(**fields))
        start = last
    del buffer[:start]
    return found, max(1, needed - start)


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
            if not head.endswith(b"\n"):
                return None
            kind, fields, size = _decode(head)
            if size is not None:
                fields["body"] = self._stream.read(size)
            return kind(**fields)
        except OSError:
            return None
