"""What is put around the requests of a worker: traces and payload logging.

Without them it is nothing, and none of their code is imported.
"""

from collections.abc import Callable, MutableMapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from cortex_api import Document
from cortex_runtime.metrics.series import NamedSeries
from cortex_runtime.metrics.shared_memory import WorkerMetrics
from cortex_runtime.serving.handler_service import HandlerService
from cortex_runtime.tracing import open_tracing


def _unchanged(wrapped: Any) -> Any:
    return wrapped


@dataclass
class Instrumentation:
    """Functions of worker_main.py that a feature replaces at start, so that requests do not check whether it is used.

    service: creates the HandlerService. wrap: returns the application that serves, from an `App` or one that wraps it. activate:
    called before the first request, in the context from which the contexts of all requests are copied. grpc: returns the gRPC
    methods that serve. propagate: adds headers to a request for the candidate. trace_header: returns the header `traceparent` of
    the current request, or an empty text. close: called after the last request.
    """

    service: Callable[..., HandlerService] = HandlerService
    wrap: Callable[[Any], Any] = _unchanged
    activate: Callable[[], None] = lambda: None
    grpc: Callable[[dict[str, Any]], dict[str, Any]] = _unchanged
    propagate: Callable[[MutableMapping[str, str]], None] | None = None
    trace_header: Callable[[], str] = lambda: ""
    close: Callable[[], None] = lambda: None

    def log_payloads(self, document: Document, series: NamedSeries) -> None:
        """Log payloads if the API asks for it."""
        if document.spec.payload_logging is None:
            return
        from cortex_runtime.payloads.payload_log import open_payload_log
        from cortex_runtime.serving.logged_app import LoggedApp

        payloads = open_payload_log(document, series)
        queue, ratio, most = payloads.queue, payloads.ratio, payloads.most
        wrap, grpc, close, trace = self.wrap, self.grpc, self.close, self.trace_header

        def logged_grpc(methods: dict[str, Any]) -> dict[str, Any]:
            from cortex_runtime.serving.logged_grpc import logged_methods

            return grpc(logged_methods(queue, methods, ratio=ratio, most=most, trace=trace))

        def close_all() -> None:
            payloads.close()
            close()

        # Inside of the traces, so that an event has the trace context of its request.
        self.wrap = lambda app: wrap(LoggedApp(app, queue, ratio=ratio, most=most, trace=trace))
        self.grpc = logged_grpc
        self.close = close_all


def instrumentation_of(document: Document, metrics: WorkerMetrics) -> Instrumentation:
    """Return the instrumentation of an API. Call it before the user's code is imported, whose spans are exported too."""
    found = Instrumentation()
    tracing = open_tracing(document)
    if tracing is not None:
        from opentelemetry.propagate import inject

        from cortex_runtime.serving.traced_app import TracedApp
        from cortex_runtime.serving.traced_handler import traced_service
        from cortex_runtime.tracing.provider import trace_header

        def grpc(methods: dict[str, Any]) -> dict[str, Any]:
            from cortex_runtime.serving.traced_grpc import traced_methods

            return traced_methods(tracing, methods)

        found.service = partial(traced_service, tracing)
        found.wrap = partial(TracedApp, tracing=tracing, on_end=_exemplar_writer(metrics))
        found.activate, found.close = tracing.activate, tracing.close
        found.grpc, found.propagate, found.trace_header = grpc, inject, trace_header
    return found


def _exemplar_writer(metrics: WorkerMetrics) -> Callable[[Any, float], None]:
    """Return a function that makes a request with a span the exemplar of its duration."""

    def write(span: Any, seconds: float) -> None:
        context = span.get_span_context()
        metrics.set_exemplar(seconds, context.trace_id.to_bytes(16), context.span_id.to_bytes(8))

    return write
