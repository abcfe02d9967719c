"""A call of a gRPC method: one stream of a connection, for its handler."""

import asyncio
import gzip
import zlib
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING
from urllib.parse import quote

from cortex_runtime.http2 import hpack

if TYPE_CHECKING:
    from cortex_runtime.http2.connection import Connection

_UNITS = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}
_PREFIX = 5
"""Bytes before each message: whether it is compressed, and its length."""
_QUEUED = 8
"""Messages of a stream that wait for the handler before the client must wait."""


class Code(IntEnum):
    """The status codes of gRPC."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    UNAUTHENTICATED = 16


class Status(Exception):
    """Ends a call with a code other than OK. message: text for the client."""

    def __init__(self, code: Code, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


@dataclass(frozen=True)
class Method:
    """A method of a service. unary: takes the message of a call, returns the response. stream: reads and writes messages with
    `Call.receive` and `Call.send`. One of them is set. Both may raise Status.

    inline: answers a unary call at once, without a task; returns None for a call that needs one.
    """

    unary: "Callable[[bytes, Call], Awaitable[bytes]] | None" = None
    stream: "Callable[[Call], Awaitable[None]] | None" = None
    inline: "Callable[[bytes, Call], bytes | None] | None" = None


class Call:
    """One call. headers: those of the request, by name; the last value of a name counts. added: header block to add to the
    response.
    """

    __slots__ = (
        "_buffer",
        "_expected",
        "_messages",
        "_waiter",
        "added",
        "connection",
        "ended",
        "headers",
        "identity",
        "in_window",
        "method",
        "out",
        "out_window",
        "path",
        "started",
        "task",
        "trailers",
    )

    def __init__(
        self,
        connection: "Connection",
        identity: int,
        headers: dict[bytes, bytes],
        method: Method,
        windows: tuple[int, int],
    ) -> None:
        self.connection = connection
        self.identity = identity
        self.headers = headers
        self.path = headers[b":path"]
        self.method = method
        self.in_window, self.out_window = windows
        self.added = b""
        self.started = self.ended = False
        self.out: deque[memoryview] = deque()
        self.trailers: bytes | None = None
        self.task: asyncio.Task[None] | None = None
        self._buffer = bytearray()
        self._expected = _PREFIX
        self._messages: deque[bytes] = deque()
        self._waiter: asyncio.Future[None] | None = None

    def timeout(self) -> float | None:
        """Return the timeout of the call in seconds, or None. Raises Status if it is not valid."""
        given = self.headers.get(b"grpc-timeout")
        if given is None:
            return None
        amount, unit = given[:-1], _UNITS.get(given[-1:])
        if unit is None or not amount.isdigit() or len(amount) > 8:
            raise Status(Code.INTERNAL, f"grpc-timeout {given[:20].decode('latin-1')!r} is not valid")
        return int(amount) * unit

    def feed(self, data: memoryview) -> None:
        """Add data of the request. Raises Status if a message is larger than the limit."""
        if self._buffer:
            self._buffer += data
            if len(self._buffer) < self._expected:
                return
            data = memoryview(bytes(self._buffer))
            self._buffer.clear()
        while len(data) >= _PREFIX:
            size = int.from_bytes(data[1:_PREFIX])
            if size > self.connection.server.max_message:
                raise Status(
                    Code.RESOURCE_EXHAUSTED,
                    f"the message has {size} bytes, more than the limit of {self.connection.server.max_message} bytes"
                    " (maxBodySize)",
                )
            self._expected = _PREFIX + size
            if len(data) < self._expected:
                break
            message = bytes(data[_PREFIX : self._expected])
            self._messages.append(self._decompressed(message) if data[0] else message)
            data = data[self._expected :]
            self._expected = _PREFIX
        self._buffer += data
        if self._messages:
            self._wake()

    def end(self) -> None:
        """Note that the client sends nothing more. Raises Status if a message is incomplete."""
        self.ended = True
        if self._buffer:
            raise Status(Code.INTERNAL, "the request ends within a message")
        self._wake()

    @property
    def is_slow(self) -> bool:
        """Whether messages wait for the handler, so that the client must wait too."""
        return len(self._messages) >= _QUEUED

    def only_message(self) -> bytes:
        """Return the message of a unary call. Raises Status."""
        if len(self._messages) != 1:
            raise Status(Code.INTERNAL, f"the method takes one message, got {len(self._messages)}")
        return self._messages[0]

    async def receive(self) -> bytes | None:
        """Return the next message of a stream, or None after the last."""
        while not self._messages:
            if self.ended:
                return None
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        message = self._messages.popleft()
        self.connection.grant(self)
        return message

    async def send(self, message: bytes) -> None:
        """Send a message of a stream. Waits while the client does not read."""
        self.connection.send_message(self, message)
        await self.connection.writable(self)

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _decompressed(self, message: bytes) -> bytes:
        encoding = self.headers.get(b"grpc-encoding", b"identity")
        limit = self.connection.server.max_message
        try:
            if encoding == b"gzip":
                reader = zlib.decompressobj(16 + zlib.MAX_WBITS)
            elif encoding == b"deflate":
                reader = zlib.decompressobj()
            else:
                raise Status(
                    Code.UNIMPLEMENTED,
                    f"grpc-encoding {encoding[:40].decode('latin-1')!r} is not supported; use gzip or deflate",
                )
            content = reader.decompress(message, limit + 1)
        except (zlib.error, gzip.BadGzipFile) as error:
            raise Status(Code.INTERNAL, f"the message cannot be decompressed: {error}") from None
        if len(content) > limit:
            raise Status(
                Code.RESOURCE_EXHAUSTED,
                f"the message is larger than the limit of {limit} bytes (maxBodySize)",
            )
        return content


def framed(message: bytes) -> bytes:
    """Return a message as it is sent, uncompressed."""
    return b"\0" + len(message).to_bytes(4) + message


def trailers(status: Status | None) -> list[tuple[bytes, bytes]]:
    """Return the trailers of a response. status: None for success."""
    if status is None:
        return [(b"grpc-status", b"0")]
    message = quote(status.message.encode(errors="replace")[:4096], safe=" !\"#$&'()*+,/:;<=>?@[]^_`{|}~")
    return [(b"grpc-status", str(int(status.code)).encode()), (b"grpc-message", message.encode())]


HEADERS = b"\x88" + hpack.encode(
    [(b"content-type", b"application/grpc"), (b"grpc-accept-encoding", b"identity,deflate,gzip")]
)
"""The header block of every response: status 200."""
SUCCESS = hpack.encode(trailers(None))
"""The trailers of every successful call."""
