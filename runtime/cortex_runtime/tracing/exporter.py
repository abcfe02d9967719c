"""Sends ended spans to the collector, in a thread. A request only appends its spans to a queue of limited length.

Spans that do not fit into the queue, or that the collector does not accept, are dropped and counted. A failure is logged once,
until the collector responds again.
"""

import logging
import os
import threading
from collections import deque
from collections.abc import Callable

from opentelemetry.context import _SUPPRESS_INSTRUMENTATION_KEY, attach, set_value
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

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
        self._endpoint = endpoint
        self._on_dropped = on_dropped
        self._most = _setting("OTEL_BSP_MAX_QUEUE_SIZE", 2048)
        self._batch = min(self._most, _setting("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", 512))
        self._delay = _setting("OTEL_BSP_SCHEDULE_DELAY", 5000) / 1000
        self._spans: deque[ReadableSpan] = deque()
        self._has_spans, self._has_batch = threading.Event(), threading.Event()
        self._is_open, self._is_failing = True, False
        self._thread = threading.Thread(target=self._run, name="traces", daemon=True)
        self._thread.start()
        os.register_at_fork(after_in_child=self._stop_in_child)

    def on_end(self, span: ReadableSpan) -> None:
        """Queue a span, or drop it if the queue is full. Never waits."""
        if span.context is None or not span.context.trace_flags.sampled or not self._is_open:
            return
        length = len(self._spans)
        if length >= self._most:
            self._on_dropped(1)
            return
        self._spans.append(span)
        if length == 0:
            self._has_spans.set()
        elif length + 1 == self._batch:
            self._has_batch.set()

    def close(self, seconds: float) -> None:
        """Send the queued spans, for at most `seconds`, and drop the rest."""
        self._is_open = False
        self._has_batch.set()
        self._has_spans.set()
        self._thread.join(seconds)
        if left := len(self._spans):
            self._on_dropped(left)

    def shutdown(self) -> None:
        """Do nothing: `close` is called instead, with a time limit."""

    def _stop_in_child(self) -> None:
        """Drop the spans in a process that user code has forked. It has no thread, and its parent sends the queued spans."""
        self._is_open = False
        self._spans.clear()

    def _run(self) -> None:
        attach(set_value(_SUPPRESS_INSTRUMENTATION_KEY, True))
        reports = _collect_reports()
        exporter = self._open_exporter()
        is_open = True
        while is_open:
            self._has_spans.wait()
            self._has_batch.wait(self._delay)
            self._has_batch.clear()
            self._has_spans.clear()
            # Read before the queue is emptied: nothing is added after it is closed.
            is_open = self._is_open
            while self._spans:
                self._export(exporter, reports)

    def _export(self, exporter: SpanExporter, reports: "_Reports") -> None:
        spans = [self._spans.popleft() for _ in range(min(self._batch, len(self._spans)))]
        reports.last = ""
        try:
            sent = exporter.export(spans) is SpanExportResult.SUCCESS
        except Exception as error:
            sent, reports.last = False, f"{type(error).__name__}: {error}"
        if not sent:
            self._on_dropped(len(spans))
            if not self._is_failing:
                log.warning(
                    "failed to send traces to %s; spans are dropped until it responds: %s",
                    self._endpoint,
                    reports.last or "the spans were refused",
                )
        elif self._is_failing:
            log.info("traces are sent to %s again", self._endpoint)
        self._is_failing = not sent


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
