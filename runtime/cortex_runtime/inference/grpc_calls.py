"""A call of a gRPC method, as the services see it, and the handlers that `grpc.aio` calls for it.

Messages pass as bytes: each service parses its own, so that an invalid message is answered like any other bad input.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import grpc
from grpc import StatusCode
from grpc.aio import EOF, ServicerContext


class Status(Exception):
    """Ends a call with a code other than OK. message: text for the client."""

    def __init__(self, code: StatusCode, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class Call:
    """One call. path: of the method. headers: the metadata of the client, by lowercase name; the last value of a name counts."""

    def __init__(self, path: str, context: "ServicerContext[bytes, bytes]") -> None:
        self.path = path
        self._context = context
        self.headers: dict[bytes, bytes] = {
            key.encode(): value if isinstance(value, bytes) else value.encode()
            for key, value in context.invocation_metadata() or ()
        }

    def set_metadata(self, name: str, value: str) -> None:
        """Set metadata that ends the response (trailing metadata)."""
        self._context.set_trailing_metadata(((name, value),))

    async def receive(self) -> bytes | None:
        """Return the next message of a stream, or None after the last."""
        message: Any = await self._context.read()
        return None if message is EOF else message

    async def send(self, message: bytes) -> None:
        """Send a message of a stream. Waits while the client does not read."""
        await self._context.write(message)


@dataclass(frozen=True)
class Method:
    """A method of a service. unary: takes the message of a call, returns the response. stream: reads and writes messages with
    `Call.receive` and `Call.send`. One of them is set. inline: tried before `unary`, returns None for a call that has to wait.
    All may raise Status.
    """

    unary: Callable[[bytes, Call], Awaitable[bytes]] | None = None
    stream: Callable[[Call], Awaitable[None]] | None = None
    inline: Callable[[bytes, Call], bytes | None] | None = None


class Handlers(grpc.GenericRpcHandler):
    """The methods of a server, by path such as "/package.Service/Method"."""

    def __init__(self, methods: Mapping[str, Method]) -> None:
        self._handlers = {path: _handler(path, method) for path, method in methods.items()}

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        """Return the handler of a call, or None if the method is unknown."""
        return self._handlers.get(handler_call_details.method)


def _handler(path: str, method: Method) -> Any:
    if method.unary is not None:
        return grpc.unary_unary_rpc_method_handler(partial(_run_unary, path, method.unary, method.inline))
    assert method.stream is not None
    return grpc.stream_stream_rpc_method_handler(partial(_run_stream, path, method.stream))


async def _run_unary(
    path: str,
    run: Callable[[bytes, Call], Awaitable[bytes]],
    inline: Callable[[bytes, Call], bytes | None] | None,
    message: bytes,
    context: "ServicerContext[bytes, bytes]",
) -> bytes:
    call = Call(path, context)
    try:
        if inline is not None and (content := inline(message, call)) is not None:
            return content
        return await run(message, call)
    except Status as status:
        await context.abort(status.code, status.message)
        raise


async def _run_stream(
    path: str,
    run: Callable[[Call], Awaitable[None]],
    messages: Any,
    context: "ServicerContext[bytes, bytes]",
) -> None:
    try:
        await run(Call(path, context))
    except Status as status:
        await context.abort(status.code, status.message)
