"""`metrics_client`: numbers that a handler counts itself, which stand in the replica's /metrics beside Cortex's own."""

import logging
import math
import re
from collections.abc import Mapping
from typing import Any

from cortex_runtime.metrics.series import COUNTER, GAUGE, HISTOGRAM, MOST_SERIES, Tally

log = logging.getLogger("cortex")

RESERVED = ("cortex_", "istio_")
"""Beginnings of names that are not the handler's to use."""

_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*").fullmatch
_LONGEST_NAME, _LONGEST_VALUE, _MOST_TAGS = 128, 256, 16


class MetricsClient:
    """What a handler's constructor gets. Safe for several threads; the numbers of all processes of a replica are added up.

    Names are letters, digits and "_" ("." and "-" become "_"), and don't begin with cortex_ or istio_. tags: name to value, for
    values that are few: of one process's series beyond 1,000 nothing is kept, and cortex_metrics_dropped_total says so.
    """

    def __init__(self, tally: Tally) -> None:
        self._tally = tally
        self._names: dict[tuple[str, str], str] = {}

    def gauge(self, metric: str, value: float, tags: Mapping[str, Any] | None = None) -> None:
        """Set a value that goes up and down; of several processes the last one that set it counts."""
        self._tally.set(self._name(metric, GAUGE), _tags(metric, tags), _number(metric, value))

    def increment(self, metric: str, value: float = 1, tags: Mapping[str, Any] | None = None) -> None:
        """Count on by a value that is not negative. In /metrics the name ends with _total."""
        number = _number(metric, value)
        if number < 0:
            raise ValueError(f"metric {metric!r}: a counter never goes down, and {value} is negative")
        self._tally.add(self._name(metric, COUNTER), _tags(metric, tags), number)

    def histogram(self, metric: str, value: float, tags: Mapping[str, Any] | None = None) -> None:
        """Add an observation to a distribution. Its buckets reach from 0.001 to 50,000."""
        self._tally.observe(self._name(metric, HISTOGRAM), _tags(metric, tags), _number(metric, value))

    def _name(self, metric: str, kind: str) -> str:
        known = self._names.get((metric, kind))
        if known is not None:
            return known
        name = _clean(metric, "metric")
        if name.startswith(RESERVED):
            raise ValueError(f"metric {metric!r}: names must not begin with {' or '.join(RESERVED)}")
        if kind == COUNTER:
            # It is put there again in /metrics.
            name = name.removesuffix("_total")
        before = self._tally.kind_of(name)
        if before not in (None, kind):
            raise ValueError(f"metric {metric!r} is a {before} already, and can't be a {kind} as well")
        if len(self._names) < MOST_SERIES:
            self._names[metric, kind] = name
        return name


def _clean(name: Any, what: str) -> str:
    clean = name.replace(".", "_").replace("-", "_") if isinstance(name, str) else ""
    if not _NAME(clean) or len(clean) > _LONGEST_NAME:
        raise ValueError(
            f"{what} {name!r}: names are letters, digits and '_', at most {_LONGEST_NAME} of them"
        )
    return clean


def _tags(metric: str, tags: Mapping[str, Any] | None) -> dict[str, str]:
    if not tags:
        return {}
    if len(tags) > _MOST_TAGS:
        raise ValueError(f"metric {metric!r}: {len(tags)} tags are more than {_MOST_TAGS}")
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
        raise ValueError(f"metric {metric!r}: {value!r} is no number") from error
    if not math.isfinite(number):
        raise ValueError(f"metric {metric!r}: {value!r} is not finite")
    return number
