"""The metrics of the candidate, for /metrics. They exist only while a split is active, and restart with each version."""

from collections.abc import Iterator
from itertools import accumulate

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric

from cortex_api.contract import CANDIDATE, STABLE
from cortex_runtime.candidate.counters import Totals
from cortex_runtime.metrics.shared_memory import BUCKETS


def families(totals: Totals) -> Iterator[Metric]:
    """Yield the metric families."""
    requests = CounterMetricFamily(
        "cortex_candidate_requests",
        "Requests assigned to the candidate by weight: answered by it, answered by the stable version after it failed (fallback)"
        " or while its breaker was open (diverted), or aborted because it failed after its first byte",
        labels=("outcome",),
    )
    for outcome in ("answered", "fallback", "diverted", "aborted"):
        requests.add_metric((outcome,), getattr(totals, outcome))
    yield requests
    mirrored = CounterMetricFamily(
        "cortex_candidate_mirrored",
        "Copies of requests of the stable version: compared, dropped because of load or size, or not answered (failed)",
        labels=("outcome",),
    )
    for outcome in ("compared", "dropped", "failed"):
        mirrored.add_metric((outcome,), getattr(totals, outcome))
    yield mirrored
    yield CounterMetricFamily(
        "cortex_candidate_differing",
        "Compared responses of the candidate that differ from those of the stable version",
        value=totals.differing,
    )
    latency = HistogramMetricFamily(
        "cortex_candidate_latency_seconds",
        "Seconds to the first byte of responses, measured in the stable replica",
        labels=("version",),
    )
    for version, (*counts, seconds) in ((STABLE, totals.stable), (CANDIDATE, totals.candidate)):
        bounds = [*map(str, BUCKETS), "+Inf"]
        latency.add_metric((version,), list(zip(bounds, accumulate(counts), strict=True)), seconds)
    yield latency
    yield GaugeMetricFamily(
        "cortex_candidate_breaker_open",
        "1 while a worker does not ask the candidate because it fails",
        value=int(totals.is_open),
    )
