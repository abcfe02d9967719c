"""The spans inside a traced request: waiting for a thread or a batch, the batch, the handler's method, and the model.

Imported only if the API has an endpoint for its traces. Every function here first checks whether the current request is traced.
"""

from dataclasses import replace
from functools import partial
from time import perf_counter, time_ns
from typing import Any

from opentelemetry.context import Context, attach
from opentelemetry.trace import Link, Span, set_span_in_context
from starlette.types import Receive

from cortex_runtime.clients import served
from cortex_runtime.handler.interfaces import Method
from cortex_runtime.handler.loaded_handler import LoadedHandler
from cortex_runtime.serving.batching import Batcher, BatchItem
from cortex_runtime.serving.endpoint import Endpoint
from cortex_runtime.serving.handler_service import HandlerService
from cortex_runtime.tracing.calls import ready_at, trace_models, traced_method
from cortex_runtime.tracing.provider import DROPPED, Tracing, request_span


def traced_service(tracing: Tracing, handler: LoadedHandler, *arguments: Any, **more: Any) -> HandlerService:
    """Return a `HandlerService` whose calls have spans. It takes the arguments of `HandlerService`."""
    tracing.count_dropped(partial(handler.series.add, DROPPED, {}))
    trace_models(tracing, handler.client, served.get)

    class TracedBatcher(Batcher):
        async def handle(self, items: list[BatchItem]) -> None:
            batch = _start_batch(tracing, items)
            try:
                await super().handle(items)
            finally:
                if batch is not None:
                    batch.end()

    class TracedService(HandlerService):
        endpoint_type, batcher_type = TracedEndpoint, TracedBatcher

        def endpoint(self, method: Method, batcher: Batcher | None = None, path: str = "/") -> Endpoint:
            return super().endpoint(method if batcher else _traced(method), batcher, path)

        def batcher(self, method: Method | None) -> Batcher | None:
            return super().batcher(None if method is None else _traced(method))

    def _traced(method: Method) -> Method:
        return replace(method, function=traced_method(tracing, method.function, method.is_async))

    return TracedService(handler, *arguments, **more)


class TracedEndpoint(Endpoint):
    """An endpoint that notes when a call of a traced request is ready to run."""

    async def call(self, arguments: dict[str, Any], receive: Receive | None) -> Any:
        """Do what `Endpoint.call` does."""
        if request_span.get() is not None:
            ready_at.set(time_ns())
        return await super().call(arguments, receive)


def _start_batch(tracing: Tracing, items: list[BatchItem]) -> Span | None:
    """Start the span of a batch and make it the current one. Return None if none of its requests is traced.

    It is a child of the first traced request, with links to all of them. Each of them also gets a span "queue".
    """
    spans: list[tuple[BatchItem, Span]] = []
    for item in items:
        span = item.context.get(request_span)
        if span is not None:
            spans.append((item, span))
    if not spans:
        return None
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
    return batch
