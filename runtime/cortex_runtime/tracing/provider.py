"""The tracing of one process: which requests are traced, their spans, and the trace context of headers and messages."""

import logging
import os
import socket
from collections.abc import Callable, Iterable, Mapping
from contextvars import ContextVar
from random import Random
from typing import Any

from opentelemetry import propagate, trace
from opentelemetry.context import Context, attach, detach
from opentelemetry.propagators.textmap import Getter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import IdGenerator, TracerProvider
from opentelemetry.sdk.trace.export import SpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, ParentBased, TraceIdRatioBased
from opentelemetry.trace import (
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    format_span_id,
    format_trace_id,
    get_current_span,
    set_span_in_context,
)
from opentelemetry.util.types import AttributeValue

from cortex_api import Document, __version__
from cortex_api.contract import DEFAULT_SAMPLING
from cortex_runtime.logs import records
from cortex_runtime.tracing import trace_state
from cortex_runtime.tracing.exporter import SpanQueue
from cortex_runtime.tracing.unsampled import UnsampledSpan

Headers = Iterable[tuple[bytes, bytes]]

request_span: ContextVar[Span | None] = ContextVar("request_span", default=None)
"""The span of the current request, batch or job, if it is traced."""

DROPPED = "cortex_spans_dropped"
"""The counter of a worker."""
_CLOSE_SECONDS = 3.0
_HEADER_LOGGERS = (
    "opentelemetry.trace.propagation.tracecontext",
    "opentelemetry.trace.span",
    "opentelemetry.baggage.propagation",
    "opentelemetry.util.re",
)
"""Loggers with warnings about invalid headers. Any client could fill the log with them."""
_STATE = b"tracestate"


class Tracing:
    """Traces of one process. It sets the global tracer provider, so that spans of user code are exported too.

    on_dropped: called with a number of dropped spans, in any thread. random, ratio: a request is traced if random() < ratio.
    propagated: names of the headers of a trace context, in lower case.
    """

    def __init__(self, document: Document) -> None:
        spec = document.spec.tracing
        assert spec is not None
        assert spec.endpoint is not None
        percentage = DEFAULT_SAMPLING if spec.sampling is None else spec.sampling
        self.ratio = percentage / 100
        # Not the global generator: a handler that seeds it would repeat IDs.
        random = Random(os.urandom(32))
        self.random = random.random
        self._ids = _Ids(random)
        self._dropped = 0
        self.on_dropped: Callable[[int], None] = self._count_dropped
        endpoint = spec.endpoint.rstrip("/") + "/v1/traces"
        self._queue = SpanQueue(lambda: _open_exporter(endpoint), endpoint, lambda n: self.on_dropped(n))
        resource = _resource(document)
        # The decision about a request is made before its span is created, so the tracer of the runtime samples every span.
        own = self._provider(resource, ALWAYS_ON)
        self.tracer = own.get_tracer("cortex", __version__)
        trace.set_tracer_provider(self._provider(resource, ParentBased(TraceIdRatioBased(self.ratio))))
        self.propagated = frozenset(name.lower().encode() for name in propagate.get_global_textmap().fields)
        self.is_untraced = _decision(self.random, self.ratio, self.propagated)
        self._unsampled = UnsampledSpan(random)
        records.trace_fields = trace_fields
        for name in _HEADER_LOGGERS:
            logging.getLogger(name).setLevel(logging.ERROR)

    def count_dropped(self, count: Callable[[int], None]) -> None:
        """Call a function with each number of dropped spans from now on, and with the number of those dropped before."""
        self.on_dropped = count
        if self._dropped:
            self.on_dropped(self._dropped)

    def activate(self) -> None:
        """Make "not sampled" the trace context of the current context. Contexts that are copied from it inherit it."""
        attach(set_span_in_context(self._unsampled, Context()))

    def close(self) -> None:
        """Send the queued spans, for a few seconds at most."""
        self._queue.close(_CLOSE_SECONDS)

    def admit(self, headers: Headers) -> tuple[Context, bool]:
        """Return the context for a request for which `is_untraced` is false, and whether it is traced."""
        pairs = list(headers)
        if self.propagated.isdisjoint([name for name, _ in pairs]):
            return Context(), True
        context = propagate.extract(pairs, getter=_GETTER)
        parent = get_current_span(context).get_span_context()
        if parent.is_valid:
            is_traced = parent.trace_flags.sampled
            state = parent.trace_state
            if _STATE in self.propagated:
                state = trace_state.parse(_GETTER.get(pairs, "tracestate") or ())
            current = SpanContext(
                parent.trace_id,
                # Spans of a request that is not traced do not exist, but W3C Trace Context requires a new ID.
                parent.span_id if is_traced else self._ids.generate_span_id(),
                is_remote=is_traced,
                trace_flags=parent.trace_flags,
                trace_state=state,
            )
            return set_span_in_context(NonRecordingSpan(current), context), is_traced
        if self.random() < self.ratio:
            return context, True
        return set_span_in_context(self._unsampled, context), False

    def start(
        self,
        name: str,
        parent: Context | None = None,
        kind: SpanKind = SpanKind.INTERNAL,
        attributes: Mapping[str, Any] | None = None,
        start_time: int | None = None,
        links: Any = None,
    ) -> Span:
        """Start a span that is exported. parent: the current context by default. start_time: in nanoseconds; now by default."""
        return self.tracer.start_span(
            name, parent, kind, attributes=attributes, start_time=start_time, links=links
        )

    def current(self, name: str, **more: Any) -> "CurrentSpan":
        """Start a span as `start` does, and return a context manager that makes it the current one."""
        return CurrentSpan(self.start(name, **more))

    def _provider(self, resource: Resource, sampler: Any) -> TracerProvider:
        provider = TracerProvider(
            sampler=sampler, resource=resource, id_generator=self._ids, shutdown_on_exit=False
        )
        provider.add_span_processor(self._queue)
        return provider

    def _count_dropped(self, spans: int) -> None:
        self._dropped += spans


def _decision(
    random: Callable[[], float], ratio: float, propagated: frozenset[bytes]
) -> Callable[[Headers], bool]:
    """Return a function that decides about each request. A closure, because every request pays for it."""

    def is_untraced(headers: Headers) -> bool:
        """Decide about a request without trace context. Return False for a request with one, or that is traced."""
        if random() < ratio:
            return False
        # A loop, because a list of the names would cost twice as much.
        for name, _ in headers:  # noqa: SIM110
            if name in propagated:
                return False
        return True

    return is_untraced


class CurrentSpan:
    """A context manager that makes a span the current one, and ends it. It does not record exceptions."""

    __slots__ = ("_span", "_token")

    def __init__(self, span: Span) -> None:
        self._span = span

    def __enter__(self) -> Span:
        self._token = attach(set_span_in_context(self._span))
        return self._span

    def __exit__(self, *exception: object) -> None:
        detach(self._token)
        self._span.end()


class _OwnResource(Resource):
    """The one resource of a process. The exporter hashes the resource of each span, which is JSON in the base class."""

    def __eq__(self, other: object) -> bool:
        return self is other

    def __hash__(self) -> int:
        return id(self)


def set_error(span: Span, kind: str, is_error: bool = True) -> None:
    """Set the type of the error of a span. is_error: whether the span has failed; an error of the client is none."""
    span.set_attribute("error.type", kind)
    if is_error:
        span.set_status(Status(StatusCode.ERROR))


def trace_header() -> str:
    """Return the header `traceparent` of the current request; an empty text if it is not traced."""
    if request_span.get() is None:
        return ""
    headers: dict[str, str] = {}
    propagate.inject(headers)
    return headers.get("traceparent", "")


def trace_fields() -> dict[str, str]:
    """Return the fields of a log record in the current context: none if the request is not traced."""
    context = get_current_span().get_span_context() if request_span.get() is not None else None
    if context is None or not context.trace_flags.sampled:
        return {}
    return {"trace_id": format_trace_id(context.trace_id), "span_id": format_span_id(context.span_id)}


class _Ids(IdGenerator):
    def __init__(self, random: Random) -> None:
        self._bits = random.getrandbits

    def generate_span_id(self) -> int:
        return self._bits(64) or 1

    def generate_trace_id(self) -> int:
        return self._bits(128) or 1


class _HeaderGetter(Getter[list[tuple[bytes, bytes]]]):
    """Reads headers of ASGI. Two headers `traceparent` are invalid, like any other invalid value."""

    def get(self, carrier: list[tuple[bytes, bytes]], key: str) -> list[str] | None:
        wanted = key.lower().encode()
        values = [value.decode("latin-1") for name, value in carrier if name == wanted]
        return None if not values or (wanted == b"traceparent" and len(values) > 1) else values

    def keys(self, carrier: list[tuple[bytes, bytes]]) -> list[str]:
        return [name.decode("latin-1") for name, _ in carrier]


_GETTER = _HeaderGetter()


def _open_exporter(endpoint: str) -> SpanExporter:
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    return OTLPSpanExporter(endpoint)


def _resource(document: Document) -> Resource:
    """Return what identifies this process. OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES override it."""
    host, process = socket.gethostname(), os.getpid()
    own: dict[str, AttributeValue] = {
        "service.name": document.name,
        "service.namespace": document.namespace,
        "service.instance.id": f"{host}-{process}",
        "host.name": host,
        "process.pid": process,
        "cortex.kind": document.kind,
        "cortex.version": __version__,
        "telemetry.sdk.name": "opentelemetry",
        "telemetry.sdk.language": "python",
    }
    return _OwnResource(Resource(own).merge(OTELResourceDetector().detect()).attributes)
