"""The current span of requests that are not traced.

It costs such a request nothing. It exists so that spans of user code do not begin traces of their own in an untraced request, and
so that outgoing calls carry a trace context with the flag "not sampled", as W3C Trace Context requires.
"""

from contextvars import ContextVar
from random import Random

from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags

_context: ContextVar[SpanContext | None] = ContextVar("unsampled_span_context", default=None)


class UnsampledSpan(NonRecordingSpan):
    """One object for all requests. Its IDs are chosen when a request first reads them, and are then the same in its context."""

    def __init__(self, random: Random) -> None:
        super().__init__(SpanContext(0, 0, is_remote=False))
        self._random = random

    def get_span_context(self) -> SpanContext:
        """Return the IDs of the current request."""
        found = _context.get()
        if found is None:
            bits = self._random.getrandbits
            found = SpanContext(bits(128) or 1, bits(64) or 1, is_remote=False, trace_flags=TraceFlags(0))
            _context.set(found)
        return found
