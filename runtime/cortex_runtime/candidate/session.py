"""What a worker keeps for one version of the candidate: connections, breaker, counters, comparisons."""

from typing import Any

from cortex_runtime.candidate.breaker import Breaker
from cortex_runtime.candidate.client import Client, Propagate
from cortex_runtime.candidate.compare import Comparator
from cortex_runtime.candidate.counters import FAILED, WorkerCounters
from cortex_runtime.candidate.deadlines import Deadlines
from cortex_runtime.candidate.differences import DifferingPairs
from cortex_runtime.candidate.forwarding import Forwarder
from cortex_runtime.candidate.mirror import Mirror
from cortex_runtime.candidate.reports import ConfusionMatrix
from cortex_runtime.candidate.selection import Selector
from cortex_runtime.candidate.split import Split
from cortex_runtime.processes import cpus


class Session:
    """One version of the candidate. `update` changes weight, mirror, key and comparison while requests run.

    timeout: seconds of a request. tracker: spec.tracker, or None. api: the name of the API.
    """

    def __init__(
        self,
        split: Split,
        worker_counters: WorkerCounters,
        timeout: float,
        tracker: Any,
        api: str,
        propagate: Propagate | None = None,
    ) -> None:
        self.counters = worker_counters
        worker_counters.start_version(split.version)
        worker_counters.set_breaker(False)
        self._tracker, self._api = tracker, api
        self._client = Client(split.host, split.port, propagate)
        self.breaker = Breaker(worker_counters.set_breaker, self._on_hang)
        self.forwarder = Forwarder(
            self._client, self.breaker, Deadlines(worker_counters.stable_latency, timeout), timeout
        )
        self.pairs = DifferingPairs(split.compare.keep)
        self.classes = ConfusionMatrix()
        self.mirror = Mirror(
            self.forwarder,
            worker_counters,
            self._comparator(split),
            self.pairs,
            self.classes,
            cpus=cpus.available() / worker_counters.workers,
            is_probing=lambda: self.breaker.is_open,
        )
        self.split = split
        self.selector = Selector(split, api)

    def update(self, split: Split) -> None:
        """Use another split of the same version."""
        self.selector = Selector(split, self._api)
        if split.compare != self.split.compare:
            self.mirror.comparator = self._comparator(split)
        self.split = split

    def select_mirrored(self) -> bool:
        """Return whether a request of the stable version is copied: as the split says, or as a probe of an open breaker."""
        selected = self.selector.select_mirrored()
        if not self.breaker.is_open:
            return selected
        if self.breaker.take_probe():
            return True
        if selected:
            # So that a candidate that gets only copies is rolled back.
            self.counters.add_error(FAILED, self.breaker.is_hang)
        return False

    def describe(self, topic: str) -> dict[str, Any]:
        """Return what this worker has compared. topic: "classes" or "differences"."""
        content: Any = self.classes.counts if topic == "classes" else self.pairs.as_json()
        return {"version": self.split.version, "content": content}

    def close(self) -> None:
        """Cancel mirrored requests. Forwarded ones end as usual, then their connections are closed."""
        self.mirror.close()
        self._client.close()

    def _comparator(self, split: Split) -> Comparator:
        compare, tracker = split.compare, self._tracker
        return Comparator(
            compare.tolerance,
            compare.ignore,
            has_classes=tracker is not None and tracker.model_type == "classification",
            tracker_key=None if tracker is None else tracker.key,
        )

    def _on_hang(self) -> None:
        self.forwarder.expire_pending()
