"""An open-loop load generator for `cortex bench`: requests start at random times (a Poisson process), not after responses.

The latency of a request counts from its scheduled time, so that a slow server, or waiting for a free connection, increases it.
"""

import asyncio
import random
import re
import ssl
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from time import perf_counter
from urllib.parse import urlsplit

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding: *chunked", re.IGNORECASE)
_CLOSES = re.compile(rb"\r\nconnection: *close", re.IGNORECASE)
_BODILESS = (204, 304)
_MAX_CONNECTIONS = 1024


@dataclass(frozen=True)
class Target:
    """A request that is sent repeatedly.

    host, port, tls: where to connect. content: the whole request.
    """

    host: str
    port: int
    tls: bool
    content: bytes

    @classmethod
    def of(cls, url: str, method: str, headers: dict[str, str], body: bytes | None) -> "Target":
        """Return the target of a URL. Raises ValueError if it is not an http or https URL."""
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"{url} is not a valid URL; expected http://HOST:PORT/PATH")
        tls = parts.scheme == "https"
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        lines = [f"{method} {path} HTTP/1.1", f"host: {parts.netloc.rpartition('@')[2]}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        if body is not None:
            lines.append(f"content-length: {len(body)}")
        head = "\r\n".join(lines).encode() + b"\r\n\r\n"
        return cls(parts.hostname, parts.port or (443 if tls else 80), tls, head + (body or b""))


@dataclass
class Result:
    """The result of one load.

    latencies: of the responses with status 2xx, in seconds, sorted. errors: number of other outcomes, by status ("503") or cause.
    rate: requested rate per second. seconds: duration from the first request to the last response. late: delay in seconds that
    the generator itself caused, which 99 % of the requests did not exceed.
    """

    rate: float
    latencies: list[float] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    late: float = 0.0

    @property
    def requests(self) -> int:
        """Number of requests that have ended."""
        return len(self.latencies) + self.errors.total()

    @property
    def throughput(self) -> float:
        """Successful responses per second."""
        return len(self.latencies) / self.seconds if self.seconds else 0.0

    @property
    def in_flight(self) -> float:
        """Average number of requests in flight, by Little's law."""
        return sum(self.latencies) / self.seconds if self.seconds else 0.0

    def percentile(self, share: float) -> float | None:
        """Return the latency in seconds that a share (0.99) of the successful responses does not exceed, or None."""
        return _percentile(self.latencies, share) if self.latencies else None


async def generate(
    target: Target,
    rate: float,
    seconds: float,
    timeout: float,
    on_progress: Callable[[Result], None] = lambda result: None,
    seed: int = 0,
) -> Result:
    """Send requests for some time and wait for their responses.

    rate: requests per second. timeout: seconds after which a request without a response is an error. on_progress: is called
    about twice per second.
    """
    result = Result(rate)
    idle: list[_Connection] = []
    tasks: set[asyncio.Task[None]] = set()
    every: set[_Connection] = set()
    context = ssl.create_default_context() if target.tls else None
    source = random.Random(seed)
    began = perf_counter()
    due, shown = began, began
    delays: list[float] = []

    async def send(scheduled: float) -> None:
        try:
            async with asyncio.timeout(timeout):
                connection = idle.pop() if idle else None
                if connection is None or not connection.is_open:
                    connection = await _connect(target, context)
                    every.add(connection)
                status, keeps_open = await connection.exchange(target.content)
        except TimeoutError:
            result.errors["timeout"] += 1
        except (OSError, asyncio.IncompleteReadError, ValueError) as error:
            result.errors[_cause(error)] += 1
        else:
            if 200 <= status < 300:
                result.latencies.append(perf_counter() - scheduled)
            else:
                result.errors[str(status)] += 1
            if keeps_open:
                idle.append(connection)
            else:
                connection.close()
                every.discard(connection)

    try:
        while (due := due + source.expovariate(rate)) < began + seconds:
            await asyncio.sleep(max(0.0, due - perf_counter()))
            delays.append(perf_counter() - due)
            if len(tasks) >= _MAX_CONNECTIONS:
                result.errors["no free connection"] += 1
                continue
            task = asyncio.create_task(send(due))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
            if (now := perf_counter()) - shown > 0.5:
                shown, result.seconds = now, now - began
                on_progress(result)
        while tasks:
            await asyncio.wait(tasks)
    finally:
        for task in tasks:
            task.cancel()
        for connection in every:
            connection.close()
    result.seconds = perf_counter() - began
    result.latencies.sort()
    result.late = _percentile(sorted(delays), 0.99) if delays else 0.0
    return result


def _percentile(values: list[float], share: float) -> float:
    """Return the value that a share of sorted values does not exceed."""
    return values[min(len(values) - 1, int(len(values) * share))]


class _Connection:
    """A keep-alive connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @property
    def is_open(self) -> bool:
        return not (self._reader.at_eof() or self._writer.is_closing())

    async def exchange(self, content: bytes) -> tuple[int, bool]:
        """Send a request and read the response. Returns its status, and whether the connection can be used again."""
        self._writer.write(content)
        head = await self._reader.readuntil(b"\r\n\r\n")
        status = int(head[9:12])
        length = _LENGTH.search(head)
        if status in _BODILESS:
            pass
        elif length is not None:
            await self._reader.readexactly(int(length[1]))
        elif _CHUNKED.search(head):
            await self._read_chunks()
        else:
            await self._reader.read()
            return status, False
        return status, not _CLOSES.search(head)

    async def _read_chunks(self) -> None:
        size = 1
        while size:
            size = int((await self._reader.readuntil(b"\r\n")).partition(b";")[0], 16)
            await self._reader.readexactly(size + 2)

    def close(self) -> None:
        self._writer.close()


async def _connect(target: Target, context: ssl.SSLContext | None) -> _Connection:
    return _Connection(*await asyncio.open_connection(target.host, target.port, ssl=context, limit=1 << 20))


def _cause(error: BaseException) -> str:
    if isinstance(error, ConnectionRefusedError):
        return "connection refused"
    if isinstance(error, ValueError):
        return "invalid response"
    return (
        "connection closed"
        if isinstance(error, (ConnectionError, asyncio.IncompleteReadError))
        else str(error)
    )
