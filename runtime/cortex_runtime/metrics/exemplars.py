"""Exemplars of the histogram of request durations: for each bucket, a recent request that is traced.

Each worker writes those of its requests to its row of the shared metrics. prometheus.py exports the newest of all workers.
"""

import struct
from collections.abc import Sequence
from typing import NamedTuple

_FIELDS = struct.Struct("=dd16s8s")
CELLS = _FIELDS.size // 8
"""Cells of the shared metrics for one exemplar."""


class Exemplar(NamedTuple):
    """A request. time: Unix time of its end; 0 for none. seconds: its duration. trace, span: IDs."""

    time: float
    seconds: float
    trace: bytes
    span: bytes


def write(row: memoryview, bucket: int, exemplar: Exemplar) -> None:
    """Write the exemplar of a bucket. row: bytes of the exemplars of a worker."""
    start = bucket * _FIELDS.size
    # A reader ignores the exemplar while it is written.
    row[start : start + 8] = bytes(8)
    row[start + 8 : start + _FIELDS.size] = _FIELDS.pack(*exemplar)[8:]
    row[start : start + 8] = struct.pack("=d", exemplar.time)


def newest(rows: Sequence[memoryview], bucket: int) -> Exemplar | None:
    """Return the newest exemplar of a bucket, or None if it has none. rows: of all workers."""
    found = []
    for row in rows:
        start = bucket * _FIELDS.size
        before = Exemplar(*_FIELDS.unpack_from(row, start))
        if before.time and Exemplar(*_FIELDS.unpack_from(row, start)) == before:
            found.append(before)
    return max(found, default=None)
