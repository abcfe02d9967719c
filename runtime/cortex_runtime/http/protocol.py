"""Extend uvicorn's HTTP protocol: a graceful shutdown that loses no request, limits for request heads, and inline responses.

On shutdown, a connection is closed only after every request that the client has sent is answered. A request for a method that
runs inline is answered without a task and without ASGI messages, together with all others that have arrived (`iteration.py`): a
small request usually arrives in one piece, and its method returns within a fraction of a millisecond. Every other request takes
the usual ASGI path.

maxBodySize and requestTimeout limit bodies. What surrounds them (the request line, headers, chunk extensions, trailers) has its
own limits, so that a client cannot fill the memory or keep a connection open forever before its API key is checked.
"""

import array
import asyncio
import contextvars
import fcntl
import termios
from collections.abc import Callable
from typing import Any, Protocol

from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from cortex_runtime.http.iteration import BufferedTransport, iteration_of
from cortex_runtime.http.strict_protocol import TRAILERS, End, StrictProtocol, until_close

Headers = list[tuple[bytes, bytes]]
Answer = tuple[bytes, bytes, bytes]
"""Content type, further header lines with their line ends, and body of a response with status 200."""


def request_id_of(lines: bytes) -> str:
    """Return the request ID in the header lines of an `Answer`."""
    return lines.partition(b"x-request-id: ")[2].partition(b"\r\n")[0].decode()


class InlineApp(Protocol):
    """The interface of an application that can answer inline, in addition to ASGI."""

    def find_inline(self, verb: bytes, path: bytes) -> Any:
        """Return the endpoint that may answer a request inline, or None."""

    def answer_inline(
        self, endpoint: Any, verb: bytes, query: bytes, headers: Headers, body: bytes
    ) -> Answer | ASGIApp | None:
        """Return the response; or an ASGI application that sends it; or None if nothing was run and the request must use ASGI."""


class GracefulProtocol(StrictProtocol):
    """One connection of a server. Its application sends `connection: close` while it drains."""

    max_head_bytes = 512 * 1024
    """Bytes of a request line with its headers, or of anything else outside of a body, after the first read."""
    head_seconds = 60.0
    """Seconds for which a connection may wait for a request, and a request for the end of its headers."""
    linger_seconds = 0.5
    """Seconds for which an idle connection stays open during shutdown, for a request that is already on its way."""

    _begun = False
    _lingered = False
    _quiet = 0
    """Bytes received without a part of a body since the request began; -1 after either."""
    _partial: Any = None
    _deadline = 0.0
    _collected: list[bytes] | None = None
    _collectable = 0

    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self._context = contextvars.copy_context()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Handle a new connection, which must send a request in time."""
        self._iteration = iteration_of(self.loop)
        super().connection_made(BufferedTransport(transport, self._iteration))  # type: ignore[arg-type]
        self._close_at(self.loop.time() + self.head_seconds)

    def connection_lost(self, exc: Exception | None) -> None:
        """End the connection and its timer."""
        super().connection_lost(exc)
        self._unset_keepalive_if_required()

    def eof_received(self) -> bool:  # type: ignore[override]
        """Send what is written: the event loop closes the connection without asking the buffer."""
        self.transport.flush()  # type: ignore[attr-defined]
        return super().eof_received()

    def handle_websocket_upgrade(self) -> None:
        """Let the WebSocket send at once."""
        self.transport = self.transport.unbuffered()  # type: ignore[attr-defined]
        super().handle_websocket_upgrade()

    def data_received(self, data: bytes) -> None:
        """Parse the data. Outside of a running request, a timer for what follows is set afterwards."""
        super().data_received(data)
        if self.timeout_keep_alive_task is None:
            self._limit_head(len(data))

    def _limit_head(self, size: int) -> None:
        """Refuse a head that is too large, and close the connection if its end does not arrive in time. size: bytes received."""
        self._quiet = 0 if self._quiet < 0 else self._quiet + size
        if self not in self.connections or self.transport.is_closing():
            return  # A WebSocket, or refused
        if self._quiet > self.max_head_bytes:
            self.refuse(431, f"the request line and headers are larger than {self.max_head_bytes} bytes")
        elif self.cycle is None or self.cycle.response_complete:
            if not self._begun or self._partial is not self.headers:
                self._partial, self._deadline = self.headers, self.loop.time() + self.head_seconds
            self._close_at(self._deadline)

    def _close_at(self, deadline: float) -> None:
        self.timeout_keep_alive_task = self.loop.call_at(deadline, self.timeout_keep_alive_handler)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        """Start the task in a fresh context. A pipelined request would otherwise inherit the context of the previous one."""
        self.running = cycle
        if cycle.scope["http_version"] != "1.1":
            app = until_close(app, cycle)
        task = self.loop.create_task(cycle.run_asgi(app), context=self._context.copy())
        task.add_done_callback(self.tasks.discard)
        self.tasks.add(task)

    def on_message_begin(self) -> None:
        """Note that a request has begun to arrive."""
        self._begun = True
        self._quiet = -1
        self.hosts = 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Note that uvicorn tracks the request from here on."""
        self._begun = False
        if self.hosts != 1:
            self.check_hosts()
        if not self.must_ignore_upgrade():
            self._track()

    def _track(self) -> None:
        """Start the request, or queue it behind the running one."""
        super().on_headers_complete()
        if not self.parser.should_upgrade():
            self.headers = TRAILERS

    def collect_body(self, limit: int) -> list[bytes]:
        """Return a list that receives the rest of the current request's body, without a wake-up and copies for each part.

        The next `receive()` returns when the body is complete, or longer than `limit` bytes, or the client has disconnected.
        """
        self._collected, self._collectable = [], limit
        return self._collected

    def on_body(self, body: bytes) -> None:
        """Add a part of a body to the list of `collect_body`, or to the request cycle."""
        self._quiet = -1
        collected = self._collected
        if collected is None or self.cycle.response_complete:
            super().on_body(body)
            return
        collected.append(body)
        self._collectable -= len(body)
        if self._collectable < 0:
            self._collected = None
            self.cycle.message_event.set()

    def on_message_complete(self) -> None:
        """End the request's body."""
        self._collected = None
        super().on_message_complete()

    def shutdown(self) -> None:
        """Close after the running request and after requests that the client sent before it could see `connection: close`."""
        if self.transport.is_closing():
            return
        if self.cycle is not None and not self.cycle.response_complete:
            super().shutdown()
        elif not self._lingered or self._begun or self._unread():
            self._lingered = True
            self.loop.call_later(self.linger_seconds, self.shutdown)
        else:
            self.transport.close()

    def _unread(self) -> bool:
        """Return whether the socket has unread data."""
        waiting = array.array("i", [0])
        try:
            fcntl.ioctl(self.transport.get_extra_info("socket").fileno(), termios.FIONREAD, waiting)
        except OSError:
            return False
        return waiting[0] > 0


class InlineProtocol(GracefulProtocol):
    """One connection that answers inline where possible. config.app must be an `InlineApp`."""

    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self._app: InlineApp = self.config.app  # type: ignore[assignment]
        self._held: Any = None
        self._is_complete = self._is_last = False
        self._held_headers: Headers = []
        self._verb = self._query = b""
        self._body = b""
        self._common: tuple[Any, bytes] = (None, b"")
        self._is_old: bool | None = None
        """Whether the client uses HTTP/1.0."""

    def use(self, app: InlineApp) -> None:
        """Answer the requests that follow with another application."""
        self._app = app
        self.app = app

    def data_received(self, data: bytes) -> None:
        """Parse the data. A held request that is still incomplete takes the ASGI path."""
        StrictProtocol.data_received(self, data)
        if self._is_complete:
            return
        if self._held is not None:
            if self.transport.is_closing():
                self._held = None
            else:
                self._release()
        if self.timeout_keep_alive_task is None:
            self._limit_head(len(data))

    def on_message_begin(self) -> None:
        """Start a request without the ASGI scope, which is built only if it is needed."""
        if self._is_complete:
            self.call()
        self._begun = True
        self._quiet = -1
        self.hosts = 0
        self.url = b""
        self.expect_100_continue = False
        self.headers = []

    def on_headers_complete(self) -> None:
        """Hold the request if it may be answered inline."""
        self._begun = False
        if self.hosts != 1:
            self.check_hosts()
        parser = self.parser
        if parser.should_upgrade():
            if not self.must_ignore_upgrade():
                self._begin(self.headers)
            return
        cycle, url = self.cycle, self.url
        path = b"/" if url == b"/" or url[:2] == b"/?" else url.partition(b"?")[0]
        if (
            (cycle is None or cycle.response_complete)
            and not self.expect_100_continue
            and not self.flow.write_paused
            and (endpoint := self._app.find_inline(verb := parser.get_method(), path)) is not None
        ):
            self._held, self._verb, self._query, self._body = endpoint, verb, url[len(path) + 1 :], b""
            self._held_headers, self.headers = self.headers, TRAILERS
        else:
            self._begin(self.headers)

    def on_body(self, body: bytes) -> None:
        """Collect the body of a held request."""
        if self._held is None:
            super().on_body(body)
        else:
            self._body += body

    def on_message_complete(self) -> None:
        """Answer a held request inline: together with those of other connections if the connection stays open afterwards."""
        if self._held is None:
            super().on_message_complete()
            return
        parser = self.parser
        if self._is_old is None:
            # Read once: a client whose first request has a later version keeps connections open.
            self._is_old = parser.get_http_version() == "1.0"
        # The parser forgets this before the next request.
        self._is_last = self._is_old or not parser.should_keep_alive()
        self._is_complete = True
        if self._is_last or len(self.connections) == 1:
            self._answer(self.transport.send)  # type: ignore[attr-defined]
        else:
            self._iteration.add_call(self)

    def call(self) -> None:
        """Answer a held request that is complete, if there is one."""
        if self._is_complete:
            self._answer(self.transport.write)

    def _answer(self, write: Callable[[bytes], None]) -> None:
        self._is_complete = False
        if self.transport.is_closing():
            self._held = None
            return
        answer = self._app.answer_inline(self._held, self._verb, self._query, self._held_headers, self._body)
        if not isinstance(answer, tuple):
            self._release(answer)
            super().on_message_complete()
            return
        self._held = None
        kind, more, body = answer
        last = b"connection: close\r\n" if self._is_last else b""
        write(
            b"HTTP/1.1 200 OK\r\n%bcontent-type: %b\r\ncontent-length: %d\r\n%b%b\r\n%b"
            % (self._default_headers(), kind, len(body), more, last, body)
        )
        if last:
            # Pipelined requests that follow are not answered.
            self.cycle = End(self.transport)  # type: ignore[assignment]
            self.transport.close()
        self.on_response_complete()

    def fail(self) -> None:
        """Close the connection of a request that `call` could not answer."""
        self._held = None
        self.transport.close()

    def eof_received(self) -> bool:  # type: ignore[override]
        """Answer before the connection is closed."""
        self.call()
        return super().eof_received()

    def shutdown(self) -> None:
        """Answer before the connection is closed."""
        self.call()
        super().shutdown()

    def _release(self, app: ASGIApp | None = None) -> None:
        """Send the held request down the ASGI path, to `app` if one is given."""
        self._held = None
        usual = self.app
        self.app = app or usual
        try:
            self._begin(self._held_headers)
        finally:
            self.app = usual
        if self._body:
            super().on_body(self._body)

    def _begin(self, headers: Headers) -> None:
        url, expects = self.url, self.expect_100_continue
        HttpToolsProtocol.on_message_begin(self)
        self.url, self.expect_100_continue = url, expects
        self.headers.extend(headers)
        self._track()

    def _default_headers(self) -> bytes:
        headers = self.server_state.default_headers
        seen, lines = self._common
        if headers is not seen:
            lines = b"".join(b"%b: %b\r\n" % pair for pair in headers)
            self._common = headers, lines
        return lines
