"""The application of a worker while a split is active: it wraps the stable version's application.

Without a split it is not installed, so an API without a candidate runs none of this code (switch.py).
"""

import logging
from collections.abc import Awaitable, Callable
from functools import partial
from time import perf_counter
from typing import Any, Protocol

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cortex_api.contract import STABLE
from cortex_runtime.candidate import counters
from cortex_runtime.candidate.body import BufferedBody
from cortex_runtime.candidate.client import CandidateFailed, Request
from cortex_runtime.candidate.compare import Answer
from cortex_runtime.candidate.forwarding import ResponseAborted
from cortex_runtime.candidate.mirror import MOST_BODY
from cortex_runtime.candidate.selection import VERSION, Selected
from cortex_runtime.candidate.session import Session
from cortex_runtime.errors import ClientDisconnected, HttpError
from cortex_runtime.handler.routing import is_runtime_path
from cortex_runtime.http.protocol import Answer as InlineAnswer
from cortex_runtime.http.protocol import Headers, InlineApp

log = logging.getLogger("cortex")

_STABLE_HEADER = (VERSION, STABLE.encode())
_STABLE_LINE = b"%b: %b\r\n" % _STABLE_HEADER
_REQUEST_ID = b"x-request-id"


class StableAdmission(Protocol):
    """What is used of serving/admission.py."""

    def choose_request_id(self, given: bytes | None) -> str:
        """Return the ID of a request."""

    def key_error(self, headers: dict[bytes, bytes]) -> HttpError | None:
        """Return the error of a request without a valid key."""


class StableApp(InlineApp, Protocol):
    """What is used of serving/app.py."""

    @property
    def draining(self) -> bool:
        """Whether responses have `connection: close`."""

    @property
    def admission(self) -> StableAdmission:
        """Request IDs and API keys."""

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Answer a request."""


class SplitApp:
    """Answers each request with the version that the split selects.

    max_body: bytes of a request. timeout: seconds of a request. most_forwarded: requests that are forwarded at the same time.
    """

    def __init__(
        self, app: StableApp, session: Session, *, max_body: int, timeout: float, most_forwarded: int
    ) -> None:
        self._app = app
        self._session = session
        self._counters = session.counters
        self._max_body, self._timeout, self._most_forwarded = max_body, timeout, most_forwarded
        self._forwarded = 0
        self.find_inline = app.find_inline

    def answer_inline(
        self, endpoint: Any, verb: bytes, query: bytes, headers: Headers, body: bytes
    ) -> InlineAnswer | ASGIApp | None:
        """Answer a request of the stable version inline. Otherwise return an application, which has selected the version."""
        fields = dict(headers)
        session = self._session
        selected = session.selector.select(fields)
        if selected is not Selected.STABLE and _is_forwarded(endpoint.path, selected):
            return partial(self._forward, selected, fields)
        mirrored = _is_forwarded(endpoint.path, selected) and session.select_mirrored()
        began = perf_counter()
        answer = self._app.answer_inline(endpoint, verb, query, headers, body)
        if not isinstance(answer, tuple):
            return partial(self._answer_stable, answer or self._app, mirrored)
        self._counters.record_stable(perf_counter() - began)
        content_type, lines, content = answer
        if mirrored:
            own = _fields(lines)
            path = endpoint.path + (f"?{query.decode('latin-1')}" if query else "")
            request = Request(verb.decode(), path, headers, body, own.get(_REQUEST_ID, b"").decode())
            own[b"content-type"] = content_type
            session.mirror.offer(request, Answer.received(200, own, content))
        return content_type, lines + _STABLE_LINE, content

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request. WebSockets are answered by the stable version."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        fields: dict[bytes, bytes] = dict(scope["headers"])
        selected = self._session.selector.select(fields)
        if selected is not Selected.STABLE and _is_forwarded(scope["path"], selected):
            await self._forward(selected, fields, scope, receive, send)
        else:
            mirrored = _is_forwarded(scope["path"], selected) and self._session.select_mirrored()
            await self._answer_stable(self._app, mirrored, scope, receive, send)

    async def _forward(
        self, selected: Selected, fields: dict[bytes, bytes], scope: Scope, receive: Receive, send: Send
    ) -> None:
        """Let the candidate answer a request, or the stable version if it does not."""
        self._forwarded += 1
        try:
            await self._forward_within_limit(selected, fields, scope, receive, send)
        finally:
            self._forwarded -= 1

    async def _forward_within_limit(
        self, selected: Selected, fields: dict[bytes, bytes], scope: Scope, receive: Receive, send: Send
    ) -> None:
        session, counted = self._session, selected is Selected.WEIGHTED
        if self._app.admission.key_error(fields) is not None:
            await self._answer_stable(self._app, False, scope, receive, send)
            return
        if session.breaker.is_open or self._forwarded > self._most_forwarded:
            self._count_error(counters.DIVERTED, counted, session.breaker.is_hang)
            await self._answer_stable(self._app, session.breaker.take_probe(), scope, receive, send)
            return
        body = BufferedBody(receive)
        await body.read(self._max_body, self._timeout)
        if not body.is_complete or len(body.body) > self._max_body:
            # The stable version reports that it is too long, late or incomplete.
            await self._answer_stable(self._app, False, scope, body, send)
            return
        request = self._request(scope, fields, body.body)
        began = perf_counter()

        def on_first_byte() -> None:
            if counted:
                self._counters.add(counters.ANSWERED)
                self._counters.record_candidate(perf_counter() - began)

        try:
            await session.forwarder.answer(request, receive, send, self._app.draining, on_first_byte)
        except ClientDisconnected:
            pass
        except CandidateFailed as error:
            self._count_error(counters.FALLBACK, counted, error.is_late)
            log.debug("the stable version answers for the candidate: %s", error)
            _set_header(scope, (_REQUEST_ID, request.request_id.encode()))
            await self._answer_stable(self._app, False, scope, body, send)
        except ResponseAborted as error:
            if counted:
                # It was counted as answered.
                self._counters.move(counters.ANSWERED, counters.ABORTED)
            log.error("the response was aborted after its headers were sent: the candidate failed: %s", error)

    async def _answer_stable(
        self, app: ASGIApp, mirrored: bool, scope: Scope, receive: Receive, send: Send
    ) -> None:
        """Let the stable version answer a request, and offer both to the mirror."""
        # In the list itself: a request that moves to another worker keeps its version.
        _set_header(scope, _STABLE_HEADER)
        body = None
        if mirrored:
            if isinstance(receive, BufferedBody):
                body = receive
            else:
                receive = body = BufferedBody(receive)
                await body.read(MOST_BODY, self._timeout)
        response = _StableResponse(send, self._counters.record_stable, MOST_BODY if mirrored else 0)
        await app(scope, receive, response)
        if body is None:
            return
        if not body.is_complete or len(body.body) > MOST_BODY or (answer := response.answer()) is None:
            self._counters.add(counters.DROPPED)
        elif answer.status < 500:
            self._session.mirror.offer(
                self._request(scope, {_REQUEST_ID: response.request_id}, body.body), answer
            )

    def _request(self, scope: Scope, fields: dict[bytes, bytes], body: bytes) -> Request:
        query = scope["query_string"]
        target = scope["raw_path"].decode("latin-1") + (f"?{query.decode('latin-1')}" if query else "")
        request_id = self._app.admission.choose_request_id(fields.get(_REQUEST_ID))
        return Request(scope["method"], target, scope["headers"], body, request_id)

    def _count_error(self, cell: int, counted: bool, is_late: bool) -> None:
        if counted:
            self._counters.add_error(cell, is_late)


class _StableResponse:
    """The ASGI `send` of a response of the stable version: it adds x-cortex-version.

    on_first_byte: called with the seconds to a response that is not a 5xx. most: bytes of the response that are kept for the
    mirror; 0: nothing is kept.
    """

    __slots__ = ("_began", "_most", "_on_first_byte", "_parts", "_send", "_size", "_start", "request_id")

    def __init__(self, send: Send, on_first_byte: Callable[[float], None], most: int) -> None:
        self._send, self._on_first_byte, self._most = send, on_first_byte, most
        self._began = perf_counter()
        self._parts: list[bytes] = []
        self._size = 0
        self._start: Message | None = None
        self.request_id = b""

    async def __call__(self, message: Message) -> None:
        """Send a message of the response."""
        if message["type"] == "http.response.start":
            if message["status"] < 500:
                self._on_first_byte(perf_counter() - self._began)
            headers = [pair for pair in message.get("headers", ()) if pair[0].lower() != VERSION]
            message = {**message, "headers": [*headers, _STABLE_HEADER]}
            self._start = message
        elif self._most:
            part = message.get("body", b"")
            self._size += len(part)
            if self._size <= self._most:
                self._parts.append(part)
        await self._send(message)

    def answer(self) -> Answer | None:
        """Return the response for the comparison; None if it is too large, compressed or was not sent."""
        if self._start is None or self._size > self._most:
            return None
        fields = {name.lower(): value for name, value in self._start["headers"]}
        if b"content-encoding" in fields:
            return None
        self.request_id = fields.get(_REQUEST_ID, b"")
        return Answer.received(self._start["status"], fields, b"".join(self._parts))


def _is_forwarded(path: str, selected: Selected) -> bool:
    """Return whether the candidate may answer requests for a path.

    It answers all whose request names it. Of the paths that the runtime answers itself, it answers those of inferences alone.
    """
    return selected is Selected.EXPLICIT or path.endswith("/infer") or not is_runtime_path(path)


def _set_header(scope: Scope, header: tuple[bytes, bytes]) -> None:
    """Set a header in the list of a request's headers."""
    headers = scope["headers"]
    headers[:] = [pair for pair in headers if pair[0] != header[0]]
    headers.append(header)


def _fields(lines: bytes) -> dict[bytes, bytes]:
    """Return the fields of header lines, names in lower case."""
    pairs = (line.partition(b": ") for line in lines.split(b"\r\n") if line)
    return {name.lower(): value for name, _, value in pairs}
