"""Sends recorded requests and responses in a thread. A request only appends them to a queue of limited size.

What does not fit into the queue, and what the sink does not accept, is dropped and counted.
"""

import logging
import threading
from collections import deque
from collections.abc import Callable

from cortex_runtime.metrics.series import NamedSeries
from cortex_runtime.payloads.events import EventBuilder, Exchange
from cortex_runtime.payloads.sinks import Sink

log = logging.getLogger("cortex")

SENT, DROPPED = "cortex_payload_events", "cortex_payload_events_dropped"
"""Counters of events. A request and its response are two."""
MAX_BYTES = 16 * 2**20
"""Size of the queue."""


class PayloadQueue:
    """The queue and its thread. open_sink: called in the thread. url: of the sink, for messages."""

    def __init__(
        self, open_sink: Callable[[], Sink], builder: EventBuilder, series: NamedSeries, url: str
    ) -> None:
        self._open_sink = open_sink
        self._builder = builder
        self._series = series
        self._url = url
        self._exchanges: deque[Exchange] = deque()
        self._bytes = 0
        self._lock = threading.Lock()
        self._has_work, self._has_batch = threading.Event(), threading.Event()
        self._batch = MAX_BYTES
        self._is_open, self._is_failing = True, False
        self._thread = threading.Thread(target=self._run, name="payloads", daemon=True)
        self._thread.start()

    def add(self, exchange: Exchange) -> None:
        """Queue a request with its response, or drop them if the queue is full. Never waits for the sink."""
        size = exchange.size
        if self._bytes + size > MAX_BYTES:
            self._series.add(DROPPED, {"reason": "queue"}, 2)
            return
        with self._lock:
            self._exchanges.append(exchange)
            self._bytes += size
        self._has_work.set()
        if self._bytes >= self._batch:
            self._has_batch.set()

    def close(self, seconds: float) -> None:
        """Send what is queued, for at most `seconds`, and drop the rest."""
        self._is_open = False
        self._has_batch.set()
        self._has_work.set()
        self._thread.join(seconds)
        if left := len(self._exchanges):
            self._series.add(DROPPED, {"reason": "shutdown"}, 2 * left)

    def _run(self) -> None:
        try:
            sink = self._open_sink()
        except Exception as error:
            log.error("payloads are not logged: failed to open %s: %s", self._url, error)
            return
        self._batch = sink.batch
        is_open = True
        while is_open:
            self._has_work.wait()
            self._has_batch.wait(sink.delay)
            self._has_batch.clear()
            self._has_work.clear()
            # Read before the queue is emptied: nothing is added after it is closed.
            is_open = self._is_open
            while self._exchanges:
                self._deliver(sink, self._take(sink.batch))

    def _take(self, most: int) -> list[Exchange]:
        """Remove a batch from the queue. most: bytes."""
        taken: list[Exchange] = []
        size = 0
        with self._lock:
            while self._exchanges and (not taken or size + self._exchanges[0].size <= most):
                exchange = self._exchanges.popleft()
                taken.append(exchange)
                size += exchange.size
            self._bytes -= size
        return taken

    def _deliver(self, sink: Sink, exchanges: list[Exchange]) -> None:
        events: list[bytes] = []
        failed = 0
        try:
            for exchange in exchanges:
                events += self._builder.build(exchange)
            failed = sink.deliver(events)
            reason = sink.reason
        except Exception as error:
            failed, reason = max(len(events), 1), f"{type(error).__name__}: {error}"
        if failed:
            self._series.add(DROPPED, {"reason": "sink"}, failed)
            if not self._is_failing:
                log.warning(
                    "failed to send payloads to %s; they are dropped until it accepts them: %s",
                    self._url,
                    reason,
                )
        elif self._is_failing:
            log.info("payloads are sent to %s again", self._url)
        if len(events) > failed:
            self._series.add(SENT, {}, len(events) - failed)
        self._is_failing = failed > 0
