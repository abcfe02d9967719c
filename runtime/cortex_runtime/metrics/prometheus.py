"""The Prometheus text of a replica, made from the shared board whenever somebody asks; requests only touch the board."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import accumulate, groupby

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    SummaryMetricFamily,
)
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from cortex_api import Document, __version__
from cortex_runtime.metrics import series, tracker
from cortex_runtime.metrics.shared_memory import BATCH_SIZES, BUCKETS, Board

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class ReplicaCollector(Collector):
    """One scrape of the board. workers: gives (ready, restarts). model_failures: gives failed loads by model."""

    def __init__(
        self,
        document: Document,
        board: Board,
        workers: Callable[[], tuple[int, int]],
        model_failures: Callable[[], Mapping[str, int]] = dict,
    ) -> None:
        self._document = document
        self._board = board
        self._workers = workers
        self._model_failures = model_failures

    def collect(self) -> Iterator[Metric]:
        """All families of the replica."""
        document, board = self._document, self._board
        requests = CounterMetricFamily(
            "cortex_requests", "Requests answered (499: the client was gone)", labels=("method", "status")
        )
        for method, status, count in board.requests():
            requests.add_metric((method, str(status)), count)
        yield requests
        yield _histogram(
            "cortex_request_duration_seconds",
            "From request to last byte handed over",
            BUCKETS,
            *board.durations(),
        )
        if getattr(document.spec.handler, "server_side_batching", None) is not None:
            yield _histogram("cortex_batch_size", "Requests in a batch", BATCH_SIZES, *board.batch_sizes())
            yield _histogram(
                "cortex_batch_wait_seconds", "From request to its batch", BUCKETS, *board.batch_waits()
            )
        yield GaugeMetricFamily(
            "cortex_requests_in_flight", "Requests running and waiting", value=board.in_flight()
        )
        yield GaugeMetricFamily(
            "cortex_queue_length", "Requests waiting for a thread or a batch", value=board.waiting()
        )
        yield GaugeMetricFamily(
            "cortex_max_replica_concurrency",
            "Requests running and waiting above which 503 is answered",
            value=document.spec.handler.max_replica_concurrency,
        )
        ready, restarts = self._workers()
        yield GaugeMetricFamily("cortex_workers_ready", "Worker processes that answer", value=ready)
        yield CounterMetricFamily("cortex_worker_restarts", "Worker processes started again", value=restarts)
        if document.spec.handler.models is not None:
            failures = CounterMetricFamily(
                "cortex_model_load_failures",
                "Models that could not be fetched or loaded; what was served before stays",
                labels=("model",),
            )
            for model, count in sorted(self._model_failures().items()):
                failures.add_metric((model,), count)
            yield failures
        build = GaugeMetricFamily(
            "cortex_build_info", "What runs here", labels=("version", "api", "namespace", "kind")
        )
        build.add_metric((__version__, document.name, document.namespace, document.kind), 1)
        yield build
        yield from named(series.merge(board.region(row) for row in range(board.rows)))


_HELP = {
    tracker.CLASSES: "Predictions of each class",
    tracker.VALUES: "Predicted values",
    tracker.SKIPPED: "Responses that the tracker could not count",
    "cortex_metrics_dropped": "Numbers of metrics_client that had no room: too many sets of tags",
}


def named(counted: Sequence[series.Series]) -> Iterator[Metric]:
    """Families of what was counted by name. A name that two processes use for two kinds is shown as one of them."""
    seen: set[str] = set()
    for (kind, name), group in groupby(
        sorted(counted, key=lambda s: (s.kind, s.name)), lambda s: (s.kind, s.name)
    ):
        if name not in seen:
            seen.add(name)
            yield from _families(kind, name, list(group))


def _families(kind: str, name: str, group: list[series.Series]) -> Iterator[Metric]:
    text = _HELP.get(name, "Counted by the handler")
    labels = sorted({tag for each in group for tag, _ in each.tags})

    def values_of(each: series.Series) -> list[str]:
        tags = dict(each.tags)
        return [tags.get(label, "") for label in labels]

    if kind == series.COUNTER:
        counter = CounterMetricFamily(name, text, labels=labels)
        for each in group:
            counter.add_metric(values_of(each), each.values[0])
        yield counter
    elif kind == series.GAUGE:
        gauge = GaugeMetricFamily(name, text, labels=labels)
        for each in group:
            gauge.add_metric(values_of(each), each.values[0])
        yield gauge
    elif kind == series.HISTOGRAM:
        histogram = HistogramMetricFamily(name, text, labels=labels)
        for each in group:
            counts = list(accumulate(each.values[:-1]))
            histogram.add_metric(values_of(each), _buckets(series.BUCKETS, counts), each.values[-1])
        yield histogram
    else:
        summary = SummaryMetricFamily(name, text, labels=labels)
        least = GaugeMetricFamily(f"{name}_min", f"{text}: the least", labels=labels)
        greatest = GaugeMetricFamily(f"{name}_max", f"{text}: the greatest", labels=labels)
        for each in group:
            count, total, minimum, maximum = each.values
            summary.add_metric(values_of(each), int(count), total)
            least.add_metric(values_of(each), minimum)
            greatest.add_metric(values_of(each), maximum)
        yield from (summary, least, greatest)


def _histogram(
    name: str, text: str, bounds: Sequence[float], counts: Sequence[float], total: float
) -> HistogramMetricFamily:
    family = HistogramMetricFamily(name, text)
    family.add_metric((), _buckets(bounds, counts), total)
    return family


def _buckets(bounds: Sequence[float], counts: Sequence[float]) -> list[tuple[str, float]]:
    return [(str(bound), count) for bound, count in zip((*bounds, "+Inf"), counts, strict=True)]


class Metrics:
    """The text for /metrics."""

    def __init__(
        self,
        document: Document,
        board: Board,
        workers: Callable[[], tuple[int, int]],
        model_failures: Callable[[], Mapping[str, int]] = dict,
    ) -> None:
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(ReplicaCollector(document, board, workers, model_failures))

    def text(self) -> bytes:
        """The Prometheus text format, version 0.0.4."""
        return generate_latest(self._registry)
