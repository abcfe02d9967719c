"""What replicas count about a candidate, summed over the replicas and over a window of time. Pure.

Requests, errors and comparisons are those that the stable replicas count. Latencies are the durations that the replicas of each
version measure: what a stable replica measures of a forwarded request includes the network and two more event loops.

A report comes from a pod that runs user code, so it is not trusted: one of an unexpected form is dropped.
"""

from collections import deque
from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass, fields
from itertools import zip_longest
from typing import Any

from cortex_api.contract import CANDIDATE

WINDOW = 60.0
"""Seconds over which rates are computed; longer while there are fewer requests than a decision needs."""
STALL = 3.5
"""Seconds without responses that do not count as errors, once in a window: a node that stalls is not a fault of the candidate."""
_MAX_COUNT = 2**53
_MAX_BUCKETS = 256


@dataclass(frozen=True)
class Counts:
    """Counts of one replica or of several.

    requests: those assigned to the candidate, and copies. errors: those of them that it did not answer. late: those of the errors
    where no response arrived in time. compared, differing: pairs of responses. bounds: upper bounds of the buckets of durations,
    in seconds. stable, candidate: requests in each bucket that the replicas of the version answered, and above the last bound.
    """

    requests: int = 0
    errors: int = 0
    compared: int = 0
    differing: int = 0
    bounds: tuple[float, ...] = ()
    stable: tuple[int, ...] = ()
    candidate: tuple[int, ...] = ()
    late: int = 0

    def __add__(self, other: "Counts") -> "Counts":
        return self._combined(other, 1)

    def __sub__(self, other: "Counts") -> "Counts":
        return self._combined(other, -1)

    def _combined(self, other: "Counts", sign: int) -> "Counts":
        def sums(mine: tuple[int, ...], others: tuple[int, ...]) -> tuple[int, ...]:
            return tuple(a + sign * b for a, b in zip_longest(mine, others, fillvalue=0))

        return Counts(
            self.requests + sign * other.requests,
            self.errors + sign * other.errors,
            self.compared + sign * other.compared,
            self.differing + sign * other.differing,
            self.bounds or other.bounds,
            sums(self.stable, other.stable),
            sums(self.candidate, other.candidate),
            self.late + sign * other.late,
        )

    def is_before(self, later: "Counts") -> bool:
        """Return whether `later` can be a later report of the same replica: no count has decreased."""
        difference = later - self
        numbers = [getattr(difference, f.name) for f in fields(Counts) if f.name not in _LISTS]
        return min(*numbers, *difference.stable, *difference.candidate, 0) >= 0


_LISTS = ("bounds", "stable", "candidate")


def parse(answer: Any, version: str) -> Counts | None:
    """Return the counts in a response of /candidate; None if it has another form, or is about another version."""
    if not isinstance(answer, dict) or answer.get("version") != version:
        return None
    names = ("requests", "errors", "compared", "differing", "failed")
    # Replicas of an earlier version do not count late requests.
    numbers: list[Any] = [*(answer.get(name) for name in names), answer.get("late", 0)]
    if not all(map(_is_count, numbers)):
        return None
    requests, errors, compared, differing, failed, late = numbers
    return Counts(
        requests + compared + failed, errors + failed, compared, differing, late=min(late, errors + failed)
    )


def parse_durations(answer: Any, component: str) -> Counts | None:
    """Return the histogram in a response of /durations of a replica; None if it has another form. component: of its pod."""
    if not isinstance(answer, dict):
        return None
    bounds, counts = answer.get("bounds"), answer.get("counts")
    if not isinstance(bounds, list) or not isinstance(counts, list) or len(counts) > _MAX_BUCKETS:
        return None
    if not all(isinstance(bound, int | float) and not isinstance(bound, bool) for bound in bounds):
        return None
    if len(counts) != len(bounds) + 1 or not all(map(_is_count, counts)):
        return None
    if component == CANDIDATE:
        return Counts(bounds=tuple(bounds), candidate=tuple(counts))
    return Counts(bounds=tuple(bounds), stable=tuple(counts))


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MAX_COUNT


@dataclass(frozen=True)
class Recent:
    """Counts over a recent time, one for each of the measures, and `total` since the version became active.

    stalled: requests of `requests` that were late during one stall of up to STALL seconds.
    """

    requests: Counts = Counts()
    compared: Counts = Counts()
    latency: Counts = Counts()
    total: Counts = Counts()
    stalled: int = 0


class _Window:
    """The counts of the last WINDOW seconds, or of a longer time that has enough of what `measure` counts."""

    def __init__(self, measure: Callable[[Counts], int], enough: int) -> None:
        self._measure = measure
        self._enough = enough
        self._sums: deque[tuple[float, Counts]] = deque()

    def add(self, now: float, total: Counts) -> Counts:
        """Add the sums at a time. Returns the counts of the window that ends then."""
        if not self._sums:
            self._sums.append((now, Counts()))
        if self._count(self._sums[-1][1], total) >= max(1, self._enough // 50):
            self._sums.append((now, total))
        while len(self._sums) > 1 and self._sums[1][0] <= now - WINDOW:
            if self._count(self._sums[1][1], total) < self._enough:
                break
            self._sums.popleft()
        return total - self._sums[0][1]

    def stalled(self, now: float) -> int:
        """Return the late requests of the STALL seconds of the window that have most of them.

        0 if this time is over and nothing arrived after it: then nothing shows that the candidate answers again.
        """
        sums = list(self._sums)
        first, most, end = 0, 0, len(sums) - 1
        for last in range(1, len(sums)):
            while sums[last][0] - sums[first][0] > STALL:
                first += 1
            late = sums[last][1].late - sums[first][1].late
            if late > most:
                most, end = late, last
        is_last = end == len(sums) - 1
        return 0 if is_last and now - sums[end][0] > STALL else most

    def _count(self, before: Counts, after: Counts) -> int:
        return self._measure(after) - self._measure(before)


class History:
    """The counts of one version of a candidate over time.

    A replica that ends, or that starts again from zero, keeps its part in the sums. enough: the number of requests, or of
    comparisons, that a decision needs.
    """

    def __init__(self, version: str, enough: int) -> None:
        self.version = version
        self.recent = Recent()
        self._latest: dict[tuple[str, bool], Counts] = {}
        self._durations_before: dict[str, Counts] = {}
        self._ended = Counts()
        self._requests = _Window(lambda counts: counts.requests, enough)
        self._compared = _Window(lambda counts: counts.compared, enough)
        self._latency = _Window(lambda counts: min(sum(counts.stable), sum(counts.candidate)), enough)

    def add(
        self,
        now: float,
        reports: Mapping[str, Counts],
        existing: Container[str],
        durations: Mapping[str, Counts] | None = None,
    ) -> None:
        """Add the reports of the replicas that responded, by the UID of the pod.

        now: monotonic seconds. existing: the UIDs of all replicas, of both versions. durations: their histograms, since the
        start of each replica.
        """
        for part in [part for part in self._latest if part[0] not in existing]:
            self._ended += self._latest.pop(part)
            self._durations_before.pop(part[0], None)
        for uid, counts in reports.items():
            self._put((uid, False), counts)
        for uid, counts in (durations or {}).items():
            before = self._durations_before.setdefault(uid, counts)
            if not before.is_before(counts):
                # The replica has started again.
                before = self._durations_before[uid] = Counts()
            self._put((uid, True), counts - before)
        total = sum(self._latest.values(), self._ended)
        self.recent = Recent(
            self._requests.add(now, total),
            self._compared.add(now, total),
            self._latency.add(now, total),
            total,
            self._requests.stalled(now),
        )

    def _put(self, part: tuple[str, bool], counts: Counts) -> None:
        before = self._latest.get(part)
        if before is not None and not before.is_before(counts):
            self._ended += before
        self._latest[part] = counts


def percentile(bounds: tuple[float, ...], counts: tuple[int, ...], share: float) -> float | None:
    """Return a percentile in seconds, interpolated within its bucket; None without counts. share: 0.95 for the 95th.

    The result is the last bound if the percentile is above it.
    """
    total = sum(counts)
    if not total or not bounds:
        return None
    below, lower = 0, 0.0
    for bound, count in zip(bounds, counts, strict=False):
        if count and below + count >= share * total:
            return lower + (bound - lower) * (share * total - below) / count
        below, lower = below + count, bound
    return bounds[-1]
