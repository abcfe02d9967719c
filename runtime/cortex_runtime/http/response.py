"""Send a handler's result as an HTTP response: bytes, text, JSON (numpy and pandas included), Starlette responses, streams."""

import asyncio
import logging
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from typing import Any

from starlette.exceptions import HTTPException
from starlette.types import Receive, Send

from cortex_runtime.errors import ClientDisconnected, HttpError, RequestTimeout
from cortex_runtime.http.json_encoder import NotSerializable, TooDeep
from cortex_runtime.http.json_encoder import dumps as to_json
from cortex_runtime.http.request_body import disconnect
from cortex_runtime.logs.records import request_id
from cortex_runtime.logs.tracebacks import brief, in_one_line, printable, text_of

log = logging.getLogger("cortex")

JSON, TEXT, BINARY, LINES, EVENTS = (
    b"application/json",
    b"text/plain; charset=utf-8",
    b"application/octet-stream",
    b"application/x-ndjson",
    b"text/event-stream; charset=utf-8",
)
_WITHOUT_BODY = (204, 205, 304)
_END = object()
_NEWLINE = re.compile(rb"\r\n|\r|\n")
_shows_tracebacks = False
_BREAK = re.compile(rb"[\r\n\0]").search


def encode(value: Any) -> tuple[bytes, bytes]:
    """Return the content type and the body of a plain value. Raises NotSerializable."""
    if type(value) is dict:
        # The usual case.
        return JSON, to_json(value)
    if isinstance(value, str):
        try:
            return TEXT, value.encode()
        except UnicodeEncodeError as error:
            raise NotSerializable(f"result is a str that UTF-8 can't encode: {error.reason}") from error
    if isinstance(value, bytes | bytearray | memoryview):
        return BINARY, bytes(value)
    return JSON, to_json(value)


def split_callback(result: Any) -> tuple[Any, Callable[[], Any] | None]:
    """Return (value, callback or None). A handler may return a pair: the response and a function to call after it was sent."""
    if type(result) is tuple and len(result) == 2 and callable(result[1]):
        return result
    return result, None


def is_stream(value: Any) -> bool:
    """Return whether the value is an iterator whose items are streamed."""
    return isinstance(value, Iterator | AsyncIterator)


class Stream:
    """Send the parts that a generator yields. The type of the first part decides the content type.

    in_thread: runs the next step of a synchronous generator. timeout: seconds to wait for each part. as_events: send server-sent
    events; bytes are then sent unchanged, as events that the generator has formatted.
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
        self._timer: asyncio.Timeout | None = None
        self._left = self._stepping = self._abandoned = False

    async def send(self, receive: Receive, send: Send, *, only_head: bool = False) -> None:
        """Send all parts, or with only_head none. Until the first part exists, nothing is sent.

        Raises ClientDisconnected and RequestTimeout. Always closes the generator.
        """
        gone = asyncio.ensure_future(disconnect(receive))
        gone.add_done_callback(self._leave)
        try:
            part = await self._next()
            if self._left:
                raise ClientDisconnected
            kind, body = (
                self._encode(part) if part is not _END else (EVENTS if self._as_events else BINARY, b"")
            )
            own = [(b"content-type", kind), *([(b"cache-control", b"no-cache")] if self._as_events else [])]
            await send({"type": "http.response.start", "status": 200, "headers": own})
            while part is not _END and not only_head:
                await send({"type": "http.response.body", "body": body, "more_body": True})
                if self._left:
                    raise ClientDisconnected
                part = await self._next()
                if part is not _END:
                    _, body = self._encode(part)
            await send({"type": "http.response.body", "body": b""})
        finally:
            gone.cancel()
            await self._close()

    async def collect(self, receive: Receive) -> list[Any]:
        """Return all parts, which must exist within the timeout. Raises ClientDisconnected and RequestTimeout.

        Always closes the generator.
        """
        gone = asyncio.ensure_future(disconnect(receive))
        gone.add_done_callback(self._leave)
        end = asyncio.get_running_loop().time() + self._timeout
        parts = []
        try:
            while (part := await self._next()) is not _END:
                if self._left:
                    raise ClientDisconnected
                if asyncio.get_running_loop().time() > end:
                    raise RequestTimeout(self._timeout)
                parts.append(part)
            return parts
        finally:
            gone.cancel()
            await self._close()

    def _leave(self, gone: "asyncio.Future[None]") -> None:
        """Stop awaiting an async generator once the client has disconnected. A thread cannot be interrupted."""
        if not gone.cancelled():
            self._left = True
            if self._timer is not None and isinstance(self._parts, AsyncIterator):
                self._timer.reschedule(0)

    async def _next(self) -> Any:
        try:
            async with asyncio.timeout(self._timeout) as timer:
                self._timer = timer
                if isinstance(self._parts, AsyncIterator):
                    return await anext(self._parts, _END)
                return await self._in_thread(self._step)
        except TimeoutError:
            if timer.expired():
                raise (ClientDisconnected() if self._left else RequestTimeout(self._timeout)) from None
            raise
        finally:
            self._timer = None

    def _step(self) -> Any:
        self._stepping = True
        try:
            return next(self._parts, _END)
        finally:
            self._stepping = False
            if self._abandoned:
                self._close_here()

    async def _close(self) -> None:
        """Close the generator, so that its `finally` runs; after the current step if one still runs in a thread."""
        if hasattr(self._parts, "aclose"):
            await self._parts.aclose()
        elif hasattr(self._parts, "close") and getattr(self._parts, "gi_frame", None) is not None:
            self._abandoned = True
            if not self._stepping:
                await self._in_thread(self._close_here)

    def _close_here(self) -> None:
        try:
            self._parts.close()
        except ValueError:
            # It is running in another thread, which will close it.
            if not getattr(self._parts, "gi_running", False):
                raise


def _line(part: Any) -> tuple[bytes, bytes]:
    kind, body = encode(part)
    return (LINES, body + b"\n") if kind == JSON else (kind, body)


def _event(part: Any) -> tuple[bytes, bytes]:
    kind, body = encode(part)
    if kind == BINARY:
        return EVENTS, body
    return EVENTS, b"".join(b"data: %b\n" % line for line in _NEWLINE.split(body)) + b"\n"


async def send(
    to: Send, status: int, kind: bytes, body: bytes, headers: Iterable[tuple[bytes, bytes]] = ()
) -> None:
    """Send a complete response."""
    length = str(len(body)).encode()
    await to(
        {
            "type": "http.response.start",
            "status": status,
            "headers": [(b"content-type", kind), (b"content-length", length), *headers],
        }
    )
    await to({"type": "http.response.body", "body": body})


async def send_error(to: Send, error: HttpError) -> None:
    """Send an error as JSON, with the request ID."""
    if error.status in _WITHOUT_BODY:
        await send(to, error.status, TEXT, b"", error.headers)
    else:
        await send(to, error.status, JSON, error_body(error), error.headers)


def error_body(error: HttpError) -> bytes:
    """Return the JSON of an error. A message that JSON cannot represent becomes text."""
    try:
        return to_json({"error": error.message, **error.details, "requestId": request_id.get()})
    except Exception:
        return to_json({"error": printable(text_of(error.message)), "requestId": request_id.get()})


def error_of(error: BaseException, source: str = "the handler") -> HttpError:
    """Return what the client gets for an exception: the one place that decides this.

    An HttpError and Starlette's HTTPException are meant for the client. Anything else, also one of these that cannot be sent, is
    logged with its traceback, as a failure of `source`, and becomes a 500.
    """
    try:
        answer = _meant_for_the_client(error)
    except Exception as invalid:
        log.error("%s raised a %s that can't be sent", source, type(error).__name__, exc_info=invalid)
        answer = None
    else:
        if isinstance(error, NotSerializable):
            # Its message has the path of the value; a traceback would show the encoder.
            log.error("%s returned a value that JSON cannot represent: %s", source, error)
        elif answer is None:
            log.error("%s failed", source, exc_info=error)
    return answer or _internal_error(error)


def show_tracebacks() -> None:
    """Add the traceback to each response with status 500 of this process from now on; for development."""
    global _shows_tracebacks
    _shows_tracebacks = True


def shown_traceback(error: BaseException) -> str | None:
    """Return the traceback that a client gets; None unless `show_tracebacks` was called."""
    if not _shows_tracebacks:
        return None
    return in_one_line(error) if isinstance(error, NotSerializable) else brief(error)


def _internal_error(error: BaseException) -> HttpError:
    answer = HttpError(500, TooDeep.MESSAGE if isinstance(error, TooDeep) else "internal server error")
    if (traceback := shown_traceback(error)) is not None:
        answer.details = {"traceback": traceback.splitlines()}
    return answer


def _meant_for_the_client(error: BaseException) -> HttpError | None:
    if isinstance(error, HTTPException):
        headers = [
            (name.lower().encode(), value.encode("latin-1")) for name, value in (error.headers or {}).items()
        ]
        error = HttpError(error.status_code, error.detail, headers)
    if not isinstance(error, HttpError):
        return None
    if not isinstance(error.status, int) or not 200 <= error.status <= 599:
        raise ValueError(f"the status of an error must be 200 to 599; got {error.status!r}")
    if any(_BREAK(name) or _BREAK(value) for name, value in error.headers):
        raise ValueError("a header has a line break in it")
    return error
