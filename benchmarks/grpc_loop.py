"""A closed-loop load generator for unary gRPC calls: each connection sends its next call when it has received the response.

`grpc_loop.py PORT PATH CONNECTIONS SECONDS` reads the message from standard input and prints calls per second. It repeats the
same frames of HTTP/2 instead of using a gRPC library, which would need more CPU time than the servers.
"""

import asyncio
import struct
import sys
import time

import uvloop

DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
END_STREAM, END_HEADERS, ACK = 1, 4, 1
INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE = 4, 5
WINDOW = 2**31 - 1
RESPONSE_TIMEOUT_S = 60.0
DEFAULT_WINDOW = 65535


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def request_headers(path: str, authority: str) -> bytes:
    """Return a header block of literals without indexing, which is valid in any state of the compression."""
    fields = {":method": "POST", ":scheme": "http", ":path": path, ":authority": authority}
    fields |= {"content-type": "application/grpc", "te": "trailers"}
    return b"".join(
        b"\0" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode()
        for name, value in fields.items()
    )


class Connection(asyncio.Protocol):
    """A connection with one call at a time. count: complete responses; failed: why there will be no more."""

    def __init__(self, headers: bytes, message: bytes) -> None:
        self._headers, self._message = headers, b"\0" + struct.pack(">I", len(message)) + message
        self.count = 0
        self.failed: str | None = None
        self._pending = b""
        self._stream = -1
        self._sent = len(self._message)
        self._received = self._unacknowledged = 0
        self._length: int | None = None
        self._windows = {"connection": DEFAULT_WINDOW, "stream": DEFAULT_WINDOW, "initial": DEFAULT_WINDOW}
        self._largest_frame = 16384

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._transport = transport
        settings = struct.pack(">HI", INITIAL_WINDOW_SIZE, WINDOW)
        update = struct.pack(">I", WINDOW - DEFAULT_WINDOW)
        start = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(SETTINGS, 0, 0, settings)
        transport.write(start + frame(WINDOW_UPDATE, 0, 0, update))
        self._call()

    def _call(self) -> None:
        self._stream += 2
        self._sent = self._received = 0
        self._windows["stream"] = self._windows["initial"]
        self._transport.write(frame(HEADERS, END_HEADERS, self._stream, self._headers) + self._data())

    def _data(self) -> bytes:
        """Return the frames with as much of the message as the windows of the server allow."""
        frames = b""
        while (left := len(self._message) - self._sent) > 0:
            size = min(left, self._windows["connection"], self._windows["stream"], self._largest_frame)
            if size <= 0:
                break
            part = self._message[self._sent : self._sent + size]
            frames += frame(DATA, END_STREAM if size == left else 0, self._stream, part)
            self._sent += size
            self._windows["connection"] -= size
            self._windows["stream"] -= size
        return frames

    def data_received(self, data: bytes) -> None:
        pending, at = (self._pending + data if self._pending else data), 0
        while len(pending) - at >= 9:
            length = int.from_bytes(pending[at : at + 3], "big")
            if len(pending) - at < 9 + length:
                break
            kind, flags, stream = struct.unpack_from(">BBI", pending, at + 3)
            self._on_frame(kind, flags, stream, pending[at + 9 : at + 9 + length])
            at += 9 + length
        self._pending = pending[at:]

    def _on_frame(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == DATA:
            self._received += len(payload)
            self._unacknowledged += len(payload)
            if self._unacknowledged > WINDOW // 2:
                update = struct.pack(">I", self._unacknowledged)
                self._transport.write(frame(WINDOW_UPDATE, 0, 0, update))
                self._unacknowledged = 0
        elif kind == HEADERS and flags & END_STREAM:
            self._complete()
        elif kind == SETTINGS and not flags & ACK:
            self._configure(payload)
            self._transport.write(frame(SETTINGS, ACK, 0) + self._data())
        elif kind == PING and not flags & ACK:
            self._transport.write(frame(PING, ACK, 0, payload))
        elif kind == WINDOW_UPDATE and stream in (0, self._stream):
            self._windows["connection" if stream == 0 else "stream"] += int.from_bytes(payload, "big")
            if more := self._data():
                self._transport.write(more)
        elif kind in (RST_STREAM, GOAWAY):
            self._fail(f"the server sent a frame of type {kind}: {payload!r}")

    def _configure(self, payload: bytes) -> None:
        for name, value in struct.iter_unpack(">HI", payload):
            if name == INITIAL_WINDOW_SIZE:
                self._windows["stream"] += value - self._windows["initial"]
                self._windows["initial"] = value
            elif name == MAX_FRAME_SIZE:
                self._largest_frame = value

    def _complete(self) -> None:
        """Count a response, which must be as long as the first one: an error has no message."""
        if not self._received or self._received != (self._length or self._received):
            self._fail(f"a response has {self._received} bytes instead of {self._length or 'a message'}")
            return
        self._length = self._received
        self.count += 1
        self._call()

    def _fail(self, why: str) -> None:
        self.failed = self.failed or why
        self._transport.close()

    def connection_lost(self, error: Exception | None) -> None:
        self.failed = self.failed or "the connection was closed"


async def load(port: int, path: str, count: int, seconds: float, message: bytes) -> float:
    """Return calls per second. Raises RuntimeError if a call fails, or if none completes.

    Measures for `seconds`, or until the first response if it takes longer.
    """
    loop = asyncio.get_running_loop()
    headers = request_headers(path, f"127.0.0.1:{port}")
    connections = [Connection(headers, message) for _ in range(count)]
    for connection in connections:
        await loop.create_connection(lambda c=connection: c, "127.0.0.1", port)
    before, start = sum(c.count for c in connections), time.perf_counter()
    await asyncio.sleep(seconds)
    while sum(c.count for c in connections) == before and not any(c.failed for c in connections):
        if time.perf_counter() - start > max(seconds, RESPONSE_TIMEOUT_S):
            break
        await asyncio.sleep(0.01)
    rate = (sum(c.count for c in connections) - before) / (time.perf_counter() - start)
    for connection in connections:
        if connection.failed:
            raise RuntimeError(f"a call failed: {connection.failed}")
    if not rate:
        raise RuntimeError(f"no response in {time.perf_counter() - start:.0f} s")
    return rate


if __name__ == "__main__":
    port, path, count, seconds = sys.argv[1:]
    print(uvloop.run(load(int(port), path, int(count), float(seconds), sys.stdin.buffer.read())))
