"""What a handler returned, as an HTTP response: bytes, text, JSON (numpy and pandas included), Starlette responses, streams."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import numpy as np
import orjson
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

JSON, TEXT, BINARY, LINES = (
    b"application/json",
    b"text/plain; charset=utf-8",
    b"application/octet-stream",
    b"application/x-ndjson",
)
_END = object()


class NotSerialisable(TypeError):
    """A handler returned what can't be sent."""


def _default(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    for cls in type(value).__mro__:
        # pandas is not ours to import: a user who returns its objects has done so.
        if cls.__module__.startswith("pandas."):
            return value.to_dict(orient="records") if cls.__name__ == "DataFrame" else value.tolist()
    if isinstance(value, set | frozenset):
        return list(value)
    raise TypeError


def to_json(value: Any) -> bytes:
    """A value as JSON. Raises NotSerialisable, naming the type."""
    try:
        return orjson.dumps(value, default=_default, option=orjson.OPT_SERIALIZE_NUMPY)
    except TypeError:
        # Keys that are no strings make every dump slower, so they get a second try.
        try:
            return orjson.dumps(
                value, default=_default, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS
            )
        except TypeError as error:
            raise NotSerialisable(
                f"the handler returned a {type(value).__name__} that is not JSON: {error}"
            ) from error


def encode(value: Any) -> tuple[bytes, bytes]:
    """(content type, body) of a plain value."""
    if isinstance(value, str):
        return TEXT, value.encode()
    if isinstance(value, bytes | bytearray | memoryview):
        return BINARY, bytes(value)
    return JSON, to_json(value)


def split_callback(result: Any) -> tuple[Any, Callable[[], Any] | None]:
    """(value, callback or None): a handler may return a pair of what it answers and what runs after that."""
    if type(result) is tuple and len(result) == 2 and callable(result[1]) and not callable(result[0]):
        return result
    return result, None


def is_stream(value: Any) -> bool:
    """Whether the value is an iterator whose items are sent as they come."""
    return isinstance(value, Iterator | AsyncIterator)


async def send_stream(
    stream: Any,
    send: Send,
    headers: list[tuple[bytes, bytes]],
    in_thread: Callable[[Callable[[], Any]], Awaitable[Any]],
) -> int:
    """Send what a generator yields, each part at once; the first part decides the content type.

    An exception before the first part is raised with nothing sent. Returns the status.
    """

    async def following() -> Any:
        if isinstance(stream, AsyncIterator):
            return await anext(stream, _END)
        return await in_thread(lambda: next(stream, _END))

    item = await following()
    kind = (
        LINES if item is not _END and encode(item)[0] == JSON else BINARY if item is _END else encode(item)[0]
    )
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", kind), *headers]})
    while item is not _END:
        item_kind, body = encode(item)
        if item_kind == JSON:
            body += b"\n"
        await send({"type": "http.response.body", "body": body, "more_body": True})
        item = await following()
    await send({"type": "http.response.body", "body": b""})
    return 200


async def send_response(
    response: Response, scope: Scope, receive: Receive, send: Send, headers: list[tuple[bytes, bytes]]
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
