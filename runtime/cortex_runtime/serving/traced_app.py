"""The application of a worker whose requests are traced. Imported only if the API has an endpoint for its traces.

It wraps the whole application, so a request that is not traced takes the same path as in an API without traces.
"""

from collections.abc import Callable
from time import perf_counter
from typing import Any

from opentelemetry.context import Context, attach, detach
from opentelemetry.trace import set_span_in_context
from starlette.types import ASGIApp, Receive, Scope, Send

from cortex_runtime.http.protocol import Answer, Headers, request_id_of
from cortex_runtime.serving.admission import ARRIVED, MOVED, ROUTE
from cortex_runtime.tracing.asgi import OnEnd, TracedAsgi
from cortex_runtime.tracing.provider import Tracing, request_span

AnswerInline = Callable[[Any, bytes, bytes, Headers, bytes], Answer | ASGIApp | None]


def _answer_or(untraced: AnswerInline, tracing: Tracing, otherwise: AnswerInline) -> AnswerInline:
    """Return the `answer_inline` of an application. It decides as `Tracing.is_untraced`, in one call less for each request."""
    random, ratio, propagated = tracing.random, tracing.ratio, tracing.propagated

    def answer_inline(
        endpoint: Any, verb: bytes, query: bytes, headers: Headers, body: bytes
    ) -> Answer | ASGIApp | None:
        if random() < ratio:
            return otherwise(endpoint, verb, query, headers, body)
        # A loop, because a list of the names would cost twice as much.
        for name, _ in headers:
            if name in propagated:
                return otherwise(endpoint, verb, query, headers, body)
        return untraced(endpoint, verb, query, headers, body)

    return answer_inline


class TracedApp(TracedAsgi):
    """Traces the requests of an application. app: an `InlineApp` that is also an ASGI application."""

    def __init__(self, app: Any, tracing: Tracing, on_end: OnEnd = lambda span, seconds: None) -> None:
        super().__init__(app, tracing, on_end)
        self._answer: AnswerInline = app.answer_inline
        self.find_inline = app.find_inline
        self.answer_inline = _answer_or(self._answer, tracing, self._answer_decided)

    def _answer_decided(
        self, endpoint: Any, verb: bytes, query: bytes, headers: Headers, body: bytes
    ) -> Answer | ASGIApp | None:
        """Answer a request that has a trace context, or that is traced."""
        context, is_traced = self._tracing.admit(headers)
        if is_traced:
            return self._trace_inline(context, endpoint, verb, query, headers, body)
        token = attach(context)
        try:
            return self._answer(endpoint, verb, query, headers, body)
        finally:
            detach(token)

    def route_of(self, scope: Scope) -> str | None:
        """Return the path template of a request."""
        return scope.get(ROUTE) or ("/" if scope["path"] == "/" else None)

    def arrival_of(self, scope: Scope) -> float:
        """Return when a request has arrived, at another worker if that worker has passed it on."""
        return scope.get(ARRIVED) or perf_counter()

    def is_answered(self, scope: Scope) -> bool:
        """Return whether this worker has answered a request, rather than another worker of the replica."""
        return MOVED not in scope

    def _trace_inline(
        self, parent: Context, endpoint: Any, verb: bytes, query: bytes, headers: Headers, body: bytes
    ) -> Answer | ASGIApp | None:
        began = perf_counter()
        span = self.start(parent, verb.decode(), endpoint.path, headers, began, None)
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
            self.end(span, began, endpoint.path, 200, request_id_of(answer[1]))
            return answer
        rest: ASGIApp = answer

        async def resumed(scope: Scope, receive: Receive, send: Send) -> None:
            await self.finish(span, began, rest, parent, scope, receive, send)

        return resumed
