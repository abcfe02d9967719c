"""What the page has seen of an API: points in time with the requests since the previous point, and the load."""

import itertools
import threading
from collections import deque
from dataclasses import dataclass, replace
from typing import Any

from cortex_cli.replica_metrics import Totals, Traffic, summarize

RECENT_SECONDS = 660.0
"""Points of this time are kept as they are; older ones are merged to one a minute."""
_MERGED_SECONDS = 60.0
KEPT_SECONDS = 3 * 3600.0
IDLE = Totals()
"""Shared by all points without requests."""


@dataclass(frozen=True, slots=True)
class Point:
    """The state of an API at a time.

    time: Unix time. seconds: the time that `counted` covers; 0 if nothing is known about requests. counted: requests, predictions
    and jobs in this time, and the load at its end; None if no replica could be read. ready, desired: replicas; desired is None if
    unknown. reason: the sentence of the autoscaler. queued: jobs in the queue, None for a RealtimeAPI.
    """

    time: float
    seconds: float
    counted: Totals | None
    ready: int
    desired: int | None
    reason: str = ""
    queued: int | None = None


@dataclass(frozen=True)
class Decision:
    """A change of the desired number of replicas."""

    time: float
    before: int
    after: int
    reason: str


@dataclass(frozen=True)
class Recent:
    """The requests of the last minute. seconds: the time that was seen of it; 0 if nothing was measured yet."""

    seconds: float
    traffic: Traffic

    def rate(self, *classes: str) -> float | None:
        """Return the responses per second of these status classes, or of all; None if nothing was measured yet."""
        if not self.seconds:
            return None
        counted = self.traffic.classes
        return sum(counted.get(name, 0) for name in classes or counted) / self.seconds

    @property
    def error_share(self) -> float | None:
        """The share of 5XX responses, or None without responses."""
        total = sum(self.traffic.classes.values())
        return self.traffic.classes.get("5XX", 0) / total if total else None


class History:
    """The points of one API, oldest first."""

    def __init__(self) -> None:
        self._points: deque[Point] = deque()
        self._merged: deque[Point] = deque()
        self._lock = threading.Lock()

    def add(self, point: Point) -> None:
        """Add a point. Merge and drop old ones."""
        with self._lock:
            self._points.append(point)
            while self._points[0].time < point.time - RECENT_SECONDS:
                old = self._points.popleft()
                last = self._merged[-1] if self._merged else None
                if last is not None and int(last.time // _MERGED_SECONDS) == int(old.time // _MERGED_SECONDS):
                    self._merged[-1] = merge(last, old)
                else:
                    self._merged.append(old)
            while self._merged and self._merged[0].time < point.time - KEPT_SECONDS:
                self._merged.popleft()

    def points(self, since: float = 0.0) -> list[Point]:
        """Return the points after a Unix time."""
        with self._lock:
            newest = itertools.takewhile(
                lambda point: point.time > since,
                itertools.chain(reversed(self._points), reversed(self._merged)),
            )
            return list(newest)[::-1]

    @property
    def last(self) -> Point | None:
        """The newest point."""
        return self._points[-1] if self._points else None

    def recent(self, now: float, seconds: float = 60.0) -> Recent:
        """Return the requests of the last minute."""
        return summary(self.points(now - seconds))

    def decisions(self, since: float) -> list[Decision]:
        """Return the changes of the desired number of replicas after a Unix time, oldest first."""
        found = []
        known = [point for point in self.points() if point.desired is not None]
        for before, after in itertools.pairwise(known):
            if before.desired != after.desired and after.time > since:
                assert before.desired is not None
                assert after.desired is not None
                found.append(Decision(after.time, before.desired, after.desired, after.reason))
        return found


def summary(points: list[Point]) -> Recent:
    """Return the requests of several points."""
    totals, seconds = Totals(), 0.0
    for point in points:
        if point.counted is not None and point.seconds:
            totals.add(point.counted)
            seconds += point.seconds
    # The load is a state, not a count.
    last = points[-1].counted if points else None
    totals.in_flight = last.in_flight if last else 0
    totals.queue_length = last.queue_length if last else 0
    return Recent(seconds, summarize(totals))


def merge(first: Point, second: Point) -> Point:
    """Return one point for two, at the time of the second: the sum of the requests, and the largest load."""
    if first.counted is None or second.counted is None:
        counted = first.counted or second.counted
    else:
        counted = Totals()
        counted.add(first.counted)
        counted.add(second.counted)
        counted.in_flight = max(first.counted.in_flight, second.counted.in_flight)
        counted.queue_length = max(first.counted.queue_length, second.counted.queue_length)
    queued: Any = max((q for q in (first.queued, second.queued) if q is not None), default=None)
    return replace(second, seconds=first.seconds + second.seconds, counted=counted, queued=queued)
