"""The spans of the runtime. A request only notes their calls; the thread that exports repeats them with spans of the SDK.

A span of the SDK would cost the request several times as much. Few requests are traced, so its code is not in the CPU's caches.
"""

from collections.abc import Callable, Mapping
from time import time_ns
from traceback import format_exception
from typing import Any

from opentelemetry.context import Context
from opentelemetry.sdk.trace import IdGenerator
from opentelemetry.trace import (
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    Tracer,
    set_span_in_context,
)

Attributes = Mapping[str, Any] | None


class DeferredSpan(Span):
    """A span that notes its calls, with their times, until `replay`. Changes after its end are ignored.

    Its attributes have the names that a span of the SDK has.

    context: its own. parent: the context of its parent, or None. on_end: called with this span at its end. start_time: in
    nanoseconds.
    """

    __slots__ = (
        *("_calls", "_on_end", "attributes", "context", "end_time", "kind", "links", "name", "parent"),
        "start_time",
    )

    def __init__(
        self,
        name: str,
        context: SpanContext,
        parent: SpanContext | None,
        kind: SpanKind,
        attributes: Attributes,
        links: Any,
        start_time: int | None,
        on_end: Callable[["DeferredSpan"], None],
    ) -> None:
        self.name = name
        self.context = context
        self.parent = parent
        self.kind = kind
        self.attributes: dict[str, Any] = dict(attributes or ())
        self.links = links
        self.start_time = start_time or time_ns()
        self.end_time: int | None = None
        self._on_end = on_end
        self._calls: list[tuple[str, tuple[Any, ...]]] = []

    def get_span_context(self) -> SpanContext:
        """Return its IDs."""
        return self.context

    def is_recording(self) -> bool:
        """Return whether it has not ended."""
        return self.end_time is None

    def end(self, end_time: int | None = None) -> None:
        """End it. end_time: in nanoseconds; now by default."""
        if self.end_time is None:
            self.end_time = end_time or time_ns()
            self._on_end(self)

    def set_attribute(self, key: str, value: Any) -> None:
        """Set an attribute."""
        self.set_attributes({key: value})

    def set_attributes(self, attributes: Mapping[str, Any]) -> None:
        """Set attributes. Values that are lists are copied."""
        if self.end_time is None:
            own = self.attributes
            for key, value in attributes.items():
                # The SDK keeps the latest attributes if there are too many.
                own.pop(key, None)
                own[key] = tuple(value) if isinstance(value, list) else value

    def update_name(self, name: str) -> None:
        """Change its name."""
        if self.end_time is None:
            self.name = name

    def add_event(self, name: str, attributes: Attributes = None, timestamp: int | None = None) -> None:
        """Add an event."""
        self._note("add_event", name, dict(attributes or ()), timestamp or time_ns())

    def add_link(self, context: SpanContext, attributes: Attributes = None) -> None:
        """Add a link to another span."""
        self._note("add_link", context, dict(attributes or ()))

    def set_status(self, status: Status | StatusCode, description: str | None = None) -> None:
        """Set its status."""
        self._note("set_status", status, description)

    def record_exception(
        self,
        exception: BaseException,
        attributes: Attributes = None,
        timestamp: int | None = None,
        escaped: bool = False,
    ) -> None:
        """Add an event for an exception. The exception is not kept: its traceback refers to the variables of its frames."""
        kind = type(exception)
        module = "" if kind.__module__ == "builtins" else f"{kind.__module__}."
        own = {
            "exception.type": module + kind.__qualname__,
            "exception.message": str(exception),
            "exception.stacktrace": "".join(format_exception(exception)),
            "exception.escaped": str(escaped),
        }
        self.add_event("exception", {**own, **(attributes or {})}, timestamp)

    def _note(self, method: str, *arguments: Any) -> None:
        if self.end_time is None:
            self._calls.append((method, arguments))

    def replay(self, tracer: Tracer, ids: "GivenIds") -> Span:
        """Return the same span of another tracer, ended. ids: those of the tracer."""
        own = self.context
        ids.trace_id, ids.span_id = own.trace_id, own.span_id
        context = Context()
        if self.parent is not None:
            context = set_span_in_context(NonRecordingSpan(self.parent), context)
        span = tracer.start_span(self.name, context, self.kind, self.attributes, self.links, self.start_time)
        for method, arguments in self._calls:
            getattr(span, method)(*arguments)
        span.end(self.end_time)
        return span


class GivenIds(IdGenerator):
    """Returns the IDs of a span that exists."""

    trace_id = span_id = 0

    def generate_span_id(self) -> int:
        """Return the ID of the span."""
        return self.span_id

    def generate_trace_id(self) -> int:
        """Return the ID of its trace."""
        return self.trace_id
