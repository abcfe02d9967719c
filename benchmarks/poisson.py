"""An open-loop load generator: requests arrive according to a Poisson process, independently of responses.

`poisson.py PORT PATH RATE SECONDS SEED` reads the body from standard input and prints one line of JSON. The latency of a request
counts from its scheduled time, so a stalled server increases the latency of all later requests.
"""

import json
import random
import re
import select
import socket
import sys
from contextlib import ExitStack
from dataclasses import dataclass, field
from time import perf_counter

CONNECTIONS = 64
GRACE_S = 10.0
_LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)
_CHUNKED = re.compile(rb"transfer-encoding: *chunked", re.IGNORECASE)


@dataclass
class Connection:
    """A keep-alive connection.

    due: scheduled time of the current request. received: received part of the response.
    """

    socket: socket.socket
    due: float = 0.0
    received: bytes = field(default=b"")


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


def load(port: int, request: bytes, due: list[float]) -> tuple[list[float], float]:
    """Send requests at the scheduled times.

    Returns the latency of each request, and the maximum delay that this program caused itself, in seconds.
    Raises RuntimeError if a response is not 200 or does not arrive.
    """
    with ExitStack() as stack:
        sockets = [
            stack.enter_context(socket.create_connection(("127.0.0.1", port))) for _ in range(CONNECTIONS)
        ]
        return _exchange(sockets, stack.enter_context(select.epoll()), request, due)


def _exchange(
    sockets: list[socket.socket], poll: select.epoll, request: bytes, due: list[float]
) -> tuple[list[float], float]:
    idle, by_number = [], {}
    for connection in map(Connection, sockets):
        connection.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        poll.register(connection.socket, select.EPOLLIN)
        by_number[connection.socket.fileno()] = connection
        idle.append(connection)
    took: list[float] = []
    late, sent, began = 0.0, 0, perf_counter() + 0.01
    freed = began
    while len(took) < len(due):
        now = perf_counter()
        while sent < len(due) and idle and began + due[sent] <= now:
            connection = idle.pop()
            connection.due = began + due[sent]
            late = max(late, now - max(connection.due, freed))
            connection.socket.sendall(request)
            sent += 1
            now = perf_counter()
        if now > began + due[-1] + GRACE_S:
            raise RuntimeError(f"{len(due) - len(took)} of {len(due)} requests got no response")
        # Busy polling is more precise than a timer. With enough time, sleep instead.
        spare = began + due[sent] - now if sent < len(due) and idle else 0.05
        for number, _ in poll.poll(max(0.0, spare - 0.002)):
            connection = by_number[number]
            data = connection.socket.recv(1 << 16)
            if not data:
                raise RuntimeError("a connection was closed")
            connection.received += data
            if complete(connection.received):
                took.append(perf_counter() - connection.due)
                connection.received = b""
                if not idle:
                    freed = perf_counter()
                idle.append(connection)
    return took, late


def main() -> None:
    port, path, rate, seconds, seed = sys.argv[1:]
    body = sys.stdin.buffer.read()
    head = f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\ncontent-type: application/json\r\n"
    request = f"{head}content-length: {len(body)}\r\n\r\n".encode() + body
    due = arrivals(float(rate), float(seconds), int(seed))
    took, late = load(int(port), request, due)
    took.sort()
    quantiles = {f"p{share}": took[min(len(took) - 1, len(took) * share // 100)] for share in (50, 99)}
    print(json.dumps({"requests": len(took), "late": late, **quantiles}))


if __name__ == "__main__":
    main()
