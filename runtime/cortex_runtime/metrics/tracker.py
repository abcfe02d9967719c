"""spec.tracker: counts predictions from the final responses. It never fails a request: a response that it cannot count is
skipped, and skipped responses are counted by reason."""

import dataclasses
import logging
import math
from collections.abc import Mapping
from decimal import Decimal
from enum import Enum
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any

from starlette.responses import Response

from cortex_runtime.arrays import is_array, is_bool
from cortex_runtime.http import json_parser
from cortex_runtime.metrics.series import NamedSeries

if TYPE_CHECKING:
    from cortex_api.deployment import Tracker as Spec

log = logging.getLogger("cortex")

CLASSES, VALUES, SKIPPED = "cortex_tracker_predictions", "cortex_tracker_value", "cortex_tracker_skipped"
MOST_CLASSES = 100
"""Distinct classes per process; further classes are counted as OTHER."""
OTHER = "(other)"
_LONGEST_CLASS = 128


class _Skip(Exception):
    """Why a response is not counted. The message is the value of a label, so it is one of a few constants."""


class Tracker:
    """Counts the predictions of one process."""

    def __init__(self, spec: "Spec", series: NamedSeries) -> None:
        self.key = spec.key
        self._regression = spec.model_type == "regression"
        self._series = series
        self._classes: set[str] = set()
        self._logged: set[str] = set()

    def note(self, value: Any) -> None:
        """Count the result of a successful call of the handler: a plain value or a Starlette response."""
        try:
            prediction = self._find(value)
            if self._regression:
                self._series.summarize(VALUES, {}, _number(prediction))
            else:
                self._series.add(CLASSES, {"class": self._class(prediction)}, 1)
        except _Skip as reason:
            self._skip(str(reason))
        except Exception:
            # A mapping class of the user may raise any exception.
            self._skip("unreadable")

    def _skip(self, reason: str) -> None:
        self._series.add(SKIPPED, {"reason": reason}, 1)
        if reason not in self._logged:
            self._logged.add(reason)
            log.warning(
                "the tracker can't count a response: %s; further ones are only counted in %s_total",
                reason,
                SKIPPED,
            )

    def _find(self, value: Any) -> Any:
        if isinstance(value, Response):
            if not 200 <= value.status_code < 300:
                raise _Skip("not a success")
            body = getattr(value, "body", None)
            if not body or not value.headers.get("content-type", "").startswith("application/json"):
                raise _Skip("not JSON")
            value = json_parser.loads(body)
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            value = vars(value)
        if self.key is not None:
            if not isinstance(value, Mapping):
                raise _Skip("not an object")
            if self.key not in value:
                raise _Skip("missing key")
            value = value[self.key]
        elif isinstance(value, Mapping):
            raise _Skip("an object, but tracker.key is not set")
        if is_array(value) and value.size == 1:
            value = value.item()
        if isinstance(value, Enum):
            value = value.value
        return value

    def _class(self, value: Any) -> str:
        if is_bool(value):
            name = "true" if value else "false"
        elif isinstance(value, str | Integral):
            name = str(value)[:_LONGEST_CLASS]
        else:
            raise _Skip("wrong type")
        if name not in self._classes:
            if len(self._classes) >= MOST_CLASSES:
                return OTHER
            self._classes.add(name)
        return name


def _number(value: Any) -> float:
    if is_bool(value) or not isinstance(value, Real | Decimal):
        raise _Skip("wrong type")
    number = float(value)
    if not math.isfinite(number):
        raise _Skip("not finite")
    return number
