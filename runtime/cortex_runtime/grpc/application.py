"""gRPC as an ASGI application, for a server of HTTP/2 that sends trailers (the ASGI extension `http.response.trailers`).

The server cancels the task of a call when the client has cancelled it, so a method sees `asyncio.CancelledError`.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any

from starlette.types import Receive, Scope, Send

from cortex_runtime.grpc.calls import Call, CallError, Method
from cortex_runtime.grpc.messages import ENCODINGS, MessageReader, frame
from cortex_runtime.grpc.metadata import parse_headers, timeout_of, trailers
from cortex_runtime.grpc.status import StatusCode

log = logging.getLogger("cortex")

_CONTENT_TYPE = (b"content-type", b"application/grpc")
_START: dict[str, Any] = {
    "type": "http.response.start",
    "status": 200,
    "headers": [_CONTENT_TYPE, (b"grpc-accept-encoding", ENCODINGS)],
    "trailers": True,
}
_BODY = "http.response.body"
_END: dict[str, Any] = {"type": _BODY, "body": b""}
_TRAILERS = "http.response.trailers"


class Application:
    """The methods of a server, by path.

    max_message: bytes of a request message. timeout: seconds to receive the message of a unary call.
    """

    def __init__(self, methods: Mapping[str, Method], *, max_message: int, timeout: float) -> None:
        self._max_message, self._timeout = max_message, timeout
        self.use(methods)

    def use(self, methods: Mapping[str, Method]) -> None:
        """Answer the calls that follow with these methods."""
        self._methods = dict(methods)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await send({"type": "websocket.close"})
            return
        path, code, text = scope["path"], StatusCode.OK, ""
        call: Call | None = None
        stream = _Stream(receive, send)
        try:
            headers = parse_headers(scope["headers"])
            if refusal := _refusal(scope, headers):
                await _refuse(send, *refusal)
                return
            call = Call(path, headers, stream)
            stream.reader = MessageReader(headers.get(b"grpc-encoding"), self._max_message)
            method = self._methods.get(path)
            if method is None:
                raise CallError(StatusCode.UNIMPLEMENTED, f"method {path[:200]} does not exist")
            if method.unary is None:
                assert method.stream is not None
                await _run(method.stream, call)
            else:
                await stream.send(await self._answer(method, method.unary, call, stream))
        except CallError as error:
            code, text = error.code, error.message
        except OSError:
            # The client has cancelled the call.
            return
        except Exception:
            log.exception("%s failed", path)
            code, text = StatusCode.INTERNAL, "internal error"
        await stream.end(trailers(code, text, {} if call is None else call.metadata))

    async def _answer(
        self,
        method: Method,
        unary: Callable[[bytes, Call], Awaitable[bytes]],
        call: Call,
        stream: "_Stream",
    ) -> bytes:
        """Return the response of a unary call."""
        message = await stream.receive_buffered()
        if message is None:
            try:
                async with asyncio.timeout(self._timeout):
                    message = await stream.receive()
            except TimeoutError:
                text = f"the request message was not received within {self._timeout:g} s"
                raise CallError(StatusCode.DEADLINE_EXCEEDED, text) from None
        if message is None:
            raise CallError(StatusCode.INVALID_ARGUMENT, "the call has no request message")
        if method.inline is not None and (content := method.inline(message, call)) is not None:
            return content
        return await _run(partial(unary, message), call)


class _Stream:
    """The messages of a call in both directions."""

    __slots__ = ("_ended", "_receive", "_send", "_started", "reader")
    reader: MessageReader

    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive, self._send = receive, send
        self._started = self._ended = False

    async def receive_buffered(self) -> bytes | None:
        """Return a message if it is complete in the first part of the request. Raises CallError."""
        await self._read()
        return self.reader.next()

    async def receive(self) -> bytes | None:
        """Return the next message, or None after the last. Raises CallError."""
        while (message := self.reader.next()) is None:
            if self._ended:
                if not self.reader.is_empty:
                    raise CallError(StatusCode.INVALID_ARGUMENT, "the last message is incomplete")
                return None
            await self._read()
        return message

    async def _read(self) -> None:
        event = await self._receive()
        if event["type"] == "http.disconnect":
            raise asyncio.CancelledError
        self._ended = not event.get("more_body", False)
        self.reader.feed(event.get("body", b""))

    async def send(self, message: bytes) -> None:
        """Send a message. Waits while the client does not read."""
        if not self._started:
            self._started = True
            await self._send(_START)
        for part in frame(message):
            await self._send({"type": _BODY, "body": part, "more_body": True})

    async def end(self, last: list[tuple[bytes, bytes]]) -> None:
        """End the response. last: the trailers."""
        if not self._started:
            await self._send(_START)
        await self._send(_END)
        await self._send({"type": _TRAILERS, "headers": last})


async def _run(method: Callable[[Call], Awaitable[Any]], call: Call) -> Any:
    """Return the result of a method, which is cancelled at the deadline of the call. Raises CallError."""
    seconds = timeout_of(call.headers)
    if seconds is None:
        return await method(call)
    deadline = asyncio.timeout(seconds)
    try:
        async with deadline:
            return await method(call)
    except TimeoutError:
        if not deadline.expired():
            raise
        raise CallError(StatusCode.DEADLINE_EXCEEDED, "deadline exceeded") from None


def _refusal(scope: Scope, headers: Mapping[bytes, bytes]) -> tuple[int, str] | None:
    """Return the HTTP status and the text for a request that is not a call of gRPC."""
    if not headers.get(b"content-type", b"").lower().startswith(b"application/grpc"):
        return 415, "this port serves gRPC; content-type must be application/grpc"
    if scope["method"] != "POST":
        return 405, "calls of gRPC use the method POST"
    if _TRAILERS not in scope["extensions"]:
        return 400, "te must be trailers"
    return None


async def _refuse(send: Send, status: int, text: str) -> None:
    headers = [(b"content-type", b"text/plain")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": f"{text}\n".encode()})
