"""Calls and sends of an event loop's connections, each made together once per iteration of the loop.

A send runs the network code of the kernel, which displaces the handler from the CPU's caches. If each response is sent at once,
the next call of a small model takes several times as long. So an iteration reads and parses all requests that have arrived, then
makes their inline calls one after the other, then sends their responses.
"""

import asyncio
import logging
from collections import deque
from typing import Any, Protocol
from weakref import WeakKeyDictionary

log = logging.getLogger("cortex")

_CALLS = 8
"""Calls after which their responses are sent. They are late by at most the time of as many calls."""
_BUFFER = 64 * 1024
"""Bytes above which a transport sends at once, so that its own flow control applies."""


class Caller(Protocol):
    """A connection with a complete request."""

    def call(self) -> None:
        """Answer the request."""

    def fail(self) -> None:
        """Close the connection, because `call` has raised an exception."""


class Iteration:
    """What the connections of one event loop will do in its next iteration."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._callers: deque[Caller] = deque()
        self._unsent: deque[BufferedTransport] = deque()
        self._is_scheduled = False

    def add_call(self, caller: Caller) -> None:
        """Call `caller.call()` in the next iteration."""
        self._callers.append(caller)
        self._schedule()

    def add_send(self, transport: "BufferedTransport") -> None:
        """Call `transport.flush()` in the next iteration, or at the end of this one's calls."""
        self._unsent.append(transport)
        self._schedule()

    def _schedule(self) -> None:
        if not self._is_scheduled:
            self._is_scheduled = True
            self._loop.call_soon(self._run)

    def _run(self) -> None:
        callers = self._callers
        try:
            while callers:
                for _ in range(min(len(callers), _CALLS)):
                    caller = callers.popleft()
                    try:
                        caller.call()
                    except Exception:
                        log.exception("a request failed outside of the handler")
                        caller.fail()
                self._send()
            self._send()
        finally:
            self._is_scheduled = False
            if callers or self._unsent:
                self._schedule()

    def _send(self) -> None:
        unsent = self._unsent
        while unsent:
            unsent.popleft().flush()


_iterations: WeakKeyDictionary[asyncio.AbstractEventLoop, Iteration] = WeakKeyDictionary()


def iteration_of(loop: asyncio.AbstractEventLoop) -> Iteration:
    """Return the calls and sends of an event loop."""
    iteration = _iterations.get(loop)
    if iteration is None:
        iteration = _iterations[loop] = Iteration(loop)
    return iteration


class BufferedTransport:
    """A transport that sends what is written at the end of an iteration of the event loop: head and body in one piece."""

    __slots__ = ("_iteration", "_transport", "_written", "is_closing")

    def __init__(self, transport: asyncio.Transport, iteration: Iteration) -> None:
        self._transport, self._iteration = transport, iteration
        self._written = b""
        self.is_closing = transport.is_closing

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """Send data later, or now if it is large. The order is kept."""
        written = self._written
        if len(written) + len(data) > _BUFFER:
            self.send(data)
        elif written:
            self._written = written + data
        elif data:
            self._written = data
            self._iteration.add_send(self)

    def send(self, data: bytes) -> None:
        """Send data now."""
        self.flush()
        self._transport.write(data)

    def writelines(self, lines: list[bytes]) -> None:
        """Do the same with the joined lines."""
        self.write(b"".join(lines))

    def flush(self) -> None:
        """Send what is written now."""
        if self._written:
            written, self._written = self._written, b""
            if not self.is_closing():
                self._transport.write(written)

    def unbuffered(self) -> asyncio.Transport:
        """Return the transport that sends at once, with everything sent that was written."""
        self.flush()
        return self._transport

    def write_eof(self) -> None:
        """Close the sending side after what is written."""
        self.flush()
        self._transport.write_eof()

    def close(self) -> None:
        """Close the connection after what is written is sent."""
        self.flush()
        self._transport.close()
