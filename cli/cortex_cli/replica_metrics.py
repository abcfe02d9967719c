"""Sum the metrics of replicas from their texts in Prometheus format. Pure functions, without I/O."""

import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

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


@dataclass
class Totals:
    """Counts of one or more replicas since their start, and their current load.

    durations, job_durations: for each upper bound in seconds, the number of durations up to it. value_sum: sum of the predictions
    of a regression. queue_length: requests that wait for a thread.
    """

    classes: Counter[str] = field(default_factory=Counter)
    durations: Counter[float] = field(default_factory=Counter)
    predictions: Counter[str] = field(default_factory=Counter)
    skipped: Counter[str] = field(default_factory=Counter)
    jobs: Counter[str] = field(default_factory=Counter)
    job_durations: Counter[float] = field(default_factory=Counter)
    dead_letters: Counter[str] = field(default_factory=Counter)
    value_count: int = 0
    value_sum: float = 0.0
    value_min: float = math.inf
    value_max: float = -math.inf
    in_flight: int = 0
    queue_length: int = 0

    def add(self, other: "Totals") -> None:
        """Add the counts and the load of other replicas."""
        for name in _COUNTERS:
            if counter := getattr(other, name):
                getattr(self, name).update(counter)
        self.value_count += other.value_count
        self.value_sum += other.value_sum
        self.value_min = min(self.value_min, other.value_min)
        self.value_max = max(self.value_max, other.value_max)
        self.in_flight += other.in_flight
        self.queue_length += other.queue_length

    def since(self, older: "Totals") -> "Totals":
        """Return what was counted after `older`, of the same replica. If it has restarted, return everything since then."""
        if self._is_restart(older):
            return self
        return Totals(
            **{name: _difference(getattr(self, name), getattr(older, name)) for name in _COUNTERS},
            value_count=self.value_count - older.value_count,
            value_sum=self.value_sum - older.value_sum,
            value_min=self.value_min,
            value_max=self.value_max,
            in_flight=self.in_flight,
            queue_length=self.queue_length,
        )

    def _is_restart(self, older: "Totals") -> bool:
        return any(
            getattr(self, name)[key] < count
            for name in _COUNTERS
            for key, count in getattr(older, name).items()
        )


def _difference(newer: Counter[Any], older: Counter[Any]) -> Counter[Any]:
    """Return the differences; empty if all are zero, so that an idle replica costs no memory.

    Otherwise zeros remain, because the percentiles of a histogram depend on its empty buckets.
    """
    found: Counter[Any] = Counter()
    found.update({key: count - older[key] for key, count in newer.items()})
    return found if any(found.values()) else Counter()


_COUNTERS = ("classes", "durations", "predictions", "skipped", "jobs", "job_durations", "dead_letters")


def sum_metrics(texts: Iterable[str]) -> Traffic:
    """Return the totals of the metrics of all replicas."""
    totals = Totals()
    for text in texts:
        totals.add(read_totals(text))
    return summarize(totals)


def read_totals(text: str) -> Totals:
    """Return the counts in the metrics of one replica."""
    totals = Totals()
    for sample in samples(text):
        value = sample.value
        match sample.name:
            case "cortex_requests_total":
                totals.classes[f"{sample.labels.get('status', '?')[0]}XX"] += int(value)
            case "cortex_request_duration_seconds_bucket":
                totals.durations[float(sample.labels.get("le", "nan"))] += int(value)
            case "cortex_requests_in_flight":
                totals.in_flight += int(value)
            case "cortex_queue_length":
                totals.queue_length += int(value)
            case "cortex_tracker_predictions_total":
                totals.predictions[sample.labels.get("class", "")] += int(value)
            case "cortex_tracker_skipped_total":
                totals.skipped[sample.labels.get("reason", "")] += int(value)
            case "cortex_tracker_value_count":
                totals.value_count += int(value)
            case "cortex_tracker_value_sum":
                totals.value_sum += value
            # A replica without predictions reports NaN, which no comparison selects.
            case "cortex_tracker_value_min":
                totals.value_min = min(totals.value_min, value)
            case "cortex_tracker_value_max":
                totals.value_max = max(totals.value_max, value)
            case "cortex_async_jobs_total":
                totals.jobs[sample.labels.get("status", "")] += int(value)
            case "cortex_async_finish_seconds_bucket":
                totals.job_durations[float(sample.labels.get("le", "nan"))] += int(value)
            case "cortex_async_dead_letters_total":
                totals.dead_letters[sample.labels.get("reason", "")] += int(value)
    return totals


def summarize(totals: Totals) -> Traffic:
    """Return totals with the percentiles of their durations."""
    values = None
    if totals.value_count and math.isfinite(totals.value_min) and math.isfinite(totals.value_max):
        average = totals.value_sum / totals.value_count
        values = Values(totals.value_count, totals.value_min, totals.value_max, average)
    return Traffic(
        dict(sorted(totals.classes.items())),
        latency(totals.durations),
        totals.in_flight,
        dict(totals.predictions.most_common()),
        values,
        dict(totals.skipped.most_common()),
        dict(sorted(totals.jobs.items())),
        latency(totals.job_durations),
    )


def latency(cumulative: Mapping[float, int]) -> Latency | None:
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
        count = cumulative.get(bound, 0)
        if count >= rank:
            return lower + (bound - lower) * (rank - below) / (count - below)
        below, lower = count, bound
    return bounds[-1]
