"""What is put around the requests of a worker: traces. Without them it is nothing, and none of their code is imported."""

from collections.abc import Callable, MutableMapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from cortex_api import Document
from cortex_runtime.serving.handler_service import HandlerService
from cortex_runtime.tracing import open_tracing


def _unchanged(wrapped: Any) -> Any:
    return wrapped


@dataclass
class Instrumentation:
    """Functions of worker_main.py that a feature replaces at start, so that requests do not check whether it is used.

    service: creates the HandlerService. wrap: returns the application that serves, from an `App` or one that wraps it. activate:
    called before the first request, in the context from which the contexts of all requests are copied. grpc: returns the gRPC
    methods that serve. propagate: adds headers to a request for the candidate. close: called after the last request.
    """

    service: Callable[..., HandlerService] = HandlerService
    wrap: Callable[[Any], Any] = _unchanged
    activate: Callable[[], None] = lambda: None
    grpc: Callable[[dict[str, Any]], dict[str, Any]] = _unchanged
    propagate: Callable[[MutableMapping[str, str]], None] | None = None
    close: Callable[[], None] = lambda: None


def instrumentation_of(document: Document) -> Instrumentation:
    """Return the instrumentation of an API. Call it before the user's code is imported, whose spans are exported too."""
    found = Instrumentation()
    tracing = open_tracing(document)
    if tracing is not None:
        from opentelemetry.propagate import inject

        from cortex_runtime.serving.traced_app import TracedApp
        from cortex_runtime.serving.traced_handler import traced_service

        def grpc(methods: dict[str, Any]) -> dict[str, Any]:
            from cortex_runtime.serving.traced_grpc import traced_methods

            return traced_methods(tracing, methods)

        found.service = partial(traced_service, tracing)
        found.wrap = partial(TracedApp, tracing=tracing)
        found.activate, found.close = tracing.activate, tracing.close
        found.grpc, found.propagate = grpc, inject
    return found
