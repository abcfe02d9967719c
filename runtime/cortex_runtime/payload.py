"""The body of a request as the payload that a handler gets, by content type; read only when the handler takes it."""

import asyncio
import gzip
import io
import zlib
from collections.abc import AsyncGenerator, Mapping
from email.message import Message
from typing import Any

from starlette.datastructures import FormData, Headers
from starlette.formparsers import FormParser, MultiPartException, MultiPartParser
from starlette.types import Message as AsgiMessage
from starlette.types import Receive

from cortex_runtime import json_parser
from cortex_runtime.errors import UserError


class ClientGone(Exception):
    """The client closed the connection before its request was handled."""


async def disconnect(receive: Receive) -> None:
    """Return when the client has gone. What is left of a body is not looked at."""
    while (await receive())["type"] != "http.disconnect":
        pass


class BodyTooLarge(UserError):
    """The body is over spec.handler.maxBodySize."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"the body is larger than the limit of {limit} bytes (maxBodySize)", 413)


async def read_body(receive: Receive, headers: Mapping[bytes, bytes], limit: int, timeout: float) -> bytes:
    """The whole body.

    limit: in bytes; timeout: in seconds. Raises BodyTooLarge as soon as that is known, ClientGone, and UserError with status
    408 when the body doesn't arrive in time.
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
        raise ClientGone
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
    if encoding != b"gzip":
        raise UserError(f"content-encoding {encoding.decode('latin-1')!r} is not supported: gzip is", 415)
    try:
        content = gzip.GzipFile(fileobj=io.BytesIO(body)).read(limit + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"the body is not valid gzip: {error}") from error
    if len(content) > limit:
        raise BodyTooLarge(limit)
    return content


async def parse(body: bytes, content_type: bytes) -> Any:
    """JSON as its value, forms as Starlette's FormData, text as str, anything else as bytes.

    Raises UserError when the body is not what its content type says.
    """
    kind = content_type[:33].lower()
    if kind.startswith(b"application/json"):
        return parse_json(body)
    if kind.startswith((b"multipart/form", b"application/x-www-form-urlencoded")):
        return await _form(body, content_type)
    if kind.startswith(b"text/plain"):
        return _text(body, content_type)
    return body


def parse_json(body: bytes) -> Any:
    """The value of a JSON body. Raises UserError."""
    try:
        return json_parser.loads(body)
    except ValueError as error:
        raise UserError(f"the body is not valid JSON: {error}") from error


async def _form(body: bytes, content_type: bytes) -> FormData:
    async def stream() -> AsyncGenerator[bytes, None]:
        yield body
        yield b""

    headers = Headers(raw=[(b"content-type", content_type)])
    parser = MultiPartParser if content_type[:9].lower() == b"multipart" else FormParser
    try:
        return await parser(headers, stream()).parse()
    except (MultiPartException, KeyError, ValueError) as error:
        reason = getattr(error, "message", None) or str(error)
        raise UserError(f"the body is not a valid form: {reason}") from error


def _text(body: bytes, content_type: bytes) -> str:
    message = Message()
    message["content-type"] = content_type.decode("latin-1")
    charset = message.get_content_charset("utf-8")
    try:
        return body.decode(charset)
    except LookupError as error:
        raise UserError(f"charset {charset!r} is unknown", 415) from error
    except UnicodeDecodeError as error:
        raise UserError(f"the body is not valid {charset}: {error}") from error
