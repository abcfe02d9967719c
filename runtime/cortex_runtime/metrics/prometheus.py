"""The Prometheus text of a replica, computed from the shared metrics on each scrape; requests only write the shared metrics.

`ReplicaCollector.collect` combines the built-in metrics (the rows of shared_memory.py) and the named series (series.py, merged
over all workers).
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import accumulate, groupby
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    SummaryMetricFamily,
)
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.registry import Collector
from prometheus_client.samples import Exemplar as OpenMetricsExemplar

from cortex_api import Document, __version__
from cortex_runtime.metrics import series, tracker
from cortex_runtime.metrics.exemplars import Exemplar
from cortex_runtime.metrics.shared_memory import BATCH_SIZES, BUCKETS, SharedMetrics


class ReplicaCollector(Collector):
    """Collects the metrics of a replica.

    workers: returns (ready, restarts). model_failures: returns failed loads by model. further: returns further metric families.
    """

    def __init__(
        self,
        document: Document,
        shared_metrics: SharedMetrics,
        workers: Callable[[], tuple[int, int]],
        model_failures: Callable[[], Mapping[str, int]] = dict,
        further: Callable[[], Iterable[Metric]] = tuple,
    ) -> None:
        self._document = document
        self._shared_metrics = shared_metrics
        self._workers = workers
        self._model_failures = model_failures
        self._further = further

    def collect(self) -> Iterator[Metric]:
        """Yield all metric families of the replica."""
        document, shared_metrics = self._document, self._shared_metrics
        requests = CounterMetricFamily(
            "cortex_requests",
            "Responses sent (499: the client closed the connection)",
            labels=("method", "status"),
        )
        for method, status, count in shared_metrics.requests():
            requests.add_metric((method, str(status)), count)
        yield requests
        yield _histogram(
            "cortex_request_duration_seconds",
            "Seconds from receiving a request to sending its last byte",
            BUCKETS,
            *shared_metrics.durations(),
            shared_metrics.exemplars() if document.spec.tracing is not None else (),
        )
        if document.batching is not None:
            yield _histogram(
                "cortex_batch_size", "Requests per batch", BATCH_SIZES, *shared_metrics.batch_sizes()
            )
            yield _histogram(
                "cortex_batch_wait_seconds",
                "Seconds from receiving a request to the start of its batch",
                BUCKETS,
                *shared_metrics.batch_waits(),
            )
        yield GaugeMetricFamily(
            "cortex_requests_in_flight", "Requests running and queued", value=shared_metrics.in_flight()
        )
        yield GaugeMetricFamily(
            "cortex_queue_length", "Requests queued for a thread or a batch", value=shared_metrics.waiting()
        )
        yield GaugeMetricFamily(
            "cortex_max_replica_concurrency",
            "Maximum of requests running and queued; more are refused with status 503",
            value=document.spec.handler.max_replica_concurrency,
        )
        ready, restarts = self._workers()
        yield GaugeMetricFamily("cortex_workers_ready", "Worker processes that are ready", value=ready)
        yield CounterMetricFamily("cortex_worker_restarts", "Restarts of worker processes", value=restarts)
        if document.spec.handler.models is not None:
            failures = CounterMetricFamily(
                "cortex_model_load_failures",
                "Failed attempts to download or load a model; the previous version stays in use",
                labels=("model",),
            )
            for model, count in sorted(self._model_failures().items()):
                failures.add_metric((model,), count)
            yield failures
        build = GaugeMetricFamily(
            "cortex_build_info",
            "Version, API, namespace and kind of this process",
            labels=("version", "api", "namespace", "kind"),
        )
        build.add_metric((__version__, document.name, document.namespace, document.kind), 1)
        yield build
        yield from self._further()
        yield from families(
            series.merge(shared_metrics.series_region(slot) for slot in range(shared_metrics.slots))
        )


_HELP = {
    tracker.CLASSES: "Predictions by class",
    tracker.VALUES: "Predicted values",
    tracker.SKIPPED: "Responses that the tracker did not count, by reason",
    "cortex_route_requests": "Responses sent by routes other than / (499: the client closed the connection)",
    "cortex_route_request_duration_seconds": "Seconds from receiving a request to sending its last byte, for routes other than /",
    "cortex_inference_duration_seconds": "Seconds of successful inferences of the Open Inference Protocol",
    "cortex_spans_dropped": "Spans that were not sent: the collector did not accept them, or too many were queued",
    "cortex_payload_events": "CloudEvents that the sink of payloadLogging has accepted",
    "cortex_payload_events_dropped": "CloudEvents that were not delivered, by reason: queue (full), sink, shutdown",
    "cortex_metrics_dropped": "Values of metrics_client that were dropped: too many combinations of tags",
}


def families(counted: Sequence[series.Series]) -> Iterator[Metric]:
    """Yield the metric families of named series. A name with two types in two processes is exported as one of them."""
    seen: set[str] = set()
    for (kind, name), group in groupby(
        sorted(counted, key=lambda s: (s.kind, s.name)), lambda s: (s.kind, s.name)
    ):
        if name not in seen:
            seen.add(name)
            yield from _family(kind, name, list(group))


def _family(kind: str, name: str, group: list[series.Series]) -> Iterator[Metric]:
    text = _HELP.get(name, "Recorded by the handler")
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
        minimum_family = GaugeMetricFamily(f"{name}_min", f"{text}: minimum", labels=labels)
        maximum_family = GaugeMetricFamily(f"{name}_max", f"{text}: maximum", labels=labels)
        for each in group:
            count, total, minimum, maximum = each.values
            summary.add_metric(values_of(each), int(count), total)
            minimum_family.add_metric(values_of(each), minimum)
            maximum_family.add_metric(values_of(each), maximum)
        yield from (summary, minimum_family, maximum_family)


def _histogram(
    name: str,
    text: str,
    bounds: Sequence[float],
    counts: Sequence[float],
    total: float,
    exemplars: Sequence[Exemplar | None] = (),
) -> HistogramMetricFamily:
    family = HistogramMetricFamily(name, text)
    buckets: list[Any] = _buckets(bounds, counts)
    for index, exemplar in enumerate(exemplars):
        if exemplar is not None:
            ids = {"trace_id": exemplar.trace.hex(), "span_id": exemplar.span.hex()}
            buckets[index] += (OpenMetricsExemplar(ids, exemplar.seconds, exemplar.time),)
    family.add_metric((), buckets, total)
    return family


def _buckets(bounds: Sequence[float], counts: Sequence[float]) -> list[tuple[str, float]]:
    return [(str(bound), count) for bound, count in zip((*bounds, "+Inf"), counts, strict=True)]


class Metrics:
    """Renders /metrics."""

    def __init__(
        self,
        document: Document,
        shared_metrics: SharedMetrics,
        workers: Callable[[], tuple[int, int]],
        model_failures: Callable[[], Mapping[str, int]] = dict,
        further: Callable[[], Iterable[Metric]] = tuple,
    ) -> None:
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(ReplicaCollector(document, shared_metrics, workers, model_failures, further))

    def text(self) -> bytes:
        """Return the metrics in the Prometheus text format, version 0.0.4."""
        return generate_latest(self._registry)

    def openmetrics(self) -> bytes:
        """Return the metrics in the OpenMetrics text format, version 1.0.0, which has exemplars."""
        return generate_openmetrics(self._registry)
