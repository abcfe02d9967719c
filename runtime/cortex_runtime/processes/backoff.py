"""Exponential backoff."""

from collections.abc import Iterator


def backoff(first: float, maximum: float, factor: float = 2.0) -> Iterator[float]:
    """Yield pauses in seconds without end: `first`, then each `factor` times the last, up to `maximum`."""
    pause = first
    while True:
        yield pause
        pause = min(pause * factor, maximum)
