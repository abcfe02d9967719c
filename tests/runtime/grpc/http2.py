"""An HTTP/2 client for tests that sends any frames, valid or not."""

import asyncio
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import hpack

DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 0, 1, 3, 4, 6, 7, 8, 9
END_STREAM, END_HEADERS, ACK = 1, 4, 1
MAX_CONCURRENT_STREAMS = 3
REFUSED_STREAM, CANCEL, ENHANCE_YOUR_CALM = 7, 8, 11
Frame = tuple[int, int, int, bytes]
"""Type, flags, stream, payload."""


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return len(payload).to_bytes(3) + struct.pack(">BBI", kind, flags, stream) + payload


def headers(path: str, **more: str) -> bytes:
    """Return the header block of a call: literals without indexing. more: further headers, with "_" for "-"; empty: left out."""
    fields = {":method": "POST", ":scheme": "http", ":path": path, ":authority": "test"}
    fields |= {"content-type": "application/grpc", "te": "trailers"}
    fields |= {name.replace("_", "-"): value for name, value in more.items()}
    return b"".join(b"\0" + _text(name) + _text(value) for name, value in fields.items() if value)


def message(content: bytes = b"", flag: int = 0) -> bytes:
    return bytes([flag]) + len(content).to_bytes(4) + content


def _text(value: str) -> bytes:
    """Return a string literal of HPACK without Huffman coding."""
    content = value.encode()
    if len(content) < 127:
        return bytes([len(content)]) + content
    length, digits = len(content) - 127, b"\x7f"
    while length >= 128:
        digits += bytes([length % 128 | 128])
        length //= 128
    return digits + bytes([length]) + content


class Connection:
    """A connection after the preface."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self.writer = reader, writer
        self._decoder = hpack.Decoder()

    @property
    def is_reset(self) -> bool:
        """Whether the server has refused what was sent."""
        return self.writer.transport.is_closing() or self._reader.exception() is not None

    def send(self, kind: int, flags: int, stream: int, payload: bytes = b"") -> None:
        self.writer.write(frame(kind, flags, stream, payload))

    def call(self, stream: int, path: str, content: bytes = b"", **more: str) -> None:
        """Send a unary call."""
        self.send(HEADERS, END_HEADERS, stream, headers(path, **more))
        self.send(DATA, END_STREAM, stream, message(content))

    async def receive(self) -> Frame | None:
        """Return the next frame, or None when the server has closed the connection."""
        try:
            head = await asyncio.wait_for(self._reader.readexactly(9), 60)
            kind, flags, stream = struct.unpack_from(">BBI", head, 3)
            return kind, flags, stream, await self._reader.readexactly(int.from_bytes(head[:3]))
        except (asyncio.IncompleteReadError, ConnectionError):
            return None

    async def wait(self, kind: int, stream: int | None = None) -> Frame:
        """Return the next frame of a type and stream, and skip others."""
        while (found := await self.receive()) is not None:
            if found[0] == kind and stream in (None, found[2]):
                return found
        raise AssertionError("the connection was closed")

    async def response(self, stream: int) -> tuple[dict[str, str], bytes]:
        """Return the headers of a response together with its trailers, and its content."""
        fields: dict[str, str] = {}
        content = b""
        while (found := await self.receive()) is not None:
            kind, flags, number, payload = found
            if kind == HEADERS:
                decoded = self._decoder.decode(payload)
                fields |= dict(decoded) if number == stream else {}
            elif kind == DATA and number == stream:
                content += payload
            elif kind == RST_STREAM and number == stream:
                raise AssertionError(f"the stream was reset: {payload!r}")
            if kind in (HEADERS, DATA) and number == stream and flags & END_STREAM:
                return fields, content
        raise AssertionError("the connection was closed")


@asynccontextmanager
async def connect(port: int) -> AsyncIterator[Connection]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(SETTINGS, 0, 0))
    try:
        yield Connection(reader, writer)
    finally:
        writer.close()
