"""What a handler returned, as an HTTP response: bytes, text, JSON (numpy and pandas included), Starlette responses, streams."""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from cortex_runtime.json_encoder import NotSerialisable
from cortex_runtime.json_encoder import dumps as to_json
from cortex_runtime.logs import request_id
from cortex_runtime.payload import ClientGone, disconnect

JSON, TEXT, BINARY, LINES, EVENTS = (
    b"application/json",
    b"text/plain; charset=utf-8",
    b"application/octet-stream",
    b"application/x-ndjson",
    b"text/event-stream; charset=utf-8",
)
Headers = list[tuple[bytes, bytes]]
_END = object()
_NEWLINE = re.compile(rb"\r\n|\r|\n")


class Stalled(Exception):
    """A generator gave no further part in time."""


def encode(value: Any) -> tuple[bytes, bytes]:
    """(content type, body) of a plain value."""
    if isinstance(value, str):
        try:
            return TEXT, value.encode()
        except UnicodeEncodeError as error:
            raise NotSerialisable(f"result is a str that UTF-8 can't encode: {error.reason}") from error
    if isinstance(value, bytes | bytearray | memoryview):
        return BINARY, bytes(value)
    return JSON, to_json(value)


def split_callback(result: Any) -> tuple[Any, Callable[[], Any] | None]:
    """(value, callback or None): a handler may return a pair of what it answers and what runs after that."""
    if type(result) is tuple and len(result) == 2 and callable(result[1]):
        return result
    return result, None


def is_stream(value: Any) -> bool:
    """Whether the value is an iterator whose items are sent as they come."""
    return isinstance(value, Iterator | AsyncIterator)


class Stream:
    """What a generator yields, sent part by part as it comes; the first part decides the content type.

    in_thread: runs the next step of a synchronous generator. timeout: seconds until the first part, and from each to the next.
    as_events: as server-sent events; bytes are then taken for events that the generator has written itself.
    """

    def __init__(
        self,
        parts: Any,
        in_thread: Callable[[Callable[[], Any]], Awaitable[Any]],
        timeout: float,
        as_events: bool = False,
    ) -> None:
        self._parts = parts
        self._in_thread = in_thread
        self._timeout = timeout
        self._encode = _event if as_events else _line
        self._as_events = as_events

    async def send(
        self, receive: Receive, send: Send, headers: Headers, complete: Callable[[Headers], Headers]
    ) -> int:
        """Send all. Returns the status.

        complete: what becomes of the headers once the first part is there. An exception before that is raised with nothing
        sent. Raises ClientGone and Stalled; the generator is closed in any case.
        """
        gone = asyncio.ensure_future(disconnect(receive))
        try:
            part = await self._next()
            kind, body = (
                self._encode(part) if part is not _END else (EVENTS if self._as_events else BINARY, b"")
            )
            own = [(b"content-type", kind), *([(b"cache-control", b"no-cache")] if self._as_events else [])]
            await send({"type": "http.response.start", "status": 200, "headers": [*own, *complete(headers)]})
            while part is not _END:
                await send({"type": "http.response.body", "body": body, "more_body": True})
                if gone.done():
                    raise ClientGone
                part = await self._next()
                if part is not _END:
                    _, body = self._encode(part)
            await send({"type": "http.response.body", "body": b""})
            return 200
        finally:
            gone.cancel()
            await self._close()

    async def _next(self) -> Any:
        try:
            async with asyncio.timeout(self._timeout) as timer:
                if isinstance(self._parts, AsyncIterator):
                    return await anext(self._parts, _END)
                return await self._in_thread(lambda: next(self._parts, _END))
        except TimeoutError:
            if timer.expired():
                raise Stalled from None
            raise

    async def _close(self) -> None:
        """Let the generator run its `finally`, wherever it stands."""
        if hasattr(self._parts, "aclose"):
            await self._parts.aclose()
        elif hasattr(self._parts, "close") and getattr(self._parts, "gi_frame", None) is not None:
            await self._in_thread(self._parts.close)


def _line(part: Any) -> tuple[bytes, bytes]:
    kind, body = encode(part)
    return (LINES, body + b"\n") if kind == JSON else (kind, body)


def _event(part: Any) -> tuple[bytes, bytes]:
    kind, body = encode(part)
    if kind == BINARY:
        return EVENTS, body
    return EVENTS, b"".join(b"data: %b\n" % line for line in _NEWLINE.split(body)) + b"\n"


async def send_response(
    response: Response, scope: Scope, receive: Receive, send: Send, headers: Headers
) -> int:
    """Send a Starlette response as it is, with our headers added. Returns its status."""
    names = {name for name, _ in headers}

    async def adding(message: Any) -> None:
        if message["type"] == "http.response.start":
            own = [pair for pair in message.get("headers", ()) if pair[0].lower() not in names]
            message = {**message, "headers": [*own, *headers]}
        await send(message)

    await response(scope, receive, adding)
    return response.status_code


class Started:
    """A send that knows whether the response has begun."""

    __slots__ = ("_send", "yes")

    def __init__(self, send: Send) -> None:
        self._send = send
        self.yes = False

    async def __call__(self, message: Any) -> None:
        """Pass a message on."""
        self.yes = True
        await self._send(message)


async def send(to: Send | Started, status: int, kind: bytes, body: bytes, headers: Headers) -> int:
    """Send a whole response. Returns its status."""
    length = str(len(body)).encode()
    await to(
        {
            "type": "http.response.start",
            "status": status,
            "headers": [(b"content-type", kind), (b"content-length", length), *headers],
        }
    )
    await to({"type": "http.response.body", "body": body})
    return status


async def send_error(to: Send | Started, status: int, message: Any, headers: Headers) -> int:
    """Send what went wrong, with the request's id. Returns the status."""
    return await send(to, status, JSON, to_json({"error": message, "requestId": request_id.get()}), headers)
