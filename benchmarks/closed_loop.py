"""A closed-loop load generator: each connection sends its next request when it has received the response.

`closed_loop.py PORT PATH CONNECTIONS SECONDS HEADER...` reads the body from standard input and prints requests per second.
"""

import asyncio
import re
import sys
import time
from collections.abc import Sequence

import uvloop

_LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)


class Connection(asyncio.Protocol):
    """A connection. Counts complete responses; `failed` contains the status line of a response that is not 200."""

    def __init__(self, request: bytes) -> None:
        self.request = request
        self.count = 0
        self.failed: bytes | None = None
        self.pending = b""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self.transport = transport
        transport.write(self.request)

    def data_received(self, data: bytes) -> None:
        self.pending += data
        head, separator, body = self.pending.partition(b"\r\n\r\n")
        if not separator:
            return
        length = _LENGTH.search(head)
        if length is None or not head.startswith(b"HTTP/1.1 200"):
            self.failed = head.split(b"\r\n", 1)[0]
            self.transport.close()
        elif len(body) >= int(length[1]):
            self.pending = b""
            self.count += 1
            self.transport.write(self.request)

    def connection_lost(self, error: Exception | None) -> None:
        self.failed = self.failed or b"the connection was closed"


async def load(
    port: int, path: str, count: int, seconds: float, body: bytes, headers: Sequence[str]
) -> float:
    """Return requests per second. Raises RuntimeError if a response is not 200."""
    lines = [f"POST {path} HTTP/1.1", f"host: 127.0.0.1:{port}", *headers, f"content-length: {len(body)}"]
    request = "\r\n".join([*lines, "", ""]).encode() + body
    loop = asyncio.get_running_loop()
    connections = [Connection(request) for _ in range(count)]
    for connection in connections:
        await loop.create_connection(lambda c=connection: c, "127.0.0.1", port)
    before, start = sum(c.count for c in connections), time.perf_counter()
    await asyncio.sleep(seconds)
    rate = (sum(c.count for c in connections) - before) / (time.perf_counter() - start)
    for connection in connections:
        if connection.failed:
            raise RuntimeError(f"a response was not 200: {connection.failed.decode()}")
    if not rate:
        raise RuntimeError(f"no response in {seconds:g} s")
    return rate


if __name__ == "__main__":
    port, path, count, seconds, *headers = sys.argv[1:]
    print(uvloop.run(load(int(port), path, int(count), float(seconds), sys.stdin.buffer.read(), headers)))
