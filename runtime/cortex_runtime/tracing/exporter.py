"""Sends ended spans to the collector, in a thread. A request only appends its spans to a queue of limited length.

Spans that do not fit into the queue, or that the collector does not accept, are dropped and counted.
"""

import logging
import os
from collections import deque
from collections.abc import Callable
from functools import partial

from opentelemetry.context import _SUPPRESS_INSTRUMENTATION_KEY, attach, set_value
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from cortex_runtime.sender_thread import Send, SenderThread

log = logging.getLogger("cortex")

_LIBRARY_LOGGERS = ("opentelemetry.exporter.otlp.proto.http.trace_exporter", "opentelemetry.sdk.trace")


class SpanQueue(SpanProcessor):
    """The queue of ended spans and its thread.

    open_exporter: called in the thread. endpoint: for messages. on_dropped: called with a number of dropped spans, in any thread.
    The standard variables OTEL_BSP_MAX_QUEUE_SIZE (2048 spans), OTEL_BSP_MAX_EXPORT_BATCH_SIZE (512 spans) and
    OTEL_BSP_SCHEDULE_DELAY (5000 milliseconds) apply.
    """

    def __init__(
        self, open_exporter: Callable[[], SpanExporter], endpoint: str, on_dropped: Callable[[int], None]
    ) -> None:
        self._open_exporter = open_exporter
        self._on_dropped = on_dropped
        self._most = _setting("OTEL_BSP_MAX_QUEUE_SIZE", 2048)
        self._batch = min(self._most, _setting("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", 512))
        self._delay = _setting("OTEL_BSP_SCHEDULE_DELAY", 5000) / 1000
        self._spans: deque[ReadableSpan] = deque()
        self._thread = SenderThread("traces", endpoint, self._spans, self._start)
        os.register_at_fork(after_in_child=self._stop_in_child)

    def on_end(self, span: ReadableSpan) -> None:
        """Queue a span, or drop it if the queue is full. Never waits."""
        if span.context is None or not span.context.trace_flags.sampled or not self._thread.is_open:
            return
        length = len(self._spans)
        if length >= self._most:
            self._on_dropped(1)
            return
        self._spans.append(span)
        self._thread.wake(length + 1 >= self._batch)

    def close(self, seconds: float) -> None:
        """Send the queued spans, for at most `seconds`, and drop the rest."""
        self._thread.close(seconds)
        if left := len(self._spans):
            self._on_dropped(left)

    def shutdown(self) -> None:
        """Do nothing: `close` is called instead, with a time limit."""

    def _stop_in_child(self) -> None:
        """Drop the spans in a process that user code has forked. It has no thread, and its parent sends the queued spans."""
        self._thread.is_open = False
        self._spans.clear()

    def _start(self) -> tuple[Send, float]:
        attach(set_value(_SUPPRESS_INSTRUMENTATION_KEY, True))
        reports = _collect_reports()
        return partial(self._export, self._open_exporter(), reports), self._delay

    def _export(self, exporter: SpanExporter, reports: "_Reports") -> str:
        spans = [self._spans.popleft() for _ in range(min(self._batch, len(self._spans)))]
        reports.last = ""
        try:
            if exporter.export(spans) is SpanExportResult.SUCCESS:
                return ""
        except Exception as error:
            # Of the library, or of a span of user code. The thread must survive both.
            reports.last = f"{type(error).__name__}: {error}"
        self._on_dropped(len(spans))
        return reports.last or "the spans were refused"


class _Reports(logging.Handler):
    """Keeps the last message of the exporter, which would log each failure and each retry."""

    last = ""

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a message."""
        self.last = record.getMessage()


def _collect_reports() -> _Reports:
    reports = _Reports()
    for name in _LIBRARY_LOGGERS:
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [reports], False
    return reports


def _setting(variable: str, default: int) -> int:
    given = os.environ.get(variable, "")
    if not given:
        return default
    if not given.isdigit() or int(given) < 1:
        log.warning("%s must be a positive integer; got %r; using %d", variable, given, default)
        return default
    return int(given)
