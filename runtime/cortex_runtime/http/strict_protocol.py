"""Extend uvicorn's HTTP protocol by what RFC 9112 requires of a server.

Every complete request is answered, also if the client has closed its sending side or if invalid data follows. The refusal of an
invalid request contains the reason.
"""

import asyncio
import contextlib
import logging
import math
import re
import select
from collections.abc import Awaitable
from typing import Any, NoReturn

import httptools
import orjson
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

log = logging.getLogger("cortex")

_HOST = re.compile(rb"(\[[0-9A-Fa-f:.]+\]|[\w.~!$&'()*+,;=%-]*)(:\d*)?").fullmatch
"""The syntax of RFC 9110, section 7.2."""
_VERSIONS = ("1.1", "1.0")
_PROBE_AFTER, _FIRST_CHECK, _LAST_CHECK = 0.25, 0.01, 1.0
"""Seconds from the end of what a client sends to the probe, from there to the first check for a reset, and between later ones."""

DISCONNECTED = "cortex.disconnected"
"""Scope key: set if the client has disconnected before the end of its response, which is then discarded."""


class _Trailers(list[Any]):
    """The fields after a chunked body, which are discarded: as headers, they would bypass what a proxy has checked or removed."""

    def append(self, _field: Any) -> None:
        """Discard a field."""


TRAILERS = _Trailers()


class _NotParsed:
    """Takes the place of the parser when nothing that follows is read."""

    def feed_data(self, data: bytes) -> None:
        """Discard data."""


class End:
    """Takes the place of a request after which the connection is closed. content: a response, or nothing."""

    response_started = response_complete = more_body = disconnected = False

    def __init__(self, transport: asyncio.Transport, content: bytes = b"") -> None:
        self._transport, self.content = transport, content
        self.scope: dict[str, Any] = {"http_version": "1.0"}
        self.message_event = asyncio.Event()

    async def run_asgi(self, app: Any) -> None:
        """Send the response, and close the connection."""
        self._transport.write(self.content)
        self._transport.close()


def until_close(app: ASGIApp, cycle: RequestResponseCycle) -> ASGIApp:
    """Return an application whose responses end with the connection if their length is unknown: HTTP/1.0 has no chunks."""

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        def send_unchunked(message: Message) -> Awaitable[None]:
            if message["type"] == "http.response.start":
                if all(name.lower() != b"content-length" for name, _ in message.get("headers", ())):
                    cycle.chunked_encoding = False
                    cycle.expected_content_length = math.inf  # type: ignore[assignment]
            elif cycle.expected_content_length == math.inf and not message.get("more_body", False):
                cycle.expected_content_length = len(message.get("body", b""))
            return send(message)

        await app(scope, receive, send_unchunked)

    return answer


class StrictProtocol(HttpToolsProtocol):
    """One connection."""

    running: Any = None
    """The request cycle that was started last."""
    hosts = 0
    """Number of Host headers of the current request."""
    _host = b""
    """The last valid value of Host on this connection."""
    _problem: tuple[int, str] = (400, "the request is not valid HTTP/1.1")
    """Status and message for a request that is not valid."""
    _is_parsed_again = False
    """Whether the current request asks for a protocol that is not served, and is parsed again without that."""
    _probe_timer: asyncio.TimerHandle | None = None

    def connection_lost(self, exc: Exception | None) -> None:
        """End the connection and the running request, which is not the last one if the client pipelines."""
        running = self.running
        if running is not None and not running.response_complete:
            running.disconnected = True
            running.scope[DISCONNECTED] = True
            running.message_event.set()
        super().connection_lost(exc)
        if self._probe_timer is not None:
            self._probe_timer.cancel()

    def data_received(self, data: bytes) -> None:
        """Parse the data, and refuse what is not valid."""
        if (timer := self.timeout_keep_alive_task) is not None:
            self.timeout_keep_alive_task = None
            timer.cancel()
        rest: bytes | memoryview = data
        while True:
            try:
                self.parser.feed_data(rest)
                return
            except httptools.HttpParserUpgrade as upgrade:
                if self._should_upgrade():
                    self.handle_websocket_upgrade()
                    return
                rest = memoryview(rest)[upgrade.args[0] :]
                self._parse_again()
            except httptools.HttpParserError:
                self.refuse(*self._problem)
                return

    def reject(self, status: int, message: str) -> NoReturn:
        """Raise ValueError. The parser then stops, and the request is refused with this status and message."""
        self._problem = status, message
        raise ValueError(message)

    def must_ignore_upgrade(self) -> bool:
        """Return whether the current request asks for a protocol that is not served, such as HTTP/2. It is parsed again.

        Its body would be lost otherwise: for the parser, the new protocol begins after the headers. Raises ValueError (CONNECT).
        """
        if not self.parser.should_upgrade():
            return False
        if self.parser.get_method() == b"CONNECT":
            self.reject(400, "the method CONNECT is not supported")
        self._is_parsed_again = not self._should_upgrade()
        return self._is_parsed_again

    def _parse_again(self) -> None:
        """Parse the head of the current request again, without the header Upgrade."""
        self._is_parsed_again = False
        verb, version = self.parser.get_method(), self.parser.get_http_version()
        lines = b"".join(b"%b: %b\r\n" % pair for pair in self.headers if pair[0] != b"upgrade")
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        with contextlib.suppress(httptools.HttpParserError):
            # An error is reported again with what follows.
            self.parser.feed_data(b"%b %b HTTP/%b\r\n%b\r\n" % (verb, self.url, version.encode(), lines))

    def on_message_complete(self) -> None:
        """End the request's body."""
        if not self._is_parsed_again:
            super().on_message_complete()

    def eof_received(self) -> bool:  # type: ignore[override]
        """Keep the connection open until all complete requests are answered. The client may still receive."""
        cycle = self.cycle
        if cycle is None or cycle.response_complete or (cycle.more_body and not self.pipeline):
            return False
        if cycle.more_body:
            self._replace_last(End(self.transport))
        else:
            cycle.keep_alive = False
        self._probe_timer = self.loop.call_later(_PROBE_AFTER, self._probe)
        return True

    def _probe(self) -> None:
        """Send something that changes no response. The system of a client that has closed its socket answers with a reset."""
        running = self.running
        if not running.response_started:
            if running.scope["http_version"] == "1.1":
                self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        elif running.chunked_encoding and not running.response_complete:
            # A leading zero of the size of the next chunk.
            self.transport.write(b"0")
        self._check_for_reset(_FIRST_CHECK)

    def _check_for_reset(self, delay: float) -> None:
        """End the connection if the client has reset it. The loop would not notice: it reads no longer."""
        if self.transport.is_closing():
            return
        poll = select.poll()
        poll.register(self.transport.get_extra_info("socket").fileno(), 0)
        if poll.poll(0):
            self.transport.abort()
        else:
            longer = min(2 * delay, _LAST_CHECK)
            self._probe_timer = self.loop.call_later(delay, self._check_for_reset, longer)

    def refuse(self, status: int, message: str) -> None:
        """Answer invalid data after the complete requests before it, and close the connection."""
        if isinstance(self.parser, _NotParsed):
            return
        log.info("a request was refused with %d: %s", status, message)
        self.parser = _NotParsed()  # type: ignore[assignment]
        body = orjson.dumps({"error": message})
        common = b"".join(b"%b: %b\r\n" % pair for pair in self.server_state.default_headers)
        refusal = End(
            self.transport,
            b"%b%bcontent-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%b"
            % (STATUS_LINE[status], common, len(body), body),
        )
        cycle = self.cycle
        if cycle is not None and cycle.more_body and self.pipeline:
            self._replace_last(refusal)
        elif cycle is not None and not cycle.more_body and not cycle.response_complete:
            self.cycle = refusal  # type: ignore[assignment]
            self.pipeline.appendleft((refusal, None))  # type: ignore[arg-type]
        else:
            if cycle is None or not (cycle.more_body and cycle.response_started):
                self.transport.write(refusal.content)
            self.transport.close()

    def _replace_last(self, end: End) -> None:
        """Replace the last pipelined request, which is incomplete."""
        self.cycle = end  # type: ignore[assignment]
        self.pipeline[0] = (end, None)  # type: ignore[assignment]

    def on_header(self, name: bytes, value: bytes) -> None:
        """Add a header."""
        name = name.lower()
        if name == b"host":
            self.hosts += 1
            if value != self._host:
                self._check_host(value)
        elif name == b"transfer-encoding":
            self._check_transfer_coding(value)
        elif name == b"expect" and value.lower() == b"100-continue":
            # HTTP/1.0 has no interim responses.
            self.expect_100_continue = self.parser.get_http_version() != "1.0"
        self.headers.append((name, value))

    def _check_host(self, value: bytes) -> None:
        """Check Host, and the version. Not for each request: a connection usually has one of each."""
        if self.headers is TRAILERS:
            return
        self._check_version()
        if not _HOST(value):
            self.reject(400, "the header Host is not valid")
        self._host = value

    def _check_version(self) -> str:
        version = self.parser.get_http_version()
        if version not in _VERSIONS:
            self.reject(505, f"HTTP/{version} is not supported on this connection; use HTTP/1.1")
        return version

    def _check_transfer_coding(self, value: bytes) -> None:
        """Refuse any coding but a single `chunked` (RFC 9112, section 6.1). A proxy may see another end of such a body."""
        if self.parser.get_http_version() == "1.0":
            self.reject(400, "the header Transfer-Encoding requires HTTP/1.1")
        if value.lower() != b"chunked":
            self.reject(501, "the only supported transfer coding is chunked")

    def check_hosts(self) -> None:
        """Raise ValueError if Host is missing or repeated (RFC 9112, section 3.2). The parser then refuses the request."""
        hosts = self.hosts
        if self._check_version() != "1.0" or hosts:
            self.reject(
                400, "the header Host is missing" if hosts == 0 else f"the header Host is sent {hosts} times"
            )
