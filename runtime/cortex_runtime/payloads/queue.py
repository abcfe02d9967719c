"""Sends recorded requests and responses in a thread. A request only appends them to a queue of limited size.

What does not fit into the queue, and what the sink does not accept, is dropped and counted.
"""

import threading
from collections import deque
from collections.abc import Callable
from functools import partial

from cortex_runtime.metrics.series import NamedSeries
from cortex_runtime.payloads.events import EventBuilder, Exchange
from cortex_runtime.payloads.sinks import Sink
from cortex_runtime.sender_thread import Send, SenderThread

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
        self._exchanges: deque[Exchange] = deque()
        self._bytes = 0
        self._lock = threading.Lock()
        self._batch = MAX_BYTES
        self._thread = SenderThread("payloads", url, self._exchanges, self._start)

    def add(self, exchange: Exchange) -> None:
        """Queue a request with its response, or drop them if the queue is full. Never waits for the sink."""
        size = exchange.size
        if self._bytes + size > MAX_BYTES:
            self._series.add(DROPPED, {"reason": "queue"}, 2)
            return
        with self._lock:
            self._exchanges.append(exchange)
            self._bytes += size
        self._thread.wake(self._bytes >= self._batch)

    def close(self, seconds: float) -> None:
        """Send what is queued, for at most `seconds`, and drop the rest."""
        self._thread.close(seconds)
        if left := len(self._exchanges):
            self._series.add(DROPPED, {"reason": "shutdown"}, 2 * left)

    def _start(self) -> tuple[Send, float]:
        sink = self._open_sink()
        self._batch = sink.batch
        return partial(self._deliver, sink), sink.delay

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

    def _deliver(self, sink: Sink) -> str:
        exchanges = self._take(sink.batch)
        events: list[bytes] = []
        try:
            for exchange in exchanges:
                events += self._builder.build(exchange)
            failed = sink.deliver(events)
            reason = sink.reason
        except Exception as error:
            # Of the library of the sink, or of a payload. The thread must survive both.
            failed, reason = 2 * len(exchanges), f"{type(error).__name__}: {error}"
        if failed:
            self._series.add(DROPPED, {"reason": "sink"}, failed)
        if len(events) > failed:
            self._series.add(SENT, {}, len(events) - failed)
        return reason if failed else ""
