"""What workers report of the comparisons, and how the supervisor merges it. Imports nothing that compares."""

from collections.abc import Iterable, Mapping
from typing import Any

MOST_CLASSES = 50
"""Distinct classes of a matrix; further ones are counted as OTHER."""
OTHER = "(other)"


def newest(workers: Iterable[list[dict[str, Any]]], keep: int) -> list[dict[str, Any]]:
    """Return the last pairs of all workers of a replica, newest first."""
    pairs = [pair for worker in workers for pair in worker]
    return sorted(pairs, key=lambda pair: pair["time"], reverse=True)[:keep]


class ConfusionMatrix:
    """How often the candidate answered which class when the stable version answered which.

    At most MOST_CLASSES classes are told apart, so the matrix has at most 51 * 51 counts.
    """

    def __init__(self) -> None:
        self.counts: dict[str, dict[str, int]] = {}
        self._classes: set[str] = set()

    def add(self, stable: str, candidate: str, count: int = 1) -> None:
        """Count a pair of classes."""
        row = self.counts.setdefault(self._known(stable), {})
        name = self._known(candidate)
        row[name] = row.get(name, 0) + count

    def merge(self, counts: Mapping[str, Mapping[str, int]]) -> None:
        """Add the counts of another matrix."""
        for stable, row in counts.items():
            for candidate, count in row.items():
                self.add(stable, candidate, count)

    def _known(self, name: str) -> str:
        if name in self._classes or name == OTHER:
            return name
        if len(self._classes) >= MOST_CLASSES:
            return OTHER
        self._classes.add(name)
        return name
