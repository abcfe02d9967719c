"""The charts of an API: requests, latency, load and replicas on one time axis, with the decisions of the autoscaler."""

import itertools
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

from cortex_cli import number_text
from cortex_cli.replica_metrics import Totals, latency
from cortex_cli.ui.charts import Chart, Mark, Series, Values
from cortex_cli.ui.history import Decision, History, Point, merge

WINDOWS = {"5m": 300.0, "30m": 1800.0, "3h": 10800.0}
"""Periods that the page offers, in seconds."""
_SHORTEST_SECONDS = 60.0
POINTS = 150
_GAP_SECONDS = 45.0
"""A longer time without a point interrupts the lines; longer than the longest pause between two points."""
_CLASS_COLORS = ("blue", "teal", "violet", "amber")
"""One for each class of predictions that a chart shows."""
STATUSES = {"2XX": ("2XX", "blue"), "4XX": ("4XX", "amber"), "5XX": ("5XX", "red")}
JOBS = {"completed": ("Completed", "blue"), "failed": ("Failed", "red")}
"""Names and colors of the series of requests by status class, and of jobs by status. The first one is always shown."""
PERCENTILES = {"p50": (0.5, "blue"), "p95": (0.95, "teal"), "p99": (0.99, "amber")}
"""Ranks and colors of the series of latencies."""


@dataclass(frozen=True)
class Period:
    """A period of time as Unix times."""

    start: float
    end: float

    @property
    def seconds(self) -> float:
        """Its length."""
        return self.end - self.start


def period(history: History, now: float, seconds: float) -> Period:
    """Return the last seconds; less if the page has seen less, but at least a minute."""
    points = history.points(now - seconds)
    first = points[0].time if points else now
    return Period(max(now - seconds, min(first - 1, now - _SHORTEST_SECONDS)), now)


def charts(kind: str, history: History, period: Period) -> list[Chart]:
    """Return the charts of an API from what the page has seen."""
    points = reduce(history.points(period.start), period.seconds / POINTS)
    is_async = kind == "AsyncAPI"
    if is_async:
        loads = [_series(points, lambda p: p.queued)]
    else:
        loads = [
            _series(points, lambda p: p.counted.in_flight if p.counted else None),
            _series(points, lambda p: p.counted.queue_length if p.counted else None),
        ]
    found = arrange(
        kind, period, _rates(points, is_async), _latencies(points, is_async), loads, _replicas(points)
    )
    decisions = marks(history.decisions(period.start))
    return [replace(chart, marks=decisions) for chart in found]


def arrange(
    kind: str,
    period: Period,
    rates: list[Series],
    latencies: list[Series],
    loads: Sequence[Values],
    replicas: list[Series],
) -> list[Chart]:
    """Return the charts of an API in the order of the page.

    loads: requests in flight and those that wait for a thread, or jobs in the queue of an AsyncAPI.
    """

    def chart(
        id: str, title: str, series: list[Series], text: Callable[[float], str], whole: bool = False
    ) -> Chart:
        return Chart(id, title, series, period.start, period.end, text, whole=whole)

    if kind == "AsyncAPI":
        jobs = [Series("Jobs waiting", "violet", loads[0])]
        found = [
            chart("jobs", "Jobs", rates, number_text.rate),
            chart("latency", "Time from submission to end", latencies, number_text.duration),
            chart("queue", "Queue", jobs, number_text.number, True),
        ]
    else:
        requests = [Series("In flight", "violet", loads[0]), Series("Waiting", "amber", loads[1])]
        found = [
            chart("requests", "Requests", rates, number_text.rate),
            chart("latency", "Latency", latencies, number_text.duration),
            chart("load", "In flight", requests, number_text.number, True),
        ]
    return [*found, chart("replicas", "Replicas", replicas, number_text.number, True)]


def marks(decisions: list[Decision]) -> list[Mark]:
    """Return decisions of the autoscaler as marks of charts."""
    return [Mark(each.time, f"{each.before} to {each.after} replicas: {each.reason}") for each in decisions]


def prediction_chart(history: History, period: Period, is_regression: bool) -> Chart | None:
    """Return the chart of the predictions over time; None without predictions."""
    points = reduce(history.points(period.start), period.seconds / POINTS)
    counted: Counter[str] = Counter()
    for point in points:
        if point.counted and point.seconds:
            counted.update(point.counted.predictions)
    if is_regression:
        series = [Series("Average", "blue", _series(points, _average))]
    else:
        names = [name for name, _ in counted.most_common(len(_CLASS_COLORS))]
        series = [
            Series(name, color, _series(points, partial(_class_share, name)))
            for name, color in zip(names, _CLASS_COLORS, strict=False)
        ]
    text = number_text.number if is_regression else number_text.share
    title = "Average over time" if is_regression else "Share of each class over time"
    chart = Chart("predictions", title, series, period.start, period.end, text)
    return chart if chart.has_data else None


def reduce(points: list[Point], seconds: float) -> list[Point]:
    """Merge the points within each interval of some seconds. Intervals begin at fixed times, so that a chart does not flicker."""
    groups = itertools.groupby(points, key=lambda point: int(point.time // seconds))
    found = []
    for _, group in groups:
        first, *rest = group
        for point in rest:
            first = merge(first, point)
        found.append(first)
    return found


def _series(points: Sequence[Point], value: Callable[[Point], float | None]) -> Values:
    found: list[tuple[float, float | None]] = []
    for point in points:
        if found and point.time - found[-1][0] > max(_GAP_SECONDS, 2.5 * point.seconds):
            found.append((found[-1][0] + 1, None))
        found.append((point.time, value(point)))
    return found


def _rates(points: list[Point], is_async: bool) -> list[Series]:
    names = JOBS if is_async else STATUSES
    always = next(iter(names))
    found = []
    for key, (name, color) in names.items():

        def rate(point: Point, key: str = key) -> float | None:
            if point.counted is None or not point.seconds:
                return None
            return (point.counted.jobs if is_async else point.counted.classes)[key] / point.seconds

        values = _series(points, rate)
        # A line at zero for each status that never occurs would hide the others.
        if key == always or any(value for _, value in values):
            found.append(Series(name, color, values, "area" if key == always else "line"))
    return found


def _latencies(points: list[Point], is_async: bool) -> list[Series]:
    found = {
        point.time: latency(point.counted.job_durations if is_async else point.counted.durations)
        for point in points
        if point.counted is not None and point.seconds
    }

    def percentile(name: str, point: Point) -> float | None:
        measured = found.get(point.time)
        return None if measured is None else float(getattr(measured, name))

    return [
        Series(name, color, _series(points, partial(percentile, name)))
        for name, (_, color) in PERCENTILES.items()
    ]


def _replicas(points: list[Point]) -> list[Series]:
    return [
        Series("Ready", "teal", _series(points, lambda p: p.ready), "step"),
        Series("Desired", "grey", _series(points, lambda p: p.desired), "step"),
    ]


def _class_share(name: str, point: Point) -> float | None:
    total = sum(point.counted.predictions.values()) if point.counted else 0
    return point.counted.predictions[name] / total if point.counted and total else None


def _average(point: Point) -> float | None:
    counted: Totals | None = point.counted
    return counted.value_sum / counted.value_count if counted and counted.value_count else None
