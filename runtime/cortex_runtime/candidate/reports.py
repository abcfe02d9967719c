"""What workers report of the comparisons, and how the supervisor merges it. Imports nothing that compares."""

from collections.abc import Iterable, Mapping
from typing import Any

MOST_CLASSES = 50
"""Distinct classes of a matrix; further ones are counted as OTHER."""
MOST_CELLS = 500
"""Distinct pairs of classes; further ones are counted as OTHER and OTHER. So a report of a replica has less than 200 kB."""
OTHER = "(other)"


def newest(workers: Iterable[list[dict[str, Any]]], keep: int) -> list[dict[str, Any]]:
    """Return the last pairs of all workers of a replica, newest first."""
    pairs = [pair for worker in workers for pair in worker]
    return sorted(pairs, key=lambda pair: pair["time"], reverse=True)[:keep]


class ConfusionMatrix:
    """How often the candidate answered which class when the stable version answered which.

    At most MOST_CLASSES classes and MOST_CELLS pairs are told apart.
    """

    def __init__(self) -> None:
        self.counts: dict[str, dict[str, int]] = {}
        self._classes: set[str] = set()
        self._cells = 0

    def add(self, stable: str, candidate: str, count: int = 1) -> None:
        """Count a pair of classes."""
        stable, candidate = self._known(stable), self._known(candidate)
        if candidate not in self.counts.get(stable, ()):
            if self._cells >= MOST_CELLS:
                stable = candidate = OTHER
            self._cells += 1
        row = self.counts.setdefault(stable, {})
        row[candidate] = row.get(candidate, 0) + count

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
