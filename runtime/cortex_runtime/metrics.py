"""The Prometheus text of a replica, made from the shared board whenever somebody asks; requests only touch the board."""

from collections.abc import Callable, Iterator, Mapping

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from cortex_api import Document, __version__
from cortex_runtime.board import BUCKETS, Board

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
        counts, seconds = board.durations()
        buckets = [(str(bound), count) for bound, count in zip((*BUCKETS, "+Inf"), counts, strict=True)]
        duration = HistogramMetricFamily(
            "cortex_request_duration_seconds", "From request to last byte handed over"
        )
        duration.add_metric((), buckets, seconds)
        yield duration
        yield GaugeMetricFamily(
            "cortex_requests_in_flight", "Requests running and waiting", value=board.in_flight()
        )
        yield GaugeMetricFamily("cortex_queue_length", "Requests waiting for a thread", value=board.waiting())
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
