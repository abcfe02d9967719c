"""gRPC calls and methods as the services use them, and the handlers that `grpc.aio` calls.

Requests and responses are bytes. Each service parses its own messages, so that it can report an invalid message as an error.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import grpc
from grpc import StatusCode
from grpc.aio import EOF, ServicerContext


class CallError(Exception):
    """The call ends with this code, which is not OK. message: text for the client."""

    def __init__(self, code: StatusCode, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class Call:
    """One gRPC call.

    path: path of the method, such as "/package.Service/Method". headers: the client's metadata by lowercase name. If a name is
    repeated, its last value is used.
    """

    def __init__(self, path: str, context: "ServicerContext[bytes, bytes]") -> None:
        self.path = path
        self._context = context
        self._metadata: dict[str, str] = {}
        self.headers: dict[bytes, bytes] = {
            key.encode(): value if isinstance(value, bytes) else value.encode()
            for key, value in context.invocation_metadata() or ()
        }

    def set_metadata(self, name: str, value: str) -> None:
        """Set metadata that ends the response (trailing metadata), in addition to what was set before."""
        self._metadata[name] = value
        self._context.set_trailing_metadata(tuple(self._metadata.items()))

    async def receive(self) -> bytes | None:
        """Return the next message of a stream, or None after the last."""
        message: Any = await self._context.read()
        return None if message is EOF else message

    async def send(self, message: bytes) -> None:
        """Send a message of a stream. Waits while the client does not read."""
        await self._context.write(message)


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


class RpcHandlers(grpc.GenericRpcHandler):
    """The methods of a server, by path such as "/package.Service/Method"."""

    def __init__(self, methods: Mapping[str, Method]) -> None:
        self.use(methods)

    def use(self, methods: Mapping[str, Method]) -> None:
        """Answer the calls that follow with these methods."""
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
    except CallError as error:
        await context.abort(error.code, error.message)
        raise


async def _run_stream(
    path: str,
    run: Callable[[Call], Awaitable[None]],
    messages: Any,
    context: "ServicerContext[bytes, bytes]",
) -> None:
    try:
        await run(Call(path, context))
    except CallError as error:
        await context.abort(error.code, error.message)
