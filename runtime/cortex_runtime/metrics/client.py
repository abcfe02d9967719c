"""`metrics_client`: metrics that a handler records itself, exported in the replica's /metrics alongside those of Cortex."""

import logging
import math
import re
from collections.abc import Mapping
from typing import Any

from cortex_runtime.metrics.series import COUNTER, GAUGE, HISTOGRAM, MOST_SERIES, NamedSeries

log = logging.getLogger("cortex")

RESERVED = ("cortex_", "istio_")
"""Prefixes of names that handlers must not use."""

_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*").fullmatch
_LONGEST_NAME, _LONGEST_VALUE, _MOST_TAGS = 128, 256, 16


class MetricsClient:
    """The client that is passed to a handler's constructor. Thread-safe. The values of all processes of a replica are added up.

    Metric names consist of letters, digits and "_" ("." and "-" become "_") and must not begin with cortex_ or istio_. tags:
    name to value, with few distinct values: a process keeps at most 1,000 series, and cortex_metrics_dropped_total counts the
    values that were dropped. Each method raises ValueError for an invalid name, value or tag.
    """

    def __init__(self, series: NamedSeries) -> None:
        self._series = series
        self._names: dict[tuple[str, str], str] = {}

    def gauge(self, metric: str, value: float, tags: Mapping[str, Any] | None = None) -> None:
        """Set a gauge. Of several processes, the value that was set last is exported."""
        self._series.set(self._name(metric, GAUGE), _tags(metric, tags), _number(metric, value))

    def increment(self, metric: str, value: float = 1, tags: Mapping[str, Any] | None = None) -> None:
        """Increase a counter by a value that is not negative. In /metrics the name ends with _total."""
        number = _number(metric, value)
        if number < 0:
            raise ValueError(f"metric {metric!r}: the value of a counter must not be negative; got {value}")
        self._series.add(self._name(metric, COUNTER), _tags(metric, tags), number)

    def histogram(self, metric: str, value: float, tags: Mapping[str, Any] | None = None) -> None:
        """Add an observation to a histogram with buckets from 0.001 to 50,000."""
        self._series.observe(self._name(metric, HISTOGRAM), _tags(metric, tags), _number(metric, value))

    def _name(self, metric: str, kind: str) -> str:
        known = self._names.get((metric, kind))
        if known is not None:
            return known
        name = _clean(metric, "metric")
        if name.startswith(RESERVED):
            raise ValueError(f"metric {metric!r}: names must not begin with {' or '.join(RESERVED)}")
        if kind == COUNTER:
            # prometheus_client appends it in /metrics.
            name = name.removesuffix("_total")
        before = self._series.kind_of(name)
        if before not in (None, kind):
            raise ValueError(f"metric {metric!r} is already a {before}; it can't also be a {kind}")
        if len(self._names) < MOST_SERIES:
            self._names[metric, kind] = name
        return name


def _clean(name: Any, what: str) -> str:
    clean = name.replace(".", "_").replace("-", "_") if isinstance(name, str) else ""
    if not _NAME(clean) or len(clean) > _LONGEST_NAME:
        raise ValueError(
            f"{what} {name!r}: must consist of letters, digits and '_', at most {_LONGEST_NAME} characters"
        )
    return clean


def _tags(metric: str, tags: Mapping[str, Any] | None) -> dict[str, str]:
    if not tags:
        return {}
    if len(tags) > _MOST_TAGS:
        raise ValueError(f"metric {metric!r}: at most {_MOST_TAGS} tags are allowed; got {len(tags)}")
    found = {
        _clean(name, f"metric {metric!r}, tag"): str(value)[:_LONGEST_VALUE] for name, value in tags.items()
    }
    if wrong := [name for name in found if name.startswith("__") or name == "le"]:
        raise ValueError(f"metric {metric!r}, tag {wrong[0]!r}: the name is reserved by Prometheus")
    return found


def _number(metric: str, value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError) as error:
        raise ValueError(f"metric {metric!r}: must be a number; got {value!r}") from error
    if not math.isfinite(number):
        raise ValueError(f"metric {metric!r}: must be finite; got {value!r}")
    return number
