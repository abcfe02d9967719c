"""An open-loop load generator: requests arrive according to a Poisson process, independently of responses.

`open_loop.py PORT PATH RATE SECONDS SEED` reads the body from standard input and prints a line of JSON. The latency of a request
counts from its scheduled time, so a stalled server increases the latency of all later requests. If the server closes a
connection, the program reconnects, sends the request again and counts this; the latency still counts from the scheduled time.
"""

import gc
import json
import random
import re
import select
import socket
import sys
from dataclasses import dataclass, field
from time import perf_counter

CONNECTIONS = 64
GRACE_S = 10.0
MAX_RECONNECTS = 1000
_LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)
_CHUNKED = re.compile(rb"transfer-encoding: *chunked", re.IGNORECASE)


@dataclass
class Connection:
    """A keep-alive connection.

    due: scheduled time of the current request; None while idle. received: received part of the response.
    """

    socket: socket.socket
    due: float | None = None
    received: bytes = field(default=b"")


@dataclass
class Measured:
    """Latency of each request in seconds, the maximum delay that this program caused itself, and the number of reconnects."""

    took: list[float] = field(default_factory=list)
    late: float = 0.0
    reconnects: int = 0


def complete(received: bytes) -> bool:
    """Return whether a response is complete. Raises RuntimeError if its status is not 200 or its length is unknown."""
    head, separator, body = received.partition(b"\r\n\r\n")
    if not separator:
        return False
    if not head.startswith(b"HTTP/1.1 200"):
        raise RuntimeError(f"a response was not 200: {head.splitlines()[0].decode()}")
    length = _LENGTH.search(head)
    if length is not None:
        return len(body) >= int(length[1])
    if not _CHUNKED.search(head):
        raise RuntimeError("a response had no length")
    return body.endswith(b"0\r\n\r\n")


def arrivals(rate: float, seconds: float, seed: int) -> list[float]:
    """Return the scheduled times of requests in seconds. They only depend on the arguments."""
    source, moment, due = random.Random(seed), 0.0, []
    while (moment := moment + source.expovariate(rate)) < seconds:
        due.append(moment)
    return due


def load(port: int, request: bytes, due: list[float]) -> Measured:
    """Send requests at the scheduled times, in seconds.

    Raises RuntimeError if a response is not 200, does not arrive, or is cut off in each of several attempts.
    """
    with _OpenLoop(port, request) as generator:
        return generator.run(due)


class _OpenLoop:
    """The connections of one measurement."""

    def __init__(self, port: int, request: bytes) -> None:
        self._port = port
        self._request = request
        self._poll = select.epoll()
        self._connections: dict[int, Connection] = {}
        self._idle = [self._connect() for _ in range(CONNECTIONS)]
        self._measured = Measured()

    def __enter__(self) -> "_OpenLoop":
        return self

    def __exit__(self, *error: object) -> None:
        for connection in self._connections.values():
            connection.socket.close()
        self._poll.close()

    def run(self, due: list[float]) -> Measured:
        took, idle, measured = self._measured.took, self._idle, self._measured
        sent, began = 0, perf_counter() + 0.01
        freed = began
        while len(took) < len(due):
            now = perf_counter()
            while sent < len(due) and idle and began + due[sent] <= now:
                connection = idle.pop()
                connection.due = began + due[sent]
                measured.late = max(measured.late, now - max(connection.due, freed))
                self._send(connection)
                sent += 1
                now = perf_counter()
            if now > began + due[-1] + GRACE_S:
                raise RuntimeError(f"{len(due) - len(took)} of {len(due)} requests got no response")
            spare = began + due[sent] - now if sent < len(due) and idle else 0.05
            # select() waits for microseconds, epoll for milliseconds. Busy polling would take the core from the kernel.
            select.select([self._poll], [], [], max(0.0, spare))
            for number, _ in self._poll.poll(0):
                connection = self._connections[number]
                due_at = connection.due
                if self._receive(connection) and due_at is not None:
                    took.append(perf_counter() - due_at)
                    if not idle:
                        freed = perf_counter()
                    idle.append(connection)
        return measured

    def _connect(self) -> Connection:
        connection = Connection(socket.create_connection(("127.0.0.1", self._port)))
        connection.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._poll.register(connection.socket, select.EPOLLIN)
        self._connections[connection.socket.fileno()] = connection
        return connection

    def _send(self, connection: Connection) -> None:
        try:
            connection.socket.sendall(self._request)
        except ConnectionError:
            self._reconnect(connection)

    def _receive(self, connection: Connection) -> bool:
        """Read what has arrived. Returns whether a response is complete."""
        try:
            data = connection.socket.recv(1 << 16)
        except ConnectionError:
            data = b""
        if not data:
            self._reconnect(connection)
            return False
        connection.received += data
        if not complete(connection.received):
            return False
        connection.received, connection.due = b"", None
        return True

    def _reconnect(self, connection: Connection) -> None:
        """Replace the socket of a connection that the server has closed, and repeat its request."""
        self._measured.reconnects += 1
        if self._measured.reconnects > MAX_RECONNECTS:
            raise RuntimeError(f"the server has closed {MAX_RECONNECTS} connections")
        del self._connections[connection.socket.fileno()]
        connection.socket.close()
        replacement = self._connect()
        connection.socket, connection.received = replacement.socket, b""
        self._connections[connection.socket.fileno()] = connection
        if connection.due is not None:
            self._send(connection)


def main() -> None:
    port, path, rate, seconds, seed = sys.argv[1:]
    body = sys.stdin.buffer.read()
    head = f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\ncontent-type: application/json\r\n"
    request = f"{head}content-length: {len(body)}\r\n\r\n".encode() + body
    due = arrivals(float(rate), float(seconds), int(seed))
    gc.disable()
    measured = load(int(port), request, due)
    took = sorted(measured.took)
    quantiles = {
        name: took[min(len(took) - 1, int(len(took) * share))]
        for name, share in (("p50", 0.5), ("p99", 0.99), ("p999", 0.999))
    }
    found = {"requests": len(took), "late": measured.late, "reconnects": measured.reconnects, **quantiles}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
