"""The spans inside a traced request: waiting for a thread or a batch, the batch, the handler's method, and the model.

Imported only if the API has an endpoint for its traces. Every function here first checks whether the current request is traced.
"""

from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import replace
from functools import wraps
from time import perf_counter, time_ns
from typing import Any

from opentelemetry.context import Context, attach
from opentelemetry.trace import Link, Span, SpanKind, set_span_in_context
from starlette.exceptions import HTTPException
from starlette.types import Receive

from cortex_runtime.clients import served
from cortex_runtime.errors import UserError
from cortex_runtime.handler.interfaces import Method
from cortex_runtime.handler.loaded_handler import LoadedHandler
from cortex_runtime.serving.batching import Batcher, BatchItem
from cortex_runtime.serving.endpoint import Endpoint
from cortex_runtime.serving.handler_service import HandlerService
from cortex_runtime.tracing.provider import Tracing, request_span, set_error

DROPPED = "cortex_spans_dropped"
_queued_at: ContextVar[int] = ContextVar("queued_at", default=0)
"""Unix time in nanoseconds at which the current call was ready to run."""
_LEAST_WAIT = 1_000_000
"""Nanoseconds. A shorter wait for a thread has no span."""


def traced_service(tracing: Tracing, handler: LoadedHandler, *arguments: Any, **more: Any) -> HandlerService:
    """Return a `HandlerService` whose calls have spans. It takes the arguments of `HandlerService`."""
    series = handler.series
    tracing.set_on_dropped(lambda spans: series.add(DROPPED, {}, spans))
    if handler.client is not None:
        for name in ("predict", "run"):
            if hasattr(handler.client, name):
                setattr(handler.client, name, _traced_model(tracing, getattr(handler.client, name)))

    class TracedBatcher(Batcher):
        async def handle(self, items: list[BatchItem]) -> None:
            _start_batch(tracing, items)
            batch = request_span.get()
            try:
                await super().handle(items)
            finally:
                if batch is not None:
                    batch.end()

    class TracedService(HandlerService):
        endpoint_type, batcher_type = TracedEndpoint, TracedBatcher

        def endpoint(self, method: Method, batcher: Batcher | None = None, path: str = "/") -> Endpoint:
            if batcher is None:
                method = replace(method, function=traced_method(tracing, method))
            return super().endpoint(method, batcher, path)

        def batcher(self, method: Method | None) -> Batcher | None:
            if method is not None:
                method = replace(method, function=traced_method(tracing, method))
            return super().batcher(method)

    return TracedService(handler, *arguments, **more)


class TracedEndpoint(Endpoint):
    """An endpoint that notes when a call of a traced request is ready to run."""

    async def call(self, arguments: dict[str, Any], receive: Receive | None) -> Any:
        """Do what `Endpoint.call` does."""
        if request_span.get() is not None:
            _queued_at.set(time_ns())
        return await super().call(arguments, receive)


def traced_method(tracing: Tracing, method: Method) -> Callable[..., Any]:
    """Return the function of a method with a span "handler" around it, and "queue" for a wait before it."""
    function = method.function
    attributes = {"code.function.name": getattr(function, "__qualname__", type(function).__name__)}

    @wraps(function)
    def traced(*arguments: Any, **more: Any) -> Any:
        if request_span.get() is None:
            return function(*arguments, **more)
        _end_wait(tracing)
        with tracing.current("handler", attributes=attributes) as span:
            try:
                return function(*arguments, **more)
            except BaseException as error:
                _set_exception(span, error)
                raise

    @wraps(function)
    async def traced_async(*arguments: Any, **more: Any) -> Any:
        if request_span.get() is None:
            return await function(*arguments, **more)
        with tracing.current("handler", attributes=attributes) as span:
            try:
                return await function(*arguments, **more)
            except BaseException as error:
                _set_exception(span, error)
                raise

    return traced_async if method.is_async else traced


def _traced_model(tracing: Tracing, predict: Callable[..., Any]) -> Callable[..., Any]:
    """Return a method of a client of models with a span "model" around it."""

    @wraps(predict)
    def traced(*arguments: Any, **more: Any) -> Any:
        if request_span.get() is None:
            return predict(*arguments, **more)
        with tracing.current("model", kind=SpanKind.CLIENT) as span:
            try:
                return predict(*arguments, **more)
            except BaseException as error:
                _set_exception(span, error)
                raise
            finally:
                if versions := served.get():
                    name, version = versions[-1]
                    span.set_attributes({"cortex.model.name": name, "cortex.model.version": str(version)})

    return traced


def _end_wait(tracing: Tracing) -> None:
    """Record the wait for a thread, if the call had to wait."""
    queued = _queued_at.get()
    if queued:
        _queued_at.set(0)
        now = time_ns()
        if now - queued >= _LEAST_WAIT:
            tracing.start("queue", start_time=queued).end(now)


def _start_batch(tracing: Tracing, items: list[BatchItem]) -> None:
    """Start the span of a batch and make it the current one, if one of its requests is traced.

    It is a child of the first traced request, with links to all of them. Each of them also gets a span "queue".
    """
    spans: list[tuple[BatchItem, Span]] = []
    for item in items:
        span = item.context.get(request_span)
        if span is not None:
            spans.append((item, span))
    if not spans:
        return
    now, moment = time_ns(), perf_counter()
    parent = set_span_in_context(spans[0][1], Context())
    links = [Link(span.get_span_context()) for _, span in spans]
    batch = tracing.start("batch", parent, attributes={"cortex.batch.size": len(items)}, links=links)
    for item, span in spans:
        wait = tracing.start(
            "queue",
            set_span_in_context(span, Context()),
            start_time=now - int((moment - item.since) * 1e9),
            links=[Link(batch.get_span_context())],
        )
        wait.end(now)
    attach(set_span_in_context(batch))
    request_span.set(batch)


def _set_exception(span: Span, error: BaseException) -> None:
    """Record the type of an exception. Its message and traceback are in the log only, since they may contain payloads."""
    of_client = isinstance(error, UserError) or (isinstance(error, HTTPException) and error.status_code < 500)
    set_error(span, type(error).__name__, not of_client)
