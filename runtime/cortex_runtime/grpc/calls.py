"""gRPC calls and methods as the services use them.

Requests and responses are bytes. Each service parses its own messages, so that it can report an invalid message as an error.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

from cortex_runtime.grpc.status import StatusCode


class CallError(Exception):
    """The call ends with this code, which is not OK. message: text for the client."""

    def __init__(self, code: StatusCode, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class MessageStream(Protocol):
    """The messages of a call in both directions."""

    async def receive(self) -> bytes | None:
        """Return the next message, or None after the last. Raises CallError."""

    async def send(self, message: bytes) -> None:
        """Send a message."""


class Call:
    """One gRPC call.

    path: path of the method, such as "/package.Service/Method". headers: the client's metadata by lowercase name; if a name is
    repeated, its last value is used. metadata: what ends the response (trailing metadata), by name.
    """

    __slots__ = ("_stream", "headers", "metadata", "path")

    def __init__(self, path: str, headers: dict[bytes, bytes], stream: MessageStream) -> None:
        self.path = path
        self.headers = headers
        self.metadata: dict[str, str] = {}
        self._stream = stream

    def set_metadata(self, name: str, value: str) -> None:
        """Set metadata that ends the response, in addition to what was set before."""
        self.metadata[name] = value

    async def receive(self) -> bytes | None:
        """Return the next message of a stream, or None after the last. Raises CallError."""
        return await self._stream.receive()

    async def send(self, message: bytes, code: StatusCode = StatusCode.OK) -> None:
        """Send a message of a stream. Waits while the client does not read.

        code: what the message means, for those who observe the call; the client does not get it.
        """
        await self._stream.send(message)


@dataclass(frozen=True)
class Method:
    """A method of a service. Exactly one of `unary` and `stream` is set.

    unary: takes the request message and returns the response message. stream: reads messages with `Call.receive` and writes them
    with `Call.send`. inline: optional, with `unary` only. It is called first, on the event loop, and returns the response, or
    None if the call must wait; then `unary` is called. All three may raise CallError.
    """

    unary: Callable[[bytes, Call], Awaitable[bytes]] | None = None
    stream: Callable[[Call], Awaitable[None]] | None = None
    inline: Callable[[bytes, Call], bytes | None] | None = None
