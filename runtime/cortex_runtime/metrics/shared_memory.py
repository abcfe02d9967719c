"""Metrics shared by the processes of one replica: a table of 64-bit floats with one row per worker slot, followed by one region
per slot for that worker's `NamedSeries`.

Each worker writes only to its own row, so no lock is needed. The supervisor reads all rows for /metrics and /load. A row outlives
its worker and the next worker in that slot continues it, so counters never decrease.

The rows contain the built-in metrics, the regions contain the named series (series.py). prometheus.py exports both in /metrics.
"""

import mmap
import os
import tempfile
import time
from bisect import bisect_left
from collections.abc import Iterator, Sequence

from cortex_runtime.metrics import exemplars
from cortex_runtime.metrics.series import REGION

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "OTHER")
BUCKETS = (
    0.00025,
    0.0005,
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
    5.0,
    10.0,
    30.0,
    60.0,
)
"""Upper bounds of the latency histogram in seconds."""
BATCH_SIZES = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0)
"""Upper bounds of the histogram of batch sizes."""
FIRST_STATUS, STATUSES = 100, 500

_IN_FLIGHT, _WAITING, _LIVE, _FREE, _MOVABLE, _CONNECTIONS, _ACCEPTED, _SECONDS, _HISTOGRAM = range(9)
_REQUESTS = _HISTOGRAM + len(BUCKETS) + 1
_BATCHED = _REQUESTS + len(METHODS) * STATUSES
_BATCH_ROWS = _BATCHED + len(BATCH_SIZES) + 1
_BATCH_WAIT = _BATCH_ROWS + 1
_BATCH_WAIT_SECONDS = _BATCH_WAIT + len(BUCKETS) + 1
_BREAKER = _BATCH_WAIT_SECONDS + 1
_CANDIDATE = _BREAKER + 1
CANDIDATE_CELLS = 64
"""Cells of a row that candidate/counters.py defines."""
_EXEMPLARS = _CANDIDATE + CANDIDATE_CELLS
_WIDTH = _EXEMPLARS + (len(BUCKETS) + 1) * exemplars.CELLS
_METHOD_OFFSET = {method: _REQUESTS + i * STATUSES - FIRST_STATUS for i, method in enumerate(METHODS)}
_OTHER_OFFSET = _METHOD_OFFSET["OTHER"]


class SharedMetrics:
    """The whole table, mapped from a file descriptor that all processes of the replica inherit.

    For load sharing (serving/load_sharing.py), workers read one value per slot of each other. live: while the worker accepts
    connections, when its event loop has last run (perf_counter, updated every 0.1 s); 0 otherwise. free: 1 while a request would
    start without waiting. movable: queued requests that may move to another worker. connections: open connections. accepted:
    connections accepted so far; those of gRPC count only while the replica drains.

    breaker: 1 per slot while the worker's breaker of the candidate is open.
    """

    def __init__(self, descriptor: int, slots: int) -> None:
        self.descriptor = descriptor
        self.slots = slots
        # Page-aligned: no region shares a page with the table.
        self._table = -(-slots * _WIDTH * 8 // mmap.PAGESIZE) * mmap.PAGESIZE
        self._memory = memoryview(mmap.mmap(descriptor, self._table + slots * REGION))
        self.cells = self._memory[: slots * _WIDTH * 8].cast("d")
        self._in_flight = self.cells[_IN_FLIGHT::_WIDTH]
        self.live, self.free = self.cells[_LIVE::_WIDTH], self.cells[_FREE::_WIDTH]
        self.movable, self.connections = self.cells[_MOVABLE::_WIDTH], self.cells[_CONNECTIONS::_WIDTH]
        self.accepted = self.cells[_ACCEPTED::_WIDTH]
        self.breaker = self.cells[_BREAKER::_WIDTH]

    @classmethod
    def create(cls, slots: int) -> "SharedMetrics":
        """Create a table of zeros in anonymous memory."""
        if hasattr(os, "memfd_create"):
            descriptor = os.memfd_create("cortex-metrics")
        else:
            with tempfile.TemporaryFile() as file:
                descriptor = os.dup(file.fileno())
        os.ftruncate(descriptor, -(-slots * _WIDTH * 8 // mmap.PAGESIZE) * mmap.PAGESIZE + slots * REGION)
        return cls(descriptor, slots)

    def worker(self, slot: int) -> "WorkerMetrics":
        """Return the row that the worker in this slot writes."""
        return WorkerMetrics(self, slot)

    def series_region(self, slot: int) -> memoryview:
        """Return the region for the `NamedSeries` of the worker in this slot."""
        start = self._table + slot * REGION
        return self._memory[start : start + REGION]

    def candidate_cells(self, slot: int) -> "memoryview[float]":
        """Return the cells of a worker's row that belong to the candidate."""
        start = slot * _WIDTH + _CANDIDATE
        return self.cells[start : start + CANDIDATE_CELLS]

    def in_flight(self) -> int:
        """Return the number of requests that the replica runs or queues."""
        return int(sum(self._in_flight))

    def waiting(self) -> int:
        """Return the number of requests that wait for a thread or a batch."""
        return int(sum(self.cells[slot * _WIDTH + _WAITING] for slot in range(self.slots)))

    def reset_gauges(self, slot: int) -> None:
        """Zero the requests and connections of a worker that has exited; its counters stay."""
        for cell in (_IN_FLIGHT, _WAITING, _LIVE, _FREE, _MOVABLE, _CONNECTIONS, _BREAKER):
            self.cells[slot * _WIDTH + cell] = 0.0

    def requests(self) -> Iterator[tuple[str, int, float]]:
        """Yield (method, status, count) of all responses, summed over the workers."""
        for method, offset in _METHOD_OFFSET.items():
            for status in range(FIRST_STATUS, FIRST_STATUS + STATUSES):
                count = sum(self.cells[slot * _WIDTH + offset + status] for slot in range(self.slots))
                if count:
                    yield method, status, count

    def durations(self) -> tuple[list[float], float]:
        """Return the cumulative counts for each of BUCKETS and +Inf, and the sum of seconds."""
        return self._histogram(_HISTOGRAM, BUCKETS, _SECONDS)

    def exemplars(self) -> list[exemplars.Exemplar | None]:
        """Return the newest exemplar for each of BUCKETS and +Inf."""
        rows = [self.exemplar_row(slot) for slot in range(self.slots)]
        return [exemplars.newest(rows, bucket) for bucket in range(len(BUCKETS) + 1)]

    def exemplar_row(self, slot: int) -> memoryview:
        """Return the exemplars of the worker in this slot, as bytes."""
        return self._memory[(slot * _WIDTH + _EXEMPLARS) * 8 : (slot + 1) * _WIDTH * 8]

    def batch_sizes(self) -> tuple[list[float], float]:
        """Return the cumulative counts for each of BATCH_SIZES and +Inf, and the sum of sizes."""
        return self._histogram(_BATCHED, BATCH_SIZES, _BATCH_ROWS)

    def batch_waits(self) -> tuple[list[float], float]:
        """Return the cumulative counts for each of BUCKETS and +Inf, and the sum of seconds."""
        return self._histogram(_BATCH_WAIT, BUCKETS, _BATCH_WAIT_SECONDS)

    def _histogram(self, first: int, bounds: Sequence[float], total_at: int) -> tuple[list[float], float]:
        starts = [slot * _WIDTH for slot in range(self.slots)]
        cumulative, total = [], 0.0
        for bucket in range(len(bounds) + 1):
            total += sum(self.cells[start + first + bucket] for start in starts)
            cumulative.append(total)
        return cumulative, sum(self.cells[start + total_at] for start in starts)


class WorkerMetrics:
    """One worker's row. Written only from the thread of its event loop."""

    __slots__ = ("_base", "_batching", "_cells", "_queued", "shared")

    def __init__(self, shared: SharedMetrics, slot: int) -> None:
        self.shared = shared
        self._cells = shared.cells
        self._base = slot * _WIDTH
        self._queued = self._batching = 0

    def count_connection(self) -> None:
        """Count a new connection."""
        self._cells[self._base + _ACCEPTED] += 1.0

    def start_request(self) -> None:
        """Count a request that was admitted."""
        self._cells[self._base] += 1.0

    def finish_request(self) -> None:
        """Count the end of a request that was admitted."""
        self._cells[self._base] -= 1.0

    def record_request(self, method: str, status: int, seconds: float) -> None:
        """Record a response with this status (100 to 599) and its duration in seconds."""
        cells, base = self._cells, self._base
        cells[base + _METHOD_OFFSET.get(method, _OTHER_OFFSET) + min(max(status, 100), 599)] += 1.0
        cells[base + _HISTOGRAM + bisect_left(BUCKETS, seconds)] += 1.0
        cells[base + _SECONDS] += seconds

    def set_exemplar(self, seconds: float, trace: bytes, span: bytes) -> None:
        """Make a traced request that has just ended the exemplar of its bucket. seconds: its duration. trace, span: its IDs."""
        row = self.shared.exemplar_row(self._base // _WIDTH)
        exemplar = exemplars.Exemplar(time.time(), seconds, trace, span)
        exemplars.write(row, bisect_left(BUCKETS, seconds), exemplar)

    def set_queued(self, requests: int) -> None:
        """Set the number of requests that wait for a thread."""
        self._queued = requests
        self._cells[self._base + _WAITING] = float(requests + self._batching)

    def set_batching(self, requests: int) -> None:
        """Set the number of requests that wait for their batch."""
        self._batching = requests
        self._cells[self._base + _WAITING] = float(requests + self._queued)

    def record_batch(self, waits: Sequence[float]) -> None:
        """Record the start of a batch. waits: seconds that each of its requests has waited for it."""
        cells, base = self._cells, self._base
        cells[base + _BATCHED + bisect_left(BATCH_SIZES, len(waits))] += 1.0
        cells[base + _BATCH_ROWS] += len(waits)
        for seconds in waits:
            cells[base + _BATCH_WAIT + bisect_left(BUCKETS, seconds)] += 1.0
            cells[base + _BATCH_WAIT_SECONDS] += seconds
