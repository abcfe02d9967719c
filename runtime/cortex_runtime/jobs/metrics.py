"""The Prometheus metrics of a gateway and of a consumer. Both are one process, so the client's own counters do."""

from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from cortex_api import Document, __version__
from cortex_runtime.queues.base import Depth

_WAITS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800, 7200, 43200)
_REQUESTS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class _Registry:
    def __init__(self) -> None:
        self.registry = CollectorRegistry(auto_describe=False)

    def text(self) -> bytes:
        """The Prometheus text format, version 0.0.4."""
        return generate_latest(self.registry)


class _Depths(Collector):
    def __init__(self, depth: Callable[[], Depth | None]) -> None:
        self._depth = depth

    def collect(self) -> Iterator[Metric]:
        """The queue's depth as it was last seen, nothing before that."""
        depth = self._depth()
        if depth is None:
            return
        yield GaugeMetricFamily("cortex_async_queued", "Jobs that wait for a worker", value=depth.waiting)
        yield GaugeMetricFamily(
            "cortex_async_in_flight",
            "Jobs that a worker has, or that wait for their next attempt",
            value=depth.taken,
        )
        if depth.oldest is not None:
            yield GaugeMetricFamily(
                "cortex_async_oldest_seconds", "Age of the oldest job that has not ended", value=depth.oldest
            )


class GatewayMetrics(_Registry):
    """What a gateway counts. depth: the queue's, as it was last seen."""

    def __init__(self, document: Document, depth: Callable[[], Depth | None]) -> None:
        super().__init__()
        registry = self.registry
        registry.register(_Depths(depth))
        labels = ("version", "api", "namespace", "kind")
        build = Gauge("cortex_build_info", "What runs here", labels, registry=registry)
        build.labels(__version__, document.name, document.namespace, document.kind).set(1)
        self._in_flight = 0
        self._requests = Counter(
            "cortex_requests",
            "Requests answered (499: the client was gone)",
            ("method", "status"),
            registry=registry,
        )
        self._duration = Histogram(
            "cortex_request_duration_seconds",
            "From request to last byte handed over",
            registry=registry,
            buckets=_REQUESTS,
        )
        self._accepted = Counter("cortex_async_accepted", "Jobs accepted by this gateway", registry=registry)
        self._refused = Counter(
            "cortex_async_refused", "Jobs refused because the queue was full", registry=registry
        )
        self._webhooks = Counter(
            "cortex_async_webhooks", "Tries to deliver a webhook", ("outcome",), registry=registry
        )

    def begin(self) -> None:
        """A request has come."""
        self._in_flight += 1

    def answered(self, method: str, status: int, seconds: float) -> None:
        """A request is over."""
        self._in_flight -= 1
        known = method if method in ("GET", "POST", "DELETE") else "OTHER"
        self._requests.labels(known, str(status)).inc()
        self._duration.observe(seconds)

    def accepted(self) -> None:
        """A job was accepted."""
        self._accepted.inc()

    def refused(self) -> None:
        """A job was refused because the queue was full."""
        self._refused.inc()

    def webhook(self, outcome: str) -> None:
        """A webhook was delivered, will be tried again, or was given up."""
        self._webhooks.labels(outcome).inc()

    def in_flight(self) -> int:
        """Requests that are being answered."""
        return self._in_flight


class ConsumerMetrics(_Registry):
    """What a consumer counts, beside what every replica does. running: jobs in hand."""

    def __init__(self, running: Callable[[], int]) -> None:
        super().__init__()
        registry = self.registry
        in_hand = Gauge("cortex_async_running", "Jobs that this replica has in hand", registry=registry)
        in_hand.set_function(running)
        self._attempts = Counter(
            "cortex_async_attempts",
            "Attempts at jobs, by how they ended: completed, failed, retried, released, lost",
            ("outcome",),
            registry=registry,
        )
        self._jobs = Counter("cortex_async_jobs", "Jobs that ended here", ("status",), registry=registry)
        self._dead = Counter(
            "cortex_async_dead_letters",
            "Jobs that failed after all their attempts",
            ("reason",),
            registry=registry,
        )
        self._to_start = Histogram(
            "cortex_async_start_seconds",
            "From acceptance to the start of the first attempt",
            registry=registry,
            buckets=_WAITS,
        )
        self._to_finish = Histogram(
            "cortex_async_finish_seconds",
            "From acceptance to the end of the job",
            registry=registry,
            buckets=_WAITS,
        )
        self._duration = Histogram(
            "cortex_async_attempt_seconds", "How long an attempt took", registry=registry, buckets=_WAITS
        )

    def started(self, attempt: int, since_accepted: float) -> None:
        """An attempt begins."""
        if attempt == 1:
            self._to_start.observe(max(0.0, since_accepted))

    def attempted(self, outcome: str, seconds: float) -> None:
        """An attempt is over."""
        self._attempts.labels(outcome).inc()
        self._duration.observe(seconds)

    def ended(self, status: str, since_accepted: float, dead: str = "") -> None:
        """A job has ended. dead: the reason, when its attempts are used up."""
        self._jobs.labels(status).inc()
        self._to_finish.observe(max(0.0, since_accepted))
        if dead:
            self._dead.labels(dead).inc()
