"""What a replica counts about its candidate, in the shared memory of its workers. The supervisor adds up the workers.

The counts belong to one version of the candidate: a worker starts from zero when the version changes, and the supervisor ignores
a worker that has not noticed yet.
"""

from bisect import bisect_left
from dataclasses import dataclass
from hashlib import blake2b
from itertools import accumulate
from typing import Any

from cortex_runtime.metrics.shared_memory import BUCKETS, SharedMetrics

(
    _VERSION,
    ANSWERED,
    FALLBACK,
    DIVERTED,
    ABORTED,
    MIRRORED,
    DROPPED,
    COMPARED,
    DIFFERING,
    FAILED,
    LATE,
    _STABLE_SECONDS,
    _CANDIDATE_SECONDS,
    _STABLE_HISTOGRAM,
) = range(14)
_CANDIDATE_HISTOGRAM = _STABLE_HISTOGRAM + len(BUCKETS) + 1
_CELLS = _CANDIDATE_HISTOGRAM + len(BUCKETS) + 1
_BOUNDS = (*BUCKETS, float("inf"))
_ENOUGH = 100
"""Responses of the stable version from which on its latency since the split is used, instead of that since the start."""


def _number(version: str) -> float:
    """Return a number for a version, which is never 0."""
    return float(int.from_bytes(blake2b(version.encode(), digest_size=6).digest()) + 1)


class WorkerCounters:
    """The counts of one worker. Written only from the thread of its event loop."""

    def __init__(self, shared: SharedMetrics, slot: int) -> None:
        self._shared = shared
        self._cells = shared.candidate_cells(slot)
        self._breaker = shared.breaker
        # There are two slots for each worker.
        self.workers = max(1, shared.slots // 2)
        self._slot = slot

    def start_version(self, version: str) -> None:
        """Start from zero, unless the worker, or the one before it in this slot, has counted this version already."""
        number = _number(version)
        if self._cells[_VERSION] != number:
            self._cells[_VERSION] = 0.0
            for cell in range(1, _CELLS):
                self._cells[cell] = 0.0
            self._cells[_VERSION] = number

    def end_version(self) -> None:
        """Forget the counts: the same version starts from zero if it becomes active again."""
        self._cells[_VERSION] = 0.0

    def add(self, cell: int) -> None:
        """Count one event."""
        self._cells[cell] += 1.0

    def add_error(self, cell: int, is_late: bool) -> None:
        """Count a request that the candidate has not answered. is_late: because no response arrived in time."""
        self.add(cell)
        if is_late:
            self.add(LATE)

    def move(self, source: int, target: int) -> None:
        """Count an event that was counted as another one."""
        self._cells[source] -= 1.0
        self._cells[target] += 1.0

    def record_stable(self, seconds: float) -> None:
        """Record the time to the first byte of a response of the stable version."""
        cells = self._cells
        cells[_STABLE_HISTOGRAM + bisect_left(BUCKETS, seconds)] += 1.0
        cells[_STABLE_SECONDS] += seconds

    def record_candidate(self, seconds: float) -> None:
        """Record the time to the first byte of a response of the candidate."""
        cells = self._cells
        cells[_CANDIDATE_HISTOGRAM + bisect_left(BUCKETS, seconds)] += 1.0
        cells[_CANDIDATE_SECONDS] += seconds

    def set_breaker(self, is_open: bool) -> None:
        """Report whether the breaker is open."""
        self._breaker[self._slot] = float(is_open)

    def stable_latency(self) -> tuple[float, float] | None:
        """Return the 99th percentile and the maximum of the stable version's latency; None if it has answered nothing yet.

        In seconds, each rounded up to a bucket.
        """
        counts = [0.0] * (len(BUCKETS) + 1)
        for slot in range(self._shared.slots):
            cells = self._shared.candidate_cells(slot)
            if cells[_VERSION] == self._cells[_VERSION]:
                for bucket in range(len(counts)):
                    counts[bucket] += cells[_STABLE_HISTOGRAM + bucket]
        cumulative = list(accumulate(counts))
        if cumulative[-1] < _ENOUGH:
            cumulative = self._shared.durations()[0]
        if not cumulative[-1]:
            return None
        p99, most = (bisect_left(cumulative, share * cumulative[-1]) for share in (0.99, 1.0))
        return _BOUNDS[p99], _BOUNDS[most]


@dataclass(frozen=True)
class Totals:
    """The sums over all workers.

    late: errors because no response arrived in time. stable, candidate: counts for each of BUCKETS and for +Inf, then the sum of
    seconds.
    """

    answered: int
    fallback: int
    diverted: int
    aborted: int
    mirrored: int
    dropped: int
    compared: int
    differing: int
    failed: int
    late: int
    is_open: bool
    stable: list[float]
    candidate: list[float]

    def as_json(self) -> dict[str, Any]:
        """Return the counts of `GET /candidate`."""
        errors = self.fallback + self.diverted + self.aborted
        return {
            "requests": self.answered + errors,
            "errors": errors,
            "fallbacks": self.fallback,
            "mirrored": self.mirrored,
            "dropped": self.dropped,
            "failed": self.failed,
            "late": self.late,
            "compared": self.compared,
            "differing": self.differing,
            "breaker": "open" if self.is_open else "closed",
            "latency": {
                "bounds": list(BUCKETS),
                "stable": [int(count) for count in self.stable[:-1]],
                "candidate": [int(count) for count in self.candidate[:-1]],
            },
        }


def totals(shared: SharedMetrics, version: str) -> Totals:
    """Return the sums over all workers of a replica for a version."""
    number = _number(version)
    sums = [0.0] * _CELLS
    is_open = False
    for slot in range(shared.slots):
        cells = shared.candidate_cells(slot)
        if cells[_VERSION] == number:
            is_open = is_open or bool(shared.breaker[slot])
            for cell in range(_CELLS):
                sums[cell] += cells[cell]
    return Totals(
        answered=int(sums[ANSWERED]),
        fallback=int(sums[FALLBACK]),
        diverted=int(sums[DIVERTED]),
        aborted=int(sums[ABORTED]),
        mirrored=int(sums[MIRRORED]),
        dropped=int(sums[DROPPED]),
        compared=int(sums[COMPARED]),
        differing=int(sums[DIFFERING]),
        failed=int(sums[FAILED]),
        late=int(sums[LATE]),
        is_open=is_open,
        stable=[*sums[_STABLE_HISTOGRAM:_CANDIDATE_HISTOGRAM], sums[_STABLE_SECONDS]],
        candidate=[*sums[_CANDIDATE_HISTOGRAM:_CELLS], sums[_CANDIDATE_SECONDS]],
    )
