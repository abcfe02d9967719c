"""Exponential backoff, for everything that is retried or polled."""

import itertools
from collections.abc import Iterator

_MAX_DOUBLINGS = 64


def backoff(first: float, maximum: float, factor: float = 2.0) -> Iterator[float]:
    """Yield pauses in seconds without end: `first`, then each `factor` times the last, up to `maximum`."""
    return (pause_after(attempt, first, maximum, factor) for attempt in itertools.count(1))


def pause_after(attempt: int, first: float, maximum: float, factor: float = 2.0) -> float:
    """Return the pause of `backoff` after an attempt, the first of which is 1, where only the number of attempts is known."""
    return min(first * factor ** min(attempt - 1, _MAX_DOUBLINGS), maximum)
