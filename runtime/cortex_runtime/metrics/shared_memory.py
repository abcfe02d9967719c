"""Numbers shared by the processes of one replica: a table of 64-bit floats with one row for each worker, and behind it a part for
each worker's `Tally`.

A worker writes its own row and nobody else's, so no lock is needed; the supervisor reads all rows for /metrics and /load. A
row outlives its worker, and the successor counts on from there: counters never go back. A row is about 24 KB.
"""

import mmap
import os
import tempfile
from bisect import bisect_left
from collections.abc import Iterator, Sequence

from cortex_runtime.metrics.series import REGION

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "OTHER")
BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""Upper bounds of the latency histogram in seconds."""
BATCH_SIZES = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0)
"""Upper bounds of the histogram of batch sizes."""
FIRST_STATUS, STATUSES = 100, 500

_IN_FLIGHT, _WAITING, _LIVE, _FREE, _MOVABLE, _CONNECTIONS, _ACCEPTED, _SECONDS, _HISTOGRAM = range(9)
_REQUESTS = _HISTOGRAM + len(BUCKETS) + 1
_BATCHED = _REQUESTS + len(METHODS) * STATUSES
_BATCH_WAIT = _BATCHED + len(BATCH_SIZES) + 2
_WIDTH = _BATCH_WAIT + len(BUCKETS) + 2
_METHOD_OFFSET = {method: _REQUESTS + i * STATUSES - FIRST_STATUS for i, method in enumerate(METHODS)}
_OTHER_OFFSET = _METHOD_OFFSET["OTHER"]


class Board:
    """The whole table, mapped from a file descriptor that the processes share.

    Workers that share their load (sharing.py) see each other in a number for each row. live: 1 while it takes connections.
    free: 1 while a request would not wait there. movable: requests that wait and may move. connections: those open.
    accepted: those accepted so far.
    """

    def __init__(self, descriptor: int, rows: int) -> None:
        self.descriptor = descriptor
        self.rows = rows
        # Memory maps begin at a page, so the parts behind the table do as well.
        self._table = -(-rows * _WIDTH * 8 // mmap.PAGESIZE) * mmap.PAGESIZE
        self._memory = memoryview(mmap.mmap(descriptor, self._table + rows * REGION))
        self.cells = self._memory[: rows * _WIDTH * 8].cast("d")
        self._in_flight = self.cells[_IN_FLIGHT::_WIDTH]
        self.live, self.free = self.cells[_LIVE::_WIDTH], self.cells[_FREE::_WIDTH]
        self.movable, self.connections = self.cells[_MOVABLE::_WIDTH], self.cells[_CONNECTIONS::_WIDTH]
        self.accepted = self.cells[_ACCEPTED::_WIDTH]

    @classmethod
    def create(cls, rows: int) -> "Board":
        """A new table of zeros in memory."""
        if hasattr(os, "memfd_create"):
            descriptor = os.memfd_create("cortex-board")
        else:
            with tempfile.TemporaryFile() as file:
                descriptor = os.dup(file.fileno())
        os.ftruncate(descriptor, -(-rows * _WIDTH * 8 // mmap.PAGESIZE) * mmap.PAGESIZE + rows * REGION)
        return cls(descriptor, rows)

    def row(self, index: int) -> "Row":
        """The row that one worker writes."""
        return Row(self, index)

    def region(self, index: int) -> memoryview:
        """The part for one worker's `Tally`."""
        start = self._table + index * REGION
        return self._memory[start : start + REGION]

    def in_flight(self) -> int:
        """Requests running and waiting in the whole replica."""
        return int(sum(self._in_flight))

    def waiting(self) -> int:
        """Requests that wait for a thread."""
        return int(sum(self.cells[row * _WIDTH + _WAITING] for row in range(self.rows)))

    def vacate(self, index: int) -> None:
        """Forget the running and waiting requests of a worker that is gone, and its connections."""
        for cell in (_IN_FLIGHT, _WAITING, _LIVE, _FREE, _MOVABLE, _CONNECTIONS):
            self.cells[index * _WIDTH + cell] = 0.0

    def requests(self) -> Iterator[tuple[str, int, float]]:
        """(method, status, count) of what has been answered, all workers together."""
        for method, offset in _METHOD_OFFSET.items():
            for status in range(FIRST_STATUS, FIRST_STATUS + STATUSES):
                count = sum(self.cells[row * _WIDTH + offset + status] for row in range(self.rows))
                if count:
                    yield method, status, count

    def durations(self) -> tuple[list[float], float]:
        """Cumulative counts for each of BUCKETS and +Inf, and the sum of seconds."""
        return self._histogram(_HISTOGRAM, BUCKETS, _SECONDS)

    def batch_sizes(self) -> tuple[list[float], float]:
        """Cumulative counts for each of BATCH_SIZES and +Inf, and the sum of sizes."""
        return self._histogram(_BATCHED, BATCH_SIZES, _BATCH_WAIT - 1)

    def batch_waits(self) -> tuple[list[float], float]:
        """Cumulative counts for each of BUCKETS and +Inf, and the sum of seconds."""
        return self._histogram(_BATCH_WAIT, BUCKETS, _WIDTH - 1)

    def _histogram(self, first: int, bounds: Sequence[float], total_at: int) -> tuple[list[float], float]:
        starts = [row * _WIDTH for row in range(self.rows)]
        cumulative, total = [], 0.0
        for bucket in range(len(bounds) + 1):
            total += sum(self.cells[start + first + bucket] for start in starts)
            cumulative.append(total)
        return cumulative, sum(self.cells[start + total_at] for start in starts)


class Row:
    """One worker's numbers. Written from the event loop's thread only."""

    __slots__ = ("_base", "_cells", "_gathered", "_queued", "board")

    def __init__(self, board: Board, index: int) -> None:
        self.board = board
        self._cells = board.cells
        self._base = index * _WIDTH
        self._queued = self._gathered = 0

    def begin(self) -> None:
        """A request has been admitted."""
        self._cells[self._base] += 1.0

    def end(self) -> None:
        """An admitted request is over."""
        self._cells[self._base] -= 1.0

    def answered(self, method: str, status: int, seconds: float) -> None:
        """A request got this status (100 to 599) after so many seconds."""
        cells, base = self._cells, self._base
        cells[base + _METHOD_OFFSET.get(method, _OTHER_OFFSET) + min(max(status, 100), 599)] += 1.0
        cells[base + _HISTOGRAM + bisect_left(BUCKETS, seconds)] += 1.0
        cells[base + _SECONDS] += seconds

    def waits(self, requests: int) -> None:
        """So many requests wait for a thread now."""
        self._queued = requests
        self._cells[self._base + _WAITING] = float(requests + self._gathered)

    def gathers(self, requests: int) -> None:
        """So many requests wait for their batch now."""
        self._gathered = requests
        self._cells[self._base + _WAITING] = float(requests + self._queued)

    def batched(self, waits: Sequence[float]) -> None:
        """A batch begins, of so many requests as there are waits: seconds that each has waited for it."""
        cells, base = self._cells, self._base
        cells[base + _BATCHED + bisect_left(BATCH_SIZES, len(waits))] += 1.0
        cells[base + _BATCH_WAIT - 1] += len(waits)
        for seconds in waits:
            cells[base + _BATCH_WAIT + bisect_left(BUCKETS, seconds)] += 1.0
            cells[base + _WIDTH - 1] += seconds
