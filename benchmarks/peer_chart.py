"""Draw the results of `make bench-peers` as an SVG image: throughput, start and memory of each server. No I/O."""

import statistics
from collections.abc import Iterable
from html import escape

from peer_tables import OPEN_LOOP, OURS, Row, Values

_PANELS = (
    ("requests_per_second", "iris: requests per second", "{:,.0f}", True),
    ("start_s", "time to first response, s", "{:.2f}", False),
    ("pss_mib", "memory (PSS), MiB", "{:,.0f}", False),
)
"""Measured value, title, format, and whether more is better."""
_WIDTH, _LABELS, _BAR, _GAP, _HEAD = 760, 90, 16, 6, 34


def chart(rows: Iterable[Row]) -> str:
    """Return the image. Each panel has one bar for each server, the best first."""
    values = Values(rows)
    parts: list[str] = []
    top = 0
    for measured, title, form, highest in _PANELS:
        medians = {
            name: statistics.median(found)
            for name in (OURS, *values.peers)
            if (found := _found(values, name, measured))
        }
        parts.append(f'<text x="0" y="{top + 20}" font-weight="bold">{escape(title)}</text>')
        top += _HEAD
        longest = max(medians.values(), default=1.0)
        for name in sorted(medians, key=lambda name: medians[name], reverse=highest):
            length = (_WIDTH - _LABELS - 80) * medians[name] / longest
            color = "#2563eb" if name == OURS else "#9ca3af"
            line = top + _BAR - 4
            parts.append(f'<text x="{_LABELS - 8}" y="{line}" text-anchor="end">{escape(name)}</text>')
            parts.append(
                f'<rect x="{_LABELS}" y="{top}" width="{length:.1f}" height="{_BAR}" fill="{color}"/>'
            )
            parts.append(
                f'<text x="{_LABELS + length + 6:.1f}" y="{line}">{form.format(medians[name])}</text>'
            )
            top += _BAR + _GAP
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {top}" font-family="sans-serif" font-size="12">\n'
        f'<rect width="{_WIDTH}" height="{top}" fill="white"/>\n{body}\n</svg>\n'
    )


def _found(values: Values, name: str, measured: str) -> list[float]:
    return values.ours(OPEN_LOOP, measured) if name == OURS else values.theirs(OPEN_LOOP, name, measured)
