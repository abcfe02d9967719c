"""Parse HTML forms into Starlette's FormData. A field may be as long as the body; maxBodySize limits the number of fields."""

import asyncio
from collections.abc import AsyncGenerator, Coroutine
from typing import Any
from urllib.parse import unquote_to_bytes

from python_multipart.multipart import parse_options_header
from starlette.datastructures import FormData, Headers
from starlette.formparsers import MultiPartException, MultiPartParser

from cortex_runtime.errors import UserError
from cortex_runtime.http.charsets import require_charset

_LARGE = 1 << 18
"""Bytes. Larger forms are parsed in a thread, because many small fields take long."""


class _Parser(MultiPartParser):
    """Starlette's parser, which also records whether the closing boundary arrived.

    Files stay in memory, as the whole body does, so that nothing waits for a disk.
    """

    ended = False

    def on_end(self) -> None:
        self.ended = True


def max_fields(limit: int) -> int:
    """Return the maximum number of fields for a body limit in bytes. Parsed fields need more memory than the body."""
    return max(10_000, limit // 64)


def max_files(limit: int) -> int:
    """Return the maximum number of files for a body limit in bytes."""
    return max(1_000, limit // 1024)


async def parse_multipart(body: bytes, content_type: bytes, limit: int) -> FormData:
    """Parse multipart/form-data. limit: maxBodySize. Raises UserError, also when the closing boundary is missing."""
    if len(body) < _LARGE:
        return _multipart(body, content_type, limit)
    return await asyncio.to_thread(_multipart, body, content_type, limit)


def _multipart(body: bytes, content_type: bytes, limit: int) -> FormData:
    charset = parse_options_header(content_type)[1].get(b"charset")
    if charset is not None:
        require_charset(charset.decode("latin-1"))
    parser = _Parser(
        Headers(raw=[(b"content-type", content_type)]),
        _once(body),
        max_files=max_files(limit),
        max_fields=max_fields(limit),
        max_part_size=len(body),
    )
    parser.spool_max_size = len(body) + 1
    try:
        form: FormData = _run(parser.parse())
    except (MultiPartException, KeyError, ValueError) as error:
        raise _invalid(error) from error
    if not parser.ended:
        raise _invalid("it ends before its closing boundary")
    return form


def _invalid(reason: object) -> UserError:
    return UserError(f"the body is not a valid form: {reason}")


async def _once(body: bytes) -> AsyncGenerator[bytes, None]:
    yield body


def _run(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine that never suspends, and return its result."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        return done.value
    coroutine.close()
    raise RuntimeError("parsing a form in memory must not suspend")


async def parse_urlencoded(body: bytes, charset: str, limit: int) -> FormData:
    """Parse application/x-www-form-urlencoded, as https://url.spec.whatwg.org defines it.

    limit: maxBodySize. Raises UserError: 400, and 415 for an unknown charset. Bytes that the charset cannot decode are an error.
    """
    if len(body) < _LARGE:
        return _urlencoded(body, charset, limit)
    return await asyncio.to_thread(_urlencoded, body, charset, limit)


def _urlencoded(body: bytes, charset: str, limit: int) -> FormData:
    require_charset(charset)
    most = max_fields(limit)
    if body.count(b"&") >= most:
        raise _invalid(f"it has more than {most} fields")
    pairs = [field.partition(b"=") for field in body.split(b"&") if field]
    try:
        return FormData([(_text(name, charset), _text(value, charset)) for name, _, value in pairs])
    except LookupError as error:
        raise UserError(f"charset {charset!r} is unknown", 415) from error
    except ValueError as error:
        raise _invalid(error) from error


def _text(data: bytes, charset: str) -> str:
    return unquote_to_bytes(data.replace(b"+", b" ")).decode(charset)
