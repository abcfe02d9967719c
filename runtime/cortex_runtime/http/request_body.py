"""Read a request body and parse it by content type into the handler's payload. Used only if the handler takes a payload."""

import asyncio
import functools
import logging
import re
from collections.abc import Iterable, Mapping
from email.utils import collapse_rfc2231_value
from typing import Any

from starlette.types import Message as AsgiMessage
from starlette.types import Receive, Scope

from cortex_runtime.errors import BodyTooLarge, ClientDisconnected, HttpError, UserError
from cortex_runtime.http import json_parser
from cortex_runtime.http.charsets import decode
from cortex_runtime.http.forms import parse_multipart, parse_urlencoded

log = logging.getLogger("cortex")

_MEDIA_TYPE = re.compile(r"[!#$%&'*+.^_`|~0-9a-z-]+/[!#$%&'*+.^_`|~0-9a-z-]+").fullmatch
_ZEROS = re.compile(rb"\0*").match
_FIRST_SLICE, _LAST_SLICE = 1024, 1024 * 1024
"""Bytes of gzip that a decompressor gets at first and at most at once, from the second member on."""
_MAX_MEMBERS = 100_000
_LONG = 64 * 1024
"""Bytes of a compressed body from which on it is decompressed in a thread: it may become a thousand times as large."""
_SHORT_CONTENT = 2 * 1024 * 1024
"""Bytes of content up to which gzip is decompressed at once: that takes no longer than to parse the content."""
_PLAIN_JSON = frozenset(
    (b"application/json", b"application/json; charset=utf-8", b"application/json;charset=utf-8")
)


def require_method(scope: Scope, method: str) -> None:
    """Raise HttpError with status 405 for a request with another method. GET includes HEAD."""
    if scope["method"] != method and (scope["method"], method) != ("HEAD", "GET"):
        raise method_not_allowed(scope, ("GET", "HEAD") if method == "GET" else (method,))


def method_not_allowed(scope: Scope, methods: Iterable[str]) -> HttpError:
    """Return the error of a request with another method than these."""
    allowed = ", ".join(methods)
    message = f"{scope['method']} is not allowed for {scope['path'][:80]}; use {allowed}"
    return HttpError(405, message, [(b"allow", allowed.encode())])


async def disconnect(receive: Receive) -> None:
    """Wait until the client disconnects. Discards the rest of the body."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def read_body(receive: Receive, headers: Mapping[bytes, bytes], limit: int, timeout: float) -> bytes:
    """Read and return the whole request body, decompressed as Content-Encoding says.

    limit: bytes, before and after decompression. timeout: seconds. Raises BodyTooLarge as soon as the body is known to exceed the
    limit, ClientDisconnected, and UserError: with status 408 when the body does not arrive in time, 400 or 415 for its encoding.
    """
    declared = headers.get(b"content-length")
    if declared is not None and declared.isdigit() and int(declared) > limit:
        raise BodyTooLarge(limit)
    if _has_arrived(receive):
        body = _part(await receive())
    else:
        try:
            async with asyncio.timeout(timeout):
                message = await receive()
                body = _part(message)
                if message.get("more_body", False):
                    body = await _rest(body, receive, limit)
        except TimeoutError:
            raise UserError(f"the body did not arrive within {timeout:g} s", 408) from None
    if len(body) > limit:
        raise BodyTooLarge(limit)
    encoding = headers.get(b"content-encoding")
    if encoding is None:
        return body
    encoding = encoding.strip().lower()
    if len(body) <= _LONG:
        return decompress(body, encoding, limit)
    if encoding == b"gzip" and (content := _short_content(body)) is not None and len(content) <= limit:
        return content
    return await asyncio.to_thread(decompress, body, encoding, limit)


def _has_arrived(receive: Receive) -> bool:
    """Return whether the whole body has arrived, as small bodies usually have. It then needs no timer, which costs more than the
    read.

    Reads uvicorn's request cycle. With another server, assumes that the body has not arrived.
    """
    return getattr(getattr(receive, "__self__", None), "more_body", True) is False


def is_disconnected(receive: Receive | None) -> bool:
    """Return whether the client is known to have disconnected, without awaiting. False on a server other than uvicorn."""
    return getattr(getattr(receive, "__self__", None), "disconnected", False) is True


def connection_of(receive: Receive | None) -> Any:
    """Return the connection of a request: uvicorn's protocol object, or None on another server."""
    return getattr(getattr(getattr(receive, "__self__", None), "on_response", None), "__self__", None)


def _part(message: AsgiMessage) -> bytes:
    if message["type"] == "http.disconnect":
        raise ClientDisconnected
    body: bytes = message.get("body", b"")
    return body


async def _rest(first: bytes, receive: Receive, limit: int) -> bytes:
    chunks, size, more = [first], len(first), True
    collect = getattr(connection_of(receive), "collect_body", None)
    collected: list[bytes] = [] if collect is None else collect(limit - size)
    while more and size <= limit:
        message = await receive()
        # The part in the message arrived before the collected ones, or ends the body and is empty.
        parts = [_part(message), *collected]
        collected.clear()
        chunks += parts
        size += sum(map(len, parts))
        more = message.get("more_body", False)
    if size > limit:
        raise BodyTooLarge(limit)
    return b"".join(chunks)


def decompress(body: bytes, encoding: bytes, limit: int) -> bytes:
    """Return the decompressed body.

    encoding: the content-encoding header, in lower case. limit: bytes. Raises UserError with status 400, 413 or 415.
    """
    if encoding in (b"", b"identity"):
        return body
    if encoding == b"deflate":
        return _inflate(body, limit)
    if encoding not in (b"gzip", b"x-gzip"):
        raise UserError(
            f"content-encoding {encoding.decode('latin-1')!r} is not supported; use gzip or deflate", 415
        )
    return _gunzip(body, limit)


def _short_content(body: bytes) -> bytes | None:
    """Return the content of a gzip file that is short and has one member; None for any other, also one that is not valid."""
    # It ends with the size of its content, which may be wrong.
    if int.from_bytes(body[-4:], "little") > _SHORT_CONTENT:
        return None
    from cortex_runtime import compression

    member = compression.decompressor(b"gzip")
    try:
        content = member.decompress(body, _SHORT_CONTENT)
    except compression.CompressionError:
        return None
    return content if member.eof and not member.unused_data else None


def _gunzip(body: bytes, limit: int) -> bytes:
    """Return the content of the members of a gzip file, which may have zeros between them.

    A decompressor copies what follows its member. From the second member on it therefore gets slices, not all that follows.
    """
    from cortex_runtime import compression

    parts: list[bytes] = []
    at = size = members = 0
    view = memoryview(body)
    while at < len(body):
        members += 1
        if members > _MAX_MEMBERS:
            raise UserError(f"the body is not valid gzip: it has more than {_MAX_MEMBERS} members")
        member = compression.decompressor(b"gzip")
        step = len(body) if members == 1 else _FIRST_SLICE
        while not member.eof:
            if at >= len(body):
                raise UserError("the body is not valid gzip: it is truncated")
            compressed = view[at : at + step]
            try:
                parts.append(member.decompress(compressed, limit + 1 - size))
            except compression.CompressionError as error:
                raise UserError(f"the body is not valid gzip: {error}") from error
            size += len(parts[-1])
            if size > limit:
                raise BodyTooLarge(limit)
            at += len(compressed)
            step = min(4 * step, _LAST_SLICE)
        at = _ZEROS(body, at - len(member.unused_data)).end()  # type: ignore[union-attr]
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _inflate(body: bytes, limit: int) -> bytes:
    """Return the content of a body in the format of zlib."""
    from cortex_runtime import compression

    reader = compression.decompressor(b"deflate")
    try:
        content = reader.decompress(body, limit + 1)
    except compression.CompressionError as error:
        raise UserError(f"the body is not valid deflate: {error}") from error
    if len(content) > limit:
        raise BodyTooLarge(limit)
    if not reader.eof:
        raise UserError("the body is not valid deflate: it is incomplete")
    return content


async def parse(body: bytes, content_type: bytes, limit: int) -> Any:
    """Return the payload: the value of JSON, Starlette's FormData for forms, str for text, bytes for anything else.

    limit: maxBodySize in bytes, which also limits the number of form fields. Raises UserError if the body does not match its
    content type.
    """
    if content_type in _PLAIN_JSON:
        return parse_json(body)
    kind, parameters = media_type(content_type)
    if is_json(kind):
        return parse_json(as_utf8(body, parameters))
    if kind == "multipart/form-data":
        return await parse_multipart(body, content_type, limit)
    if kind == "application/x-www-form-urlencoded":
        if body[:1] in (b"{", b"["):
            _warn_of_json()
        return await parse_urlencoded(body, parameters.get("charset", "utf-8"), limit)
    if kind == "text/plain":
        return decode(body, parameters.get("charset", "utf-8"))
    return body


@functools.cache
def _warn_of_json() -> None:
    """Log, once in a process, why a handler gets a form although its client has sent JSON."""
    log.warning(
        "a request looks like JSON, but its content type is application/x-www-form-urlencoded, which curl sends by default; the"
        " handler gets a form. Send the header content-type: application/json"
    )


def media_type(content_type: bytes) -> tuple[str, dict[str, str]]:
    """Return the media type and its parameters, names in lower case; ("", {}) if the header is not valid.

    The syntax is that of RFC 9110, section 8.3.1.
    """
    # Most requests do not need it: it takes some milliseconds at start.
    from email.message import Message

    message = Message()
    message["content-type"] = content_type.decode("latin-1")
    found = message.get_params([])
    kind = found[0][0].strip().lower()
    if not _MEDIA_TYPE(kind):
        return "", {}
    parameters: dict[str, str] = {}
    for name, value in found[1:]:
        # Starlette and browsers use the first of two parameters with the same name.
        parameters.setdefault(name.lower(), collapse_rfc2231_value(value).strip())
    return kind, parameters


def is_json(kind: str) -> bool:
    """Return whether a media type is JSON or has the suffix +json (RFC 6839)."""
    return kind == "application/json" or (kind.endswith("+json") and "/" in kind)


def as_utf8(body: bytes, parameters: Mapping[str, str]) -> bytes:
    """Return a JSON body in UTF-8, decoded from the charset that the client declared. Raises UserError."""
    charset = parameters.get("charset", "utf-8")
    if charset.lower().replace("-", "").replace("_", "") not in ("utf8", "usascii", "ascii"):
        return decode(body, charset).encode(errors="surrogatepass")
    return body


def parse_json(body: bytes) -> Any:
    """Return the value of a JSON body. Raises UserError."""
    try:
        return json_parser.loads(body)
    except ValueError as error:
        raise UserError(f"the body is not valid JSON: {error}") from error
