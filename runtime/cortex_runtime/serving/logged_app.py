"""The application of a worker that logs payloads. Imported only if `spec.payloadLogging` is set.

A request that is not in the sample takes the same path as in an API without payload logging, after one decision.
"""

import os
from collections.abc import Awaitable, Callable
from random import Random
from time import time
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cortex_runtime.handler.routing import is_runtime_path
from cortex_runtime.http.protocol import Answer, Headers, request_id_of
from cortex_runtime.payloads.events import Exchange, Payload
from cortex_runtime.payloads.queue import PayloadQueue
from cortex_runtime.serving.admission import MOVED

_ID = b"x-request-id"
_JSON = b"application/json"
_CLIENT_GONE, _UNAUTHORIZED = 499, 401


class LoggedApp:
    """Records a sample of the requests of an application, and their responses.

    app: an `InlineApp` that is also an ASGI application. ratio: of the requests that are recorded. most: bytes of a payload.
    trace: returns the header `traceparent` for the current request, or an empty text.
    """

    def __init__(
        self,
        app: Any,
        queue: PayloadQueue,
        *,
        ratio: float,
        most: int,
        trace: Callable[[], str] = lambda: "",
    ) -> None:
        self._app: ASGIApp = app
        self._answer: Callable[..., Answer | ASGIApp | None] = app.answer_inline
        self.find_inline = app.find_inline
        self._queue = queue
        self._ratio = ratio
        self._most = most
        self._trace = trace
        # Not the global generator, which a handler may seed.
        self._random = Random(os.urandom(16)).random

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Answer one request."""
        if scope["type"] != "http" or self._random() >= self._ratio or _is_own(scope):
            return self._app(scope, receive, send)
        body = _Body(self._most)
        return self._record(self._app, body, scope, _Receive(receive, body), send)

    def answer_inline(
        self, endpoint: Any, verb: bytes, query: bytes, headers: Headers, body: bytes
    ) -> Answer | ASGIApp | None:
        """Do what `InlineApp.answer_inline` does."""
        if self._random() >= self._ratio:
            return self._answer(endpoint, verb, query, headers, body)
        began = time()
        answer = self._answer(endpoint, verb, query, headers, body)
        if answer is None:
            return None
        recorded = _Body(self._most)
        recorded.add(body)
        if not isinstance(answer, tuple):
            rest: ASGIApp = answer

            async def resumed(scope: Scope, receive: Receive, send: Send) -> None:
                await self._record(rest, recorded, scope, receive, send)

            return resumed
        kind, lines, content = answer
        fields = dict(headers)
        response = _Body(self._most)
        response.add(content)
        self._queue.add(
            Exchange(
                verb.decode(),
                endpoint.path,
                request_id_of(lines),
                200,
                recorded.payload(fields, began),
                response.payload({b"content-type": kind}, time()),
                self._trace(),
            )
        )
        return answer

    async def _record(
        self, app: ASGIApp, request: "_Body", scope: Scope, receive: Receive, send: Send
    ) -> None:
        began = time()
        response = _Body(self._most)
        status, fields = _CLIENT_GONE, dict[bytes, bytes]()

        def observe(message: Message) -> Awaitable[None]:
            nonlocal status, fields
            if message["type"] == "http.response.start":
                status = message["status"]
                fields = {name.lower(): value for name, value in message.get("headers", ())}
            else:
                response.add(message.get("body", b""))
            return send(message)

        try:
            await app(scope, receive, observe)
        finally:
            if MOVED not in scope and status != _UNAUTHORIZED:
                self._queue.add(
                    Exchange(
                        scope["method"],
                        scope["path"],
                        fields.get(_ID, b"").decode("latin-1"),
                        status,
                        request.payload(dict(scope["headers"]), began),
                        response.payload(fields, time()),
                        self._trace(),
                    )
                )


class _Body:
    """Collects a body, up to a limit."""

    __slots__ = ("_most", "_parts", "_size")

    def __init__(self, most: int) -> None:
        self._most = most
        self._parts: list[bytes] = []
        self._size = 0

    def add(self, part: bytes) -> None:
        """Add a part. Above the limit, only the size is kept."""
        self._size += len(part)
        if self._size <= self._most:
            self._parts.append(part)
        else:
            self._parts.clear()

    def payload(self, fields: dict[bytes, bytes], moment: float) -> Payload:
        """Return what was collected. fields: headers of the body."""
        content = b"".join(self._parts) if self._size <= self._most else None
        kind, encoding = fields.get(b"content-type", b""), fields.get(b"content-encoding", b"")
        return Payload(content, self._size, kind, encoding, moment)


class _Receive:
    """An ASGI `receive` that records the body. `__self__` is the server's request, as for the method that it wraps."""

    __slots__ = ("__self__", "_body", "_receive")

    def __init__(self, receive: Receive, body: _Body) -> None:
        self.__self__: Any = getattr(receive, "__self__", None)
        self._receive = receive
        self._body = body

    async def __call__(self) -> Message:
        """Return the next message."""
        message = await self._receive()
        if message["type"] == "http.request":
            self._body.add(message.get("body", b""))
        return message


def _is_own(scope: Scope) -> bool:
    """Return whether a request has no payload of the API."""
    return scope["method"] in ("GET", "HEAD") and is_runtime_path(scope["path"])
