"""Numbers as a person reads them: durations, latencies, rates, shares and sizes, with their units."""

from cortex_cli.replica_metrics import Latency

NO_DATA = "–"
"""What is shown for an unknown number, which is not zero."""


def latency_text(seconds: float, latency: Latency) -> str:
    """Format a percentile of a latency. Outside of the buckets of the histogram it is only known to be below or above."""
    if seconds < latency.lowest:
        return f"<{duration(latency.lowest)}"
    return f">{duration(latency.highest)}" if seconds >= latency.highest else duration(seconds)


def duration(seconds: float) -> str:
    """Format a duration in ms or s."""
    if seconds < 0.1:
        return f"{seconds * 1000:.2g} ms"
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.3g} s"


def rate(value: float | None) -> str:
    """Format a number per second: three digits, and 0 only if nothing was counted."""
    if value is None:
        return NO_DATA
    return f"{number(value)}/s"


def number(value: float) -> str:
    """Format a number with three digits below 1,000, and without decimals above."""
    if value == 0:
        return "0"
    if abs(value) < 0.01:
        return "<0.01" if value > 0 else f"{value:.3g}"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def share(value: float | None) -> str:
    """Format a share as percent; a small one is not rounded to zero."""
    if value is None:
        return NO_DATA
    if value == 0:
        return "0%"
    return "<0.1%" if value < 0.001 else f"{value * 100:.2g}%" if value < 0.1 else f"{value:.0%}"


def size(count: float) -> str:
    """Format a number of bytes."""
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.3g} {unit}" if unit != "B" else f"{count:.0f} B"
        count /= 1024
    return f"{count:.3g} GiB"
