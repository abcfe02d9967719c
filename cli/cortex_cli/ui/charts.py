"""Charts as SVG, rendered on the server. Shapes only: the labels around them are text of the page, so that they stay legible at
every width.

A value of None is "no data": the line is interrupted there, which differs from a line at zero.
"""

import itertools
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import Literal

from markupsafe import Markup, escape

WIDTH, HEIGHT = 600.0, 120.0
_SPARK_WIDTH, _SPARK_HEIGHT = 96.0, 22.0
Values = Sequence[tuple[float, float | None]]
"""Pairs of Unix time and value, in order of time."""


@dataclass(frozen=True)
class Series:
    """One line of a chart. color: a class of the style sheet. style: step for a number that changes at once."""

    name: str
    color: str
    values: Values
    style: Literal["line", "area", "step"] = "line"


@dataclass(frozen=True)
class Mark:
    """A moment that all charts of a page show. text: what happened."""

    time: float
    text: str


@dataclass(frozen=True)
class Chart:
    """A chart over a period of time.

    start, end: Unix times of its edges. text: formats a value with its unit. whole: whether values are whole numbers.
    """

    id: str
    title: str
    series: list[Series]
    start: float
    end: float
    text: Callable[[float], str]
    note: str = ""
    marks: list[Mark] = field(default_factory=list)
    whole: bool = False

    @cached_property
    def has_data(self) -> bool:
        """Whether any value is known."""
        return any(value is not None for series in self.series for _, value in series.values)

    @cached_property
    def top(self) -> float:
        """The value at the upper edge."""
        every = [value for series in self.series for _, value in series.values if value is not None]
        return nice(max(every, default=0.0), self.whole)

    @cached_property
    def bottom(self) -> float:
        """The value at the lower edge: 0, or less if a value is negative."""
        lowest = min((v for series in self.series for _, v in series.values if v is not None), default=0.0)
        return -nice(-lowest, self.whole) if lowest < 0 else 0.0

    @property
    def ticks(self) -> list[str]:
        """Labels of the vertical axis, from the top."""
        middle = (self.top + self.bottom) / 2
        return [
            self.text(self.top),
            self.text(middle) if not self.whole or middle % 1 == 0 else "",
            self.text(self.bottom),
        ]

    @property
    def times(self) -> list[str]:
        """Labels of the horizontal axis."""
        middle = (self.start + self.end) / 2
        return [clock(moment, self.end - self.start) for moment in (self.start, middle, self.end)]

    @property
    def legend(self) -> list[tuple[str, str, str]]:
        """Name, color and last value of each series."""
        return [(each.name, each.color, self._last(each)) for each in self.series]

    @property
    def description(self) -> str:
        """The chart in a sentence, for screen readers."""
        if not self.has_data:
            return f"{self.title}: no data"
        parts = []
        for each in self.series:
            known = [value for _, value in each.values if value is not None]
            if known:
                parts.append(f"{each.name} now {self._last(each)}, highest {self.text(max(known))}")
        return f"{self.title}, {self.times[0]} to {self.times[2]}: {'; '.join(parts)}"

    @property
    def rows(self) -> list[tuple[str, list[str]]]:
        """Time and values, newest first, for the table of the chart. At most 60 rows."""
        moments = sorted({time for series in self.series for time, _ in series.values}, reverse=True)[:60]
        columns = [dict(series.values) for series in self.series]
        return [
            (clock(moment, 0), [self._text(column.get(moment)) for column in columns]) for moment in moments
        ]

    @property
    def data(self) -> str:
        """All values as JSON, for the readout under the pointer."""
        series = [
            {
                "name": each.name,
                "times": [round(time, 1) for time, _ in each.values],
                "texts": [self._text(value) for _, value in each.values],
            }
            for each in self.series
        ]
        return json.dumps({"start": self.start, "end": self.end, "series": series}, separators=(",", ":"))

    def svg(self) -> Markup:
        """Return the shapes."""
        parts = [
            f'<line class="grid" x1="0" x2="{WIDTH:.0f}" y1="{y:.0f}" y2="{y:.0f}"/>'
            for y in (0.0, HEIGHT / 2, HEIGHT)
        ]
        for each in self.series:
            placed = [(self._x(time), None if v is None else self._y(v)) for time, v in each.values]
            parts += [_path(run, each) for run in runs(placed)]
        for mark in self.marks:
            x = self._x(mark.time)
            title = escape(mark.text)
            parts.append(
                f'<line class="mark" x1="{x:.1f}" x2="{x:.1f}" y1="0" y2="{HEIGHT:.0f}"><title>{title}</title></line>'
            )
        body = "".join(parts)
        box = f"0 0 {WIDTH:.0f} {HEIGHT:.0f}"
        return Markup(f'<svg viewBox="{box}" preserveAspectRatio="none" aria-hidden="true">{body}</svg>')

    def _x(self, time: float) -> float:
        return min(max((time - self.start) / (self.end - self.start), 0.0), 1.0) * WIDTH

    def _y(self, value: float) -> float:
        share = (value - self.bottom) / (self.top - self.bottom)
        return HEIGHT - min(max(share, 0.0), 1.0) * HEIGHT

    def _last(self, series: Series) -> str:
        return self._text(series.values[-1][1] if series.values else None)

    def _text(self, value: float | None) -> str:
        return "no data" if value is None else self.text(value)


def runs(points: Sequence[tuple[float, float | None]]) -> list[list[tuple[float, float]]]:
    """Split points at those without a value."""
    found: list[list[tuple[float, float]]] = [[]]
    for x, y in points:
        if y is None:
            found.append([])
        else:
            found[-1].append((x, y))
    return [run for run in found if run]


def _path(run: list[tuple[float, float]], series: Series) -> str:
    if len(run) == 1:
        # A single point would be invisible as a line.
        run = [(run[0][0] - 1, run[0][1]), run[0]]
    if series.style == "step":
        corners = [run[0]]
        for (_, before), (x, y) in itertools.pairwise(run):
            corners += [(x, before), (x, y)]
        run = corners
    line = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in run)
    area = ""
    if series.style == "area":
        closed = f"{line}L{run[-1][0]:.1f} {HEIGHT:.0f}L{run[0][0]:.1f} {HEIGHT:.0f}Z"
        area = f'<path class="area {series.color}" d="{closed}"/>'
    return f'{area}<path class="line {series.color}" d="{line}"/>'


def sparkline(values: Values, start: float, end: float) -> Markup:
    """Return a small line without labels; empty without data."""
    known = [value for _, value in values if value is not None]
    if not known:
        return Markup("")
    top = max(known) or 1.0
    placed = [
        (
            (time - start) / (end - start) * _SPARK_WIDTH,
            None if v is None else _SPARK_HEIGHT - 1 - v / top * (_SPARK_HEIGHT - 2),
        )
        for time, v in values
    ]
    lines = "".join(
        f'<path d="M{"L".join(f"{x:.1f} {y:.1f}" for x, y in run)}"/>' for run in runs(placed) if len(run) > 1
    )
    return Markup(
        f'<svg class="spark" viewBox="0 0 {_SPARK_WIDTH:.0f} {_SPARK_HEIGHT:.0f}" preserveAspectRatio="none"'
        f' aria-hidden="true">{lines}</svg>'
    )


def nice(value: float, whole: bool = False) -> float:
    """Return the next number of 1, 2, 4, 5 or 10 times a power of ten, for the upper edge of a chart."""
    if value <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    found = next(step * power for step in (1, 2, 4, 5, 10) if step * power >= value * (1 - 1e-9))
    return max(float(math.ceil(found)), 1.0) if whole else found


def clock(moment: float, period: float) -> str:
    """Format a Unix time as local time; with the date if the chart covers more than a day."""
    form = "%b %d %H:%M" if period > 86_400 else "%H:%M" if period > 7200 else "%H:%M:%S"
    return datetime.fromtimestamp(moment).strftime(form)
