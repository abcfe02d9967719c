"""The Prometheus metrics of a gateway and of a consumer. Each is a single process and uses the counters of prometheus_client."""

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
        """Return the metrics in the Prometheus text format, version 0.0.4."""
        return generate_latest(self.registry)

    def new_dropped_spans(self) -> Counter:
        """Create the counter of dropped spans, which exists only with traces."""
        return Counter(
            "cortex_async_spans_dropped", "Spans of this process that were not sent", registry=self.registry
        )


class _Depths(Collector):
    def __init__(self, depth: Callable[[], Depth | None]) -> None:
        self._depth = depth

    def collect(self) -> Iterator[Metric]:
        """Yield the depth of the queue when last measured; nothing before the first measurement."""
        depth = self._depth()
        if depth is None:
            return
        yield GaugeMetricFamily("cortex_async_queued", "Jobs queued for a worker", value=depth.waiting)
        yield GaugeMetricFamily(
            "cortex_async_in_flight",
            "Jobs taken by a worker or waiting for their next attempt",
            value=depth.taken,
        )
        if depth.oldest is not None:
            yield GaugeMetricFamily(
                "cortex_async_oldest_seconds", "Age of the oldest job that has not ended", value=depth.oldest
            )


class GatewayMetrics(_Registry):
    """The metrics of a gateway. depth: returns the depth of the queue when last measured."""

    def __init__(self, document: Document, depth: Callable[[], Depth | None]) -> None:
        super().__init__()
        registry = self.registry
        registry.register(_Depths(depth))
        labels = ("version", "api", "namespace", "kind")
        build = Gauge(
            "cortex_build_info", "Version, API, namespace and kind of this process", labels, registry=registry
        )
        build.labels(__version__, document.name, document.namespace, document.kind).set(1)
        self._in_flight = 0
        self._requests = Counter(
            "cortex_requests",
            "Responses sent (499: the client closed the connection)",
            ("method", "status"),
            registry=registry,
        )
        self._requests_by: dict[tuple[str, int], Counter] = {}
        self._duration = Histogram(
            "cortex_request_duration_seconds",
            "Seconds from receiving a request to sending its last byte",
            registry=registry,
            buckets=_REQUESTS,
        )
        self._accepted = Counter("cortex_async_accepted", "Jobs accepted by this gateway", registry=registry)
        self._refused = Counter(
            "cortex_async_refused", "Jobs refused because the queue was full", registry=registry
        )
        self._webhooks = Counter(
            "cortex_async_webhooks",
            "Attempts to deliver a webhook, by outcome: delivered, retried, given_up",
            ("outcome",),
            registry=registry,
        )

    def begin(self) -> None:
        """Count the start of a request."""
        self._in_flight += 1

    def answered(self, method: str, status: int, seconds: float) -> None:
        """Record a response and its duration in seconds."""
        self._in_flight -= 1
        requests = self._requests_by.get((method, status))
        if requests is None:
            known = method if method in ("GET", "POST", "DELETE") else "OTHER"
            requests = self._requests.labels(known, str(status))
            if known == method:
                self._requests_by[method, status] = requests
        requests.inc()
        self._duration.observe(seconds)

    def accepted(self) -> None:
        """Count an accepted job."""
        self._accepted.inc()

    def refused(self) -> None:
        """Count a job that was refused because the queue was full."""
        self._refused.inc()

    def webhook(self, outcome: str) -> None:
        """Count an attempt to deliver a webhook."""
        self._webhooks.labels(outcome).inc()

    def in_flight(self) -> int:
        """Return the number of requests in flight."""
        return self._in_flight


class ConsumerMetrics(_Registry):
    """The metrics of a consumer, in addition to those of every replica. running: returns the number of running jobs."""

    def __init__(self, running: Callable[[], int]) -> None:
        super().__init__()
        registry = self.registry
        in_hand = Gauge("cortex_async_running", "Jobs that this replica runs", registry=registry)
        in_hand.set_function(running)
        self._attempts = Counter(
            "cortex_async_attempts",
            "Attempts at jobs, by outcome: completed, failed, retried, released, lost",
            ("outcome",),
            registry=registry,
        )
        self._attempts_by: dict[str, Counter] = {}
        self._jobs_by: dict[str, Counter] = {}
        self._jobs = Counter(
            "cortex_async_jobs", "Jobs that ended in this replica, by status", ("status",), registry=registry
        )
        self._dead = Counter(
            "cortex_async_dead_letters",
            "Jobs that failed after their last attempt, by reason",
            ("reason",),
            registry=registry,
        )
        self._to_start = Histogram(
            "cortex_async_start_seconds",
            "Seconds from acceptance of a job to the start of its first attempt",
            registry=registry,
            buckets=_WAITS,
        )
        self._to_finish = Histogram(
            "cortex_async_finish_seconds",
            "Seconds from acceptance of a job to its end",
            registry=registry,
            buckets=_WAITS,
        )
        self._duration = Histogram(
            "cortex_async_attempt_seconds",
            "Duration of an attempt in seconds",
            registry=registry,
            buckets=_WAITS,
        )

    def started(self, attempt: int, since_accepted: float) -> None:
        """Record the start of an attempt."""
        if attempt == 1:
            self._to_start.observe(max(0.0, since_accepted))

    def attempted(self, outcome: str, seconds: float) -> None:
        """Record the end of an attempt and its duration in seconds."""
        if (attempts := self._attempts_by.get(outcome)) is None:
            attempts = self._attempts_by[outcome] = self._attempts.labels(outcome)
        attempts.inc()
        self._duration.observe(seconds)

    def ended(self, status: str, since_accepted: float, dead: str = "") -> None:
        """Record the end of a job. dead: the reason of a dead letter."""
        if (jobs := self._jobs_by.get(status)) is None:
            jobs = self._jobs_by[status] = self._jobs.labels(status)
        jobs.inc()
        self._to_finish.observe(max(0.0, since_accepted))
        if dead:
            self._dead.labels(dead).inc()
