"""The headers and trailers of a gRPC call. Pure functions over bytes."""

import base64
import binascii
from collections.abc import Iterable, Mapping
from urllib.parse import quote

from cortex_runtime.grpc.calls import CallError
from cortex_runtime.grpc.status import StatusCode

_SECONDS = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}
_PRINTABLE = "".join(chr(code) for code in range(0x20, 0x7F) if chr(code) != "%")
_DIGITS = 8


def parse_headers(pairs: Iterable[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    """Return the headers of a request by name. Values of names that end in "-bin" are decoded. Raises CallError."""
    headers = dict(pairs)
    for name in headers:
        if name.endswith(b"-bin"):
            value = headers[name].rpartition(b",")[2].strip()
            try:
                headers[name] = base64.b64decode(value + b"=" * (-len(value) % 4), validate=True)
            except binascii.Error:
                text = f"metadata {name.decode('latin-1')[:80]} is not valid base64"
                raise CallError(StatusCode.INVALID_ARGUMENT, text) from None
    return headers


def timeout_of(headers: Mapping[bytes, bytes]) -> float | None:
    """Return the seconds until the deadline of a call, or None if it has none. Raises CallError."""
    value = headers.get(b"grpc-timeout")
    if value is None:
        return None
    number, unit = value[:-1], _SECONDS.get(value[-1:])
    if unit is None or not number.isdigit() or len(number) > _DIGITS:
        text = f"grpc-timeout must be up to 8 digits and one of H, M, S, m, u, n; got {value[:20]!r}"
        raise CallError(StatusCode.INVALID_ARGUMENT, text)
    return int(number) * unit


def trailers(code: StatusCode, message: str, metadata: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
    """Return the trailers that end a call. message: text for the client, or empty."""
    found = [(b"grpc-status", b"%d" % code)]
    if message:
        found.append((b"grpc-message", quote(message, safe=_PRINTABLE, errors="replace").encode()))
    found += [(name.encode(), value.encode()) for name, value in metadata.items()]
    return found
