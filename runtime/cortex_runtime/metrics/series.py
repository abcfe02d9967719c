"""Metrics whose names are known only at run time: the handler's own metrics and those of the tracker.

Each worker writes a list of (key, values) to its region of the shared metrics and is its only writer. The supervisor reads all
regions and adds them up. A region outlives its worker and the next worker in that slot continues it.

The built-in metrics are in the rows of the same shared memory (shared_memory.py). prometheus.py exports both in /metrics.
"""

import math
import struct
import threading
import time
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import orjson

REGION = 512 * 1024
"""Bytes per worker. Pages that are never written take no memory."""
MOST_SERIES = 1000
"""Series (a metric with one combination of tags) per worker. Values of further series are dropped and counted."""
BUCKETS = tuple(float(f"{digits}e{exponent}") for exponent in range(-3, 5) for digits in ("1", "2.5", "5"))
"""Upper bounds of a histogram: 0.001 to 50,000."""

COUNTER, GAUGE, HISTOGRAM, SUMMARY = "counter", "gauge", "histogram", "summary"
_WIDTHS = {COUNTER: 1, GAUGE: 2, HISTOGRAM: len(BUCKETS) + 2, SUMMARY: 4}
_USED = struct.Struct("=Q")
_HEAD = struct.Struct("=II")
DROPPED = ("counter", "cortex_metrics_dropped", ())


@dataclass(frozen=True)
class Series:
    """One series, merged over all workers.

    values: for a counter the sum; for a gauge the last value set; for a histogram a count for each of BUCKETS and for +Inf, then
    the sum; for a summary count, sum, minimum and maximum.
    """

    kind: str
    name: str
    tags: tuple[tuple[str, str], ...]
    values: tuple[float, ...]


Key = tuple[str, str, tuple[tuple[str, str], ...]]


class NamedSeries:
    """The series of one worker. Thread-safe."""

    def __init__(self, region: memoryview) -> None:
        self._bytes = region
        self._cells = region.cast("d")
        self._slots = dict(_entries(region))
        self._kinds = {name: kind for kind, name, _ in self._slots}
        self._lock = threading.Lock()

    def kind_of(self, name: str) -> str | None:
        """Return the type of a metric, or None before its first value."""
        return self._kinds.get(name)

    def add(self, name: str, tags: Mapping[str, str], by: float) -> None:
        """Increase a counter."""
        with self._lock:
            slot = self._slot(COUNTER, name, tags)
            if slot is not None:
                self._cells[slot] += by

    def set(self, name: str, tags: Mapping[str, str], value: float) -> None:
        """Set a gauge."""
        with self._lock:
            slot = self._slot(GAUGE, name, tags)
            if slot is not None:
                self._cells[slot] = value
                self._cells[slot + 1] = time.monotonic()

    def observe(self, name: str, tags: Mapping[str, str], value: float) -> None:
        """Add an observation to a histogram."""
        with self._lock:
            slot = self._slot(HISTOGRAM, name, tags)
            if slot is not None:
                self._cells[slot + bisect_left(BUCKETS, value)] += 1.0
                self._cells[slot + len(BUCKETS) + 1] += value

    def summarize(self, name: str, tags: Mapping[str, str], value: float) -> None:
        """Add a value to a summary."""
        with self._lock:
            slot = self._slot(SUMMARY, name, tags)
            if slot is not None:
                cells = self._cells
                first = cells[slot] == 0.0
                cells[slot + 2] = value if first else min(cells[slot + 2], value)
                cells[slot + 3] = value if first else max(cells[slot + 3], value)
                cells[slot + 1] += value
                cells[slot] += 1.0

    def _slot(self, kind: str, name: str, tags: Mapping[str, str]) -> int | None:
        """Return the index of the first value of a series; None when there is no room for another series."""
        key: Key = (kind, name, tuple(sorted(tags.items())) if tags else ())
        slot = self._slots.get(key)
        if slot is None:
            slot = self._append(key) if len(self._slots) < MOST_SERIES else None
            if slot is None and (dropped := self._slots.get(DROPPED) or self._append(DROPPED)):
                self._cells[dropped] += 1.0
        return slot

    def _append(self, key: Key) -> int | None:
        content = orjson.dumps(key)
        (used,) = _USED.unpack_from(self._bytes)
        start = used or _USED.size
        values = (start + _HEAD.size + len(content) + 7) // 8 * 8
        end = values + _WIDTHS[key[0]] * 8
        # The last bytes are reserved for the counter of dropped values.
        if end > REGION - (0 if key == DROPPED else 256):
            return None
        _HEAD.pack_into(self._bytes, start, len(content), values)
        self._bytes[start + _HEAD.size : start + _HEAD.size + len(content)] = content
        # Written last: readers must never see half an entry.
        _USED.pack_into(self._bytes, 0, end)
        self._slots[key] = values // 8
        self._kinds[key[1]] = key[0]
        return values // 8


def merge(regions: Iterable[memoryview]) -> list[Series]:
    """Merge the series of all workers by type, name and tags."""
    found: dict[Key, list[Sequence[float]]] = {}
    for region in regions:
        cells = region.cast("d")
        for key, slot in _entries(region):
            found.setdefault(key, []).append(cells[slot : slot + _WIDTHS[key[0]]].tolist())
    return [Series(*key, _merged(key[0], parts)) for key, parts in sorted(found.items())]


def _merged(kind: str, parts: list[Sequence[float]]) -> tuple[float, ...]:
    if kind == GAUGE:
        return (max(parts, key=lambda part: part[1])[0],)
    if kind == SUMMARY:
        counted = [part for part in parts if part[0]]
        return (
            sum(part[0] for part in counted),
            sum(part[1] for part in counted),
            min((part[2] for part in counted), default=math.nan),
            max((part[3] for part in counted), default=math.nan),
        )
    return tuple(map(sum, zip(*parts, strict=True)))


def _entries(region: memoryview) -> Iterable[tuple[Key, int]]:
    (used,) = _USED.unpack_from(region)
    start = _USED.size
    while start < used:
        length, values = _HEAD.unpack_from(region, start)
        kind, name, tags = orjson.loads(region[start + _HEAD.size : start + _HEAD.size + length])
        yield (kind, name, tuple((tag, value) for tag, value in tags)), values // 8
        start = values + _WIDTHS[kind] * 8
