"""Sum the metrics of replicas from their texts in Prometheus format. Pure functions, without I/O."""

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

_SAMPLE = re.compile(r"^(?P<name>[a-zA-Z_:][\w:]*)(?:\{(?P<labels>.*)\})? (?P<value>\S+)(?: \d+)?$")
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
_ESCAPES = {r"\\": "\\", r"\"": '"', r"\n": "\n"}


@dataclass(frozen=True)
class Sample:
    """One sample of a metric."""

    name: str
    labels: dict[str, str]
    value: float


@dataclass(frozen=True)
class Values:
    """Statistics of the predictions of a regression."""

    count: int
    minimum: float
    maximum: float
    average: float


@dataclass(frozen=True)
class Latency:
    """Percentiles of a duration in seconds, estimated from the buckets of a histogram by linear interpolation.

    lowest, highest: the smallest and the largest finite bound of the buckets. A percentile outside of them is not known exactly:
    it is below `lowest`, or at least `highest`.
    """

    p50: float
    p95: float
    p99: float
    lowest: float
    highest: float


@dataclass(frozen=True)
class Traffic:
    """Totals of the requests of all replicas since their start.

    classes: number of responses by status class ("2XX").
    latency: duration of a request, or None without requests.
    predictions: number of predictions by class, most frequent first (classification).
    values: statistics of the predictions (regression).
    skipped: number of responses that could not be tracked, by cause.
    jobs: number of jobs by final status (AsyncAPI).
    job_latency: time of a job from submission to end, or None without jobs.
    """

    classes: dict[str, int] = field(default_factory=dict)
    latency: Latency | None = None
    in_flight: int = 0
    predictions: dict[str, int] = field(default_factory=dict)
    values: Values | None = None
    skipped: dict[str, int] = field(default_factory=dict)
    jobs: dict[str, int] = field(default_factory=dict)
    job_latency: Latency | None = None


def samples(text: str) -> Iterator[Sample]:
    """Yield the samples of a text in Prometheus format; other lines are skipped."""
    for line in text.splitlines():
        match = _SAMPLE.match(line)
        if match is None:
            continue
        labels = {
            name: re.sub(r'\\[\\"n]', lambda escape: _ESCAPES[escape[0]], value)
            for name, value in _LABEL.findall(match["labels"] or "")
        }
        try:
            yield Sample(match["name"], labels, float(match["value"]))
        except ValueError:
            continue


def sum_metrics(texts: Iterable[str]) -> Traffic:
    """Return the totals of the metrics of all replicas."""
    classes: Counter[str] = Counter()
    predictions: Counter[str] = Counter()
    skipped: Counter[str] = Counter()
    jobs: Counter[str] = Counter()
    buckets: defaultdict[str, Counter[float]] = defaultdict(Counter)
    others: defaultdict[str, list[float]] = defaultdict(list)
    for text in texts:
        for sample in samples(text):
            match sample.name:
                case "cortex_requests_total":
                    classes[f"{sample.labels.get('status', '?')[0]}XX"] += int(sample.value)
                case "cortex_tracker_predictions_total":
                    predictions[sample.labels.get("class", "")] += int(sample.value)
                case "cortex_tracker_skipped_total":
                    skipped[sample.labels.get("reason", "")] += int(sample.value)
                case "cortex_async_jobs_total":
                    jobs[sample.labels.get("status", "")] += int(sample.value)
                case "cortex_request_duration_seconds_bucket" | "cortex_async_finish_seconds_bucket":
                    buckets[sample.name][float(sample.labels.get("le", "nan"))] += int(sample.value)
                case _:
                    others[sample.name].append(sample.value)
    return Traffic(
        dict(sorted(classes.items())),
        _latency(buckets["cortex_request_duration_seconds_bucket"]),
        int(sum(others["cortex_requests_in_flight"])),
        dict(predictions.most_common()),
        _values(others),
        dict(skipped.most_common()),
        dict(sorted(jobs.items())),
        _latency(buckets["cortex_async_finish_seconds_bucket"]),
    )


def _latency(cumulative: Mapping[float, int]) -> Latency | None:
    """Return the percentiles of a histogram, or None if it is empty.

    cumulative: for each upper bound the number of durations up to it, as Prometheus counts them.
    """
    bounds = sorted(bound for bound in cumulative if math.isfinite(bound))
    total = cumulative.get(math.inf, 0)
    if not bounds or not total:
        return None
    p50, p95, p99 = (_percentile(bounds, cumulative, total * share) for share in (0.5, 0.95, 0.99))
    return Latency(p50, p95, p99, bounds[0], bounds[-1])


def _percentile(bounds: list[float], cumulative: Mapping[float, int], rank: float) -> float:
    below, lower = 0, 0.0
    for bound in bounds:
        count = cumulative[bound]
        if count >= rank:
            return lower + (bound - lower) * (rank - below) / (count - below)
        below, lower = count, bound
    return bounds[-1]


def _values(values: Mapping[str, list[float]]) -> Values | None:
    count = sum(values.get("cortex_tracker_value_count", ()))
    minima = [value for value in values.get("cortex_tracker_value_min", ()) if not math.isnan(value)]
    maxima = [value for value in values.get("cortex_tracker_value_max", ()) if not math.isnan(value)]
    if not count or not minima or not maxima:
        return None
    return Values(int(count), min(minima), max(maxima), sum(values["cortex_tracker_value_sum"]) / count)
