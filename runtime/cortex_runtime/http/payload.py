"""The body of a request as the payload that a handler gets, by content type; read only when the handler takes it."""

import asyncio
import gzip
import io
import re
import zlib
from collections.abc import Mapping
from email.message import Message
from email.utils import collapse_rfc2231_value
from typing import Any

from starlette.types import Message as AsgiMessage
from starlette.types import Receive

from cortex_runtime.errors import UserError
from cortex_runtime.http import json_parser
from cortex_runtime.http.forms import parse_multipart, parse_urlencoded

_MEDIA_TYPE = re.compile(r"[!#$%&'*+.^_`|~0-9a-z-]+/[!#$%&'*+.^_`|~0-9a-z-]+").fullmatch
_PLAIN_JSON = frozenset(
    (b"application/json", b"application/json; charset=utf-8", b"application/json;charset=utf-8")
)


class ClientDisconnected(Exception):
    """The client closed the connection before its request was handled."""


class Moved(ClientDisconnected):
    """Another worker has the request and its connection now."""


async def disconnect(receive: Receive) -> None:
    """Return when the client has gone. What is left of a body is not looked at."""
    while (await receive())["type"] != "http.disconnect":
        pass


class BodyTooLarge(UserError):
    """The body is over spec.handler.maxBodySize."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"the body is larger than the limit of {limit} bytes (maxBodySize)", 413)


async def read_body(receive: Receive, headers: Mapping[bytes, bytes], limit: int, timeout: float) -> bytes:
    """Read and return the whole request body.

    limit: bytes. timeout: seconds. Raises BodyTooLarge as soon as the body is known to exceed the limit, ClientDisconnected, and
    UserError with status 408 when the body does not arrive in time.
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
                    return await _rest(body, receive, limit)
        except TimeoutError:
            raise UserError(f"the body did not arrive within {timeout:g} s", 408) from None
    if len(body) > limit:
        raise BodyTooLarge(limit)
    return body


def _has_arrived(receive: Receive) -> bool:
    """Whether the whole body is here already, as small ones mostly are: then no timer is needed, which costs more than the read.

    uvicorn's request cycle knows; another server's `receive` is taken for one that has to wait.
    """
    return getattr(getattr(receive, "__self__", None), "more_body", True) is False


def has_left(receive: Receive) -> bool:
    """Whether the client is known to be gone. Asking costs nothing; of a server other than uvicorn nothing is known."""
    return getattr(getattr(receive, "__self__", None), "disconnected", False) is True


def _part(message: AsgiMessage) -> bytes:
    if message["type"] == "http.disconnect":
        raise ClientDisconnected
    body: bytes = message.get("body", b"")
    return body


async def _rest(first: bytes, receive: Receive, limit: int) -> bytes:
    chunks, size, more = [first], len(first), True
    while more and size <= limit:
        message = await receive()
        chunks.append(_part(message))
        size += len(chunks[-1])
        more = message.get("more_body", False)
    if size > limit:
        raise BodyTooLarge(limit)
    return b"".join(chunks)


def decompress(body: bytes, encoding: bytes, limit: int) -> bytes:
    """The body of a request that came with a content-encoding. Raises UserError: 400, 413 or 415."""
    if encoding in (b"", b"identity"):
        return body
    if encoding not in (b"gzip", b"x-gzip"):
        raise UserError(f"content-encoding {encoding.decode('latin-1')!r} is not supported: gzip is", 415)
    try:
        content = gzip.GzipFile(fileobj=io.BytesIO(body)).read(limit + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"the body is not valid gzip: {error}") from error
    if len(content) > limit:
        raise BodyTooLarge(limit)
    return content


async def parse(body: bytes, content_type: bytes, limit: int) -> Any:
    """JSON as its value, forms as Starlette's FormData, text as str, anything else as bytes.

    limit: maxBodySize in bytes, which bounds the number of a form's fields too. Raises UserError when the body is not what its
    content type says.
    """
    if content_type in _PLAIN_JSON:
        return parse_json(body)
    kind, parameters = media_type(content_type)
    if is_json(kind):
        return parse_json(as_utf8(body, parameters))
    if kind == "multipart/form-data":
        return await parse_multipart(body, content_type, limit)
    if kind == "application/x-www-form-urlencoded":
        return await parse_urlencoded(body, parameters.get("charset", "utf-8"), limit)
    if kind == "text/plain":
        return _decode(body, parameters.get("charset", "utf-8"))
    return body


def media_type(content_type: bytes) -> tuple[str, dict[str, str]]:
    """Return the type in lower case, and its parameters by their names in lower case; ("", {}) of what is no media type.

    The syntax is that of RFC 9110, section 8.3.1.
    """
    message = Message()
    message["content-type"] = content_type.decode("latin-1")
    found = message.get_params([])
    kind = found[0][0].strip().lower() if found else ""
    if not _MEDIA_TYPE(kind):
        return "", {}
    parameters: dict[str, str] = {}
    for name, value in found[1:]:
        # The first of two is what Starlette and browsers take.
        parameters.setdefault(name.lower(), collapse_rfc2231_value(value).strip())
    return kind, parameters


def is_json(kind: str) -> bool:
    """Whether a media type is JSON: itself, or by its suffix (RFC 6839)."""
    return kind == "application/json" or (kind.endswith("+json") and "/" in kind)


def as_utf8(body: bytes, parameters: Mapping[str, str]) -> bytes:
    """Return JSON in UTF-8, as which RFC 8259 defines it, though its client has declared another charset. Raises UserError."""
    charset = parameters.get("charset", "utf-8")
    if charset.lower().replace("-", "").replace("_", "") not in ("utf8", "usascii", "ascii"):
        return _decode(body, charset).encode(errors="surrogatepass")
    return body


def parse_json(body: bytes) -> Any:
    """The value of a JSON body. Raises UserError."""
    try:
        return json_parser.loads(body)
    except ValueError as error:
        raise UserError(f"the body is not valid JSON: {error}") from error


def _decode(body: bytes, charset: str) -> str:
    try:
        return body.decode(charset)
    except LookupError as error:
        raise UserError(f"charset {charset!r} is unknown", 415) from error
    except ValueError as error:
        # Some codecs raise UnicodeError itself, and a name can be one that no codec may have.
        raise UserError(f"the body is not valid {charset}: {error}") from error
