"""The spans of HTTP requests, with the attributes of the HTTP semantic conventions of OpenTelemetry."""

from collections.abc import Awaitable, Callable
from time import perf_counter, time_ns
from typing import Any

from opentelemetry.context import Context, attach
from opentelemetry.trace import Span, SpanKind, set_span_in_context
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cortex_runtime.logs.records import request_id as request_id_variable
from cortex_runtime.tracing.provider import Headers, Tracing, request_span, set_error

_CLIENT_GONE = 499

OnEnd = Callable[[Span, float], None]
"""Called at the end of a traced request with its span and its duration in seconds."""


class TracedAsgi:
    """ASGI middleware. A request that is not traced passes unchanged, after one decision."""

    def __init__(self, app: ASGIApp, tracing: Tracing, on_end: OnEnd = lambda span, seconds: None) -> None:
        self._app = app
        self._tracing = tracing
        self._on_end = on_end

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Answer one request."""
        if scope["type"] == "lifespan" or self._tracing.is_untraced(scope["headers"]):
            return self._app(scope, receive, send)
        context, is_traced = self._tracing.admit(scope["headers"])
        if is_traced:
            return self._trace(context, scope, receive, send)
        return self._run(context, scope, receive, send)

    def route_of(self, scope: Scope) -> str | None:
        """Return the path template of a request that was answered, or None if it has no route."""
        return None

    def arrival_of(self, scope: Scope) -> float:
        """Return when a request has arrived, by perf_counter."""
        return perf_counter()

    def is_answered(self, scope: Scope) -> bool:
        """Return whether the application has answered a request: false if it was passed on to another process."""
        return True

    async def _run(self, context: Context, scope: Scope, receive: Receive, send: Send) -> None:
        attach(context)
        await self._app(scope, receive, send)

    async def _trace(self, parent: Context, scope: Scope, receive: Receive, send: Send) -> None:
        began = self.arrival_of(scope)
        method = scope["method"] if scope["type"] == "http" else "WEBSOCKET"
        span = self.start(parent, method, scope["path"], scope["headers"], began, scope)
        await self.finish(span, began, self._app, parent, scope, receive, send)

    async def finish(
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
            if self.is_answered(scope):
                self.end(span, began, self.route_of(scope), status or _CLIENT_GONE, request_id_variable.get())

    def start(
        self,
        parent: Context,
        method: str,
        path: str,
        headers: Headers,
        began: float,
        scope: Scope | None,
    ) -> Span:
        """Start the span of a request. began: its arrival, by perf_counter. scope: None for a request without ASGI."""
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

    def end(self, span: Span, began: float, route: str | None, status: int, request_id: str | None) -> None:
        """End the span of a request. route: the path template, if the request has one."""
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
