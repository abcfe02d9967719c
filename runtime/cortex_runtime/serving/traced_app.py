"""The application of a worker whose requests are traced. Imported only if the API has an endpoint for its traces.

It wraps the whole application, so a request that is not traced takes the same path as in an API without traces, after one
decision. A traced request has a span of kind SERVER with the attributes of the HTTP semantic conventions of OpenTelemetry.
"""

from collections.abc import Awaitable, Callable
from time import perf_counter, time_ns
from typing import Any

from opentelemetry.context import Context, attach, detach
from opentelemetry.trace import Span, SpanKind, set_span_in_context
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cortex_runtime.http.protocol import Answer, Headers
from cortex_runtime.logs.records import request_id as request_id_variable
from cortex_runtime.serving.admission import ARRIVED, MOVED, ROUTE
from cortex_runtime.tracing.provider import Tracing, request_span, set_error

_CLIENT_GONE = 499
_ID = b"x-request-id: "

OnEnd = Callable[[Span, float], None]
"""Called at the end of a traced request with its span and its duration in seconds."""


class TracedApp:
    """Traces the requests of an application. app: an `InlineApp` that is also an ASGI application."""

    def __init__(self, app: Any, tracing: Tracing, on_end: OnEnd = lambda span, seconds: None) -> None:
        self._app: ASGIApp = app
        self._answer: Callable[..., Answer | ASGIApp | None] = app.answer_inline
        self._tracing = tracing
        self._on_end = on_end
        self.find_inline = app.find_inline

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Answer one request."""
        if scope["type"] == "lifespan" or self._tracing.is_untraced(scope["headers"]):
            return self._app(scope, receive, send)
        context, is_traced = self._tracing.admit(scope["headers"])
        if is_traced:
            return self._trace(context, scope, receive, send)
        return self._run(self._app, context, scope, receive, send)

    def answer_inline(
        self, endpoint: Any, verb: bytes, query: bytes, headers: Headers, body: bytes
    ) -> Answer | ASGIApp | None:
        """Do what `InlineApp.answer_inline` does."""
        if self._tracing.is_untraced(headers):
            return self._answer(endpoint, verb, query, headers, body)
        context, is_traced = self._tracing.admit(headers)
        if is_traced:
            return self._trace_inline(context, endpoint, verb, query, headers, body)
        token = attach(context)
        try:
            return self._answer(endpoint, verb, query, headers, body)
        finally:
            detach(token)

    async def _run(self, app: ASGIApp, context: Context, scope: Scope, receive: Receive, send: Send) -> None:
        attach(context)
        await app(scope, receive, send)

    async def _trace(self, parent: Context, scope: Scope, receive: Receive, send: Send) -> None:
        began = scope.get(ARRIVED) or perf_counter()
        method = scope["method"] if scope["type"] == "http" else "WEBSOCKET"
        span = self._start(parent, method, scope["path"], scope["headers"], began, scope)
        await self._finish(span, began, self._app, parent, scope, receive, send)

    async def _finish(
        self,
        span: Span,
        began: float,
        app: ASGIApp,
        parent: Context,
        scope: Scope,
        receive: Receive,
        send: Send,
    ) -> None:
        """Let an application answer a request that has a span, and end the span."""
        attach(set_span_in_context(span, parent))
        request_span.set(span)
        status = 0

        def observe(message: Message) -> Awaitable[None]:
            nonlocal status
            kind = message["type"]
            if kind in ("http.response.start", "websocket.http.response.start"):
                status = message["status"]
            elif kind == "websocket.accept":
                status = 101
            return send(message)

        try:
            await app(scope, receive, observe)
        finally:
            if MOVED not in scope:
                route = scope.get(ROUTE) or ("/" if scope["path"] == "/" else None)
                self._end(span, began, route, status or _CLIENT_GONE, request_id_variable.get())

    def _trace_inline(
        self, parent: Context, endpoint: Any, verb: bytes, query: bytes, headers: Headers, body: bytes
    ) -> Answer | ASGIApp | None:
        began = perf_counter()
        span = self._start(parent, verb.decode(), endpoint.path, headers, began, None)
        token = attach(set_span_in_context(span, parent))
        request_token = request_span.set(span)
        try:
            answer = self._answer(endpoint, verb, query, headers, body)
        finally:
            request_span.reset(request_token)
            detach(token)
        if answer is None:
            # Nothing was called. The request uses ASGI, where its span begins again.
            return None
        if isinstance(answer, tuple):
            request_id = answer[1].partition(_ID)[2].partition(b"\r\n")[0].decode()
            self._end(span, began, endpoint.path, 200, request_id)
            return answer
        rest: ASGIApp = answer

        async def resumed(scope: Scope, receive: Receive, send: Send) -> None:
            await self._finish(span, began, rest, parent, scope, receive, send)

        return resumed

    def _start(
        self,
        parent: Context,
        method: str,
        path: str,
        headers: Headers,
        began: float,
        scope: Scope | None,
    ) -> Span:
        fields = dict(headers)
        attributes: dict[str, Any] = {
            "http.request.method": method,
            "url.path": path,
            "url.scheme": "http" if scope is None else scope["scheme"],
        }
        if host := fields.get(b"host"):
            attributes["server.address"] = host.decode("latin-1").rpartition(":")[0] or host.decode("latin-1")
        if agent := fields.get(b"user-agent"):
            attributes["user_agent.original"] = agent.decode("latin-1")
        if scope is not None:
            attributes["network.protocol.version"] = scope["http_version"]
            if client := scope.get("client"):
                attributes["client.address"] = client[0]
        start = time_ns() - int((perf_counter() - began) * 1e9)
        return self._tracing.start(method, parent, SpanKind.SERVER, attributes, start)

    def _end(self, span: Span, began: float, route: str | None, status: int, request_id: str | None) -> None:
        attributes: dict[str, Any] = {"http.response.status_code": status}
        if request_id is not None:
            attributes["cortex.request_id"] = request_id
        if route is not None:
            attributes["http.route"] = route
            span.update_name(f"{span.name} {route}")  # type: ignore[attr-defined]
        span.set_attributes(attributes)
        if status >= 500:
            set_error(span, str(status))
        span.end()
        self._on_end(span, perf_counter() - began)
