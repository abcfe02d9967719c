"""Numbers shared by the processes of one replica: a table of 64-bit floats with one row for each worker.

A worker writes its own row and nobody else's, so no lock is needed; the supervisor reads all rows for /metrics and /load. A
row outlives its worker, and the successor counts on from there: counters never go back. A row is about 24 KB.
"""

import mmap
import os
import tempfile
from bisect import bisect_left
from collections.abc import Iterator

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "OTHER")
BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""Upper bounds of the latency histogram in seconds."""
FIRST_STATUS, STATUSES = 100, 500

_IN_FLIGHT, _WAITING, _SECONDS, _HISTOGRAM = 0, 1, 2, 3
_REQUESTS = _HISTOGRAM + len(BUCKETS) + 1
_WIDTH = _REQUESTS + len(METHODS) * STATUSES
_METHOD_OFFSET = {method: _REQUESTS + i * STATUSES - FIRST_STATUS for i, method in enumerate(METHODS)}
_OTHER_OFFSET = _METHOD_OFFSET["OTHER"]


class Board:
    """The whole table, mapped from a file descriptor that the processes share."""

    def __init__(self, descriptor: int, rows: int) -> None:
        self.descriptor = descriptor
        self.rows = rows
        self.cells = memoryview(mmap.mmap(descriptor, rows * _WIDTH * 8)).cast("d")
        self._in_flight = [row * _WIDTH + _IN_FLIGHT for row in range(rows)]

    @classmethod
    def create(cls, rows: int) -> "Board":
        """A new table of zeros in memory."""
        if hasattr(os, "memfd_create"):
            descriptor = os.memfd_create("cortex-board")
        else:
            with tempfile.TemporaryFile() as file:
                descriptor = os.dup(file.fileno())
        os.ftruncate(descriptor, rows * _WIDTH * 8)
        return cls(descriptor, rows)

    def row(self, index: int) -> "Row":
        """The row that one worker writes."""
        return Row(self, index)

    def in_flight(self) -> int:
        """Requests running and waiting in the whole replica."""
        cells = self.cells
        return int(sum([cells[i] for i in self._in_flight]))

    def waiting(self) -> int:
        """Requests that wait for a thread."""
        return int(sum(self.cells[row * _WIDTH + _WAITING] for row in range(self.rows)))

    def vacate(self, index: int) -> None:
        """Forget the running and waiting requests of a worker that is gone."""
        self.cells[index * _WIDTH + _IN_FLIGHT] = 0.0
        self.cells[index * _WIDTH + _WAITING] = 0.0

    def requests(self) -> Iterator[tuple[str, int, float]]:
        """(method, status, count) of what has been answered, all workers together."""
        for method, offset in _METHOD_OFFSET.items():
            for status in range(FIRST_STATUS, FIRST_STATUS + STATUSES):
                count = sum(self.cells[row * _WIDTH + offset + status] for row in range(self.rows))
                if count:
                    yield method, status, count

    def durations(self) -> tuple[list[float], float]:
        """Cumulative counts for each of BUCKETS and +Inf, and the sum of seconds."""
        cumulative, total = [], 0.0
        for bucket in range(len(BUCKETS) + 1):
            total += sum(self.cells[row * _WIDTH + _HISTOGRAM + bucket] for row in range(self.rows))
            cumulative.append(total)
        return cumulative, sum(self.cells[row * _WIDTH + _SECONDS] for row in range(self.rows))


class Row:
    """One worker's numbers. Written from the event loop's thread only."""

    __slots__ = ("_base", "_cells", "board")

    def __init__(self, board: Board, index: int) -> None:
        self.board = board
        self._cells = board.cells
        self._base = index * _WIDTH

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
        self._cells[self._base + _WAITING] = float(requests)
