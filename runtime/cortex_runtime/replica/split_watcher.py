"""The supervisor's part of the split: it notices changes of the file, and reports what the workers count about the candidate."""

import logging
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import orjson

from cortex_runtime.candidate import split
from cortex_runtime.candidate.counters import totals
from cortex_runtime.candidate.reports import ConfusionMatrix, newest
from cortex_runtime.candidate.split import InvalidSplit, Split
from cortex_runtime.metrics.shared_memory import SharedMetrics

log = logging.getLogger("cortex")

_NO_SPLIT = (404, {"error": "no candidate is active"})


class SplitWatcher:
    """Watches the file of the split.

    on_change: called when the file has changed. describe: returns what each worker sends about a topic of `Describe`.
    """

    def __init__(
        self,
        path: Path,
        shared_metrics: SharedMetrics,
        on_change: Callable[[], None],
        describe: Callable[[str], Awaitable[list[bytes]]],
    ) -> None:
        self._path = path
        self._shared_metrics = shared_metrics
        self._on_change, self._describe = on_change, describe
        self._stamp: split.Stamp | None = None
        self.split: Split | None = None
        self._read()

    def check(self) -> None:
        """Notice a change of the file. Called periodically; costs one system call."""
        if split.stamp(self._path) != self._stamp:
            self._read()
            self._on_change()

    def _read(self) -> None:
        self._stamp = split.stamp(self._path)
        try:
            self.split = split.read(self._path)
        except InvalidSplit as error:
            log.error("%s: %s; the previous split stays in use", self._path, error)

    async def report(self) -> tuple[int, Any]:
        """Return status and JSON of GET /candidate: the sums of the workers since the version became active."""
        active = self.split
        if active is None:
            return _NO_SPLIT
        # Before the classes, so that these have all compared copies.
        counted = totals(self._shared_metrics, active.version).as_json()
        matrix = ConfusionMatrix()
        for classes in await self._collect("classes", active):
            matrix.merge(classes)
        used = {"version": active.version, "weight": active.weight, "mirror": active.mirror}
        return 200, {**used, **counted, "classes": matrix.counts}

    async def differences(self) -> tuple[int, Any]:
        """Return status and JSON of GET /candidate/differences: the last differing pairs, newest first."""
        active = self.split
        if active is None:
            return _NO_SPLIT
        return 200, newest(await self._collect("differences", active), active.compare.keep)

    async def _collect(self, topic: str, active: Split) -> list[Any]:
        """Return what the workers have compared of the active version."""
        found = [orjson.loads(each) for each in await self._describe(topic)]
        return [each["content"] for each in found if each.get("version") == active.version]

    def metrics(self) -> Iterator[Any]:
        """Yield the metric families of the candidate; none without an active split."""
        if self.split is not None:
            from cortex_runtime.candidate.exposition import families

            yield from families(totals(self._shared_metrics, self.split.version))
