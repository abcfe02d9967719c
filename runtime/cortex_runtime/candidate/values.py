"""Compare two JSON values. Pure functions.

Two numbers are equal if |stable - candidate| <= tolerance * max(1, |stable|): the tolerance is absolute for numbers from -1 to 1,
and relative to the stable number beyond. 1 equals 1.0, true does not equal 1, NaN equals NaN. Everything else must be equal. The
order of keys is irrelevant, and a missing key is not null.
"""

import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson

LONGEST_VALUE = 200
"""Characters of a value in a report."""
_LONG_LIST = 64
"""Elements from which on numpy is faster than a loop."""

Pointer = tuple[Any, ...]
"""The path to a value: the path of its parent, and its key or index; () for the document. Formatted only for a report."""
Ignored = tuple[tuple[str, ...], ...]
"""The JSON pointers that can match below a value, each without what has matched so far."""


class _Missing:
    """The absence of a value, which is not null."""


MISSING: Final = _Missing()


@dataclass(frozen=True, slots=True)
class Difference:
    """One difference. path: a JSON pointer, or "status", "content-type" or "body". stable, candidate: MISSING where absent."""

    path: str
    stable: Any
    candidate: Any

    def as_json(self) -> dict[str, Any]:
        """Return path, stable and candidate for JSON. Long values are shortened to text, and a missing one has no key."""
        shown = {"path": self.path}
        for name, value in (("stable", self.stable), ("candidate", self.candidate)):
            if value is not MISSING:
                shown[name] = _shortened(value)
        return shown


def parts_of(pointer: str) -> tuple[str, ...]:
    """Return the keys of a JSON pointer."""
    return tuple(part.replace("~1", "/").replace("~0", "~") for part in pointer.split("/")[1:])


def formatted(pointer: Pointer) -> str:
    """Return a path as a JSON pointer."""
    keys: list[str] = []
    while pointer:
        pointer, key = pointer
        keys.append("/" + str(key).replace("~", "~0").replace("/", "~1"))
    return "".join(reversed(keys))


def below(ignored: Ignored, key: Any) -> Ignored:
    """Return what is ignored below a key. An empty pointer among it ignores the value itself."""
    text = str(key)
    return tuple(parts[1:] for parts in ignored if parts and parts[0] in (text, "*"))


def walk_differences(start: tuple[Pointer, Any, Any, Ignored], tolerance: float) -> Iterator[Difference]:
    """Yield the differences of two values. Not recursive: a body may be nested more deeply than Python's stack."""
    open_values = [start]
    while open_values:
        pointer, stable, candidate, ignored = open_values.pop()
        if type(stable) is dict and type(candidate) is dict:
            pairs: Any = _members(stable, candidate)
        elif type(stable) is list and type(candidate) is list:
            if len(stable) != len(candidate):
                yield Difference(formatted(pointer), _count(stable), _count(candidate))
                continue
            if not ignored:
                places = _differing_items(stable, candidate, tolerance)
                pairs = ((place, stable[place], candidate[place]) for place in places)
            else:
                pairs = zip(range(len(stable)), stable, candidate, strict=True)
        else:
            if not _is_equal(stable, candidate, tolerance):
                yield Difference(formatted(pointer), stable, candidate)
            continue
        nested = []
        for key, first, second in pairs:
            inner = below(ignored, key) if ignored else ()
            if () in inner:
                continue
            kind = type(first)
            if (kind is dict or kind is list) and type(second) is kind:
                nested.append(((pointer, key), first, second, inner))
            elif not _is_equal(first, second, tolerance):
                yield Difference(formatted((pointer, key)), first, second)
        open_values += reversed(nested)


def _members(stable: dict[str, Any], candidate: dict[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    for key, value in stable.items():
        yield key, value, candidate.get(key, MISSING)
    for key, value in candidate.items():
        if key not in stable:
            yield key, MISSING, value


def _differing_items(stable: list[Any], candidate: list[Any], tolerance: float) -> Sequence[int]:
    """Return the places of two lists of one length that may differ."""
    types = {*map(type, stable), *map(type, candidate)}
    if types <= {int, float} or types <= {str}:
        if stable == candidate:
            return ()
        # Without an import: a handler that does not use numpy must not pay for it.
        np: Any = sys.modules.get("numpy")
        if types == {float} and len(stable) >= _LONG_LIST and hasattr(np, "isfinite"):
            return differing_numbers(np.array(stable), np.array(candidate), tolerance)
    return range(len(stable))


def _is_equal(stable: Any, candidate: Any, tolerance: float) -> bool:
    """Return whether two values, not both lists or both objects, are equal."""
    kinds = {type(stable), type(candidate)}
    if not kinds <= {int, float}:
        return len(kinds) == 1 and stable == candidate
    if stable == candidate:
        return True
    if stable != stable or candidate != candidate:
        return stable != stable and candidate != candidate
    try:
        if not (tolerance and math.isfinite(stable) and math.isfinite(candidate)):
            return False
        return bool(abs(stable - candidate) <= tolerance * max(1, abs(stable)))
    except OverflowError:
        # An integer beyond float64.
        return False


def differing_numbers(stable: Any, candidate: Any, tolerance: float) -> "list[int]":
    """Return the first places of two arrays of one shape that differ, in order of the flat array."""
    import numpy as np

    stable, candidate = stable.reshape(-1), candidate.reshape(-1)
    differing = stable != candidate
    if not differing.any():
        return []
    places = np.flatnonzero(differing)
    if stable.dtype.kind in "iuf":
        first, second = stable[places].astype(np.float64), candidate[places].astype(np.float64)
        with np.errstate(invalid="ignore", over="ignore"):
            close = np.abs(first - second) <= tolerance * np.maximum(1.0, np.abs(first))
        finite = np.isfinite(first) & np.isfinite(second)
        both_nan = np.isnan(first) & np.isnan(second)
        places = places[~(both_nan | (close & finite & (tolerance > 0)))]
    return [int(place) for place in places]


def _count(items: list[Any]) -> str:
    return f"{len(items)} item{'' if len(items) == 1 else 's'}"


def _shortened(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, int):
        return value if -(2**63) <= value < 2**64 else str(value)[:LONGEST_VALUE]
    if not isinstance(value, str | list | dict):
        return value
    try:
        text = value if isinstance(value, str) else orjson.dumps(value).decode()
    except (TypeError, ValueError):
        # Nested too deeply.
        text = _count(list(value))
    return value if len(text) <= LONGEST_VALUE else text[: LONGEST_VALUE - 1] + "…"
