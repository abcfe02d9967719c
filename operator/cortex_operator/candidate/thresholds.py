"""The decision to roll a candidate back: `spec.candidate.rollback` and what was counted. Pure."""

from dataclasses import dataclass

from cortex_api.candidate import Rollback
from cortex_operator.candidate.counts import Counts, Recent, percentile

MIN_LATENCY_DIFFERENCE = 0.005
"""Seconds by which the percentiles must differ: for a model that takes a millisecond, other load on a node may double it."""
_SHARE = 0.95


@dataclass(frozen=True)
class Exceeded:
    """A threshold that is exceeded. reason: one word. message: which one, with both values."""

    reason: str
    message: str


def exceeded(rules: Rollback, recent: Recent) -> Exceeded | None:
    """Return the first threshold that is exceeded; None while none is, or while there are too few requests."""
    enough, counts = rules.min_requests, recent.requests
    requests = counts.requests - recent.stalled
    if counts.requests >= enough and requests:
        rate = (counts.errors - recent.stalled) / requests
        if rate > share_of(rules.error_rate):
            failed = percentage(counts.errors / counts.requests)
            text = f"the candidate failed to answer {counts.errors} of {counts.requests} requests ({failed})"
            return Exceeded("ErrorRate", f"{text}; rollback.errorRate is {rules.error_rate}")
    counts = recent.compared
    if rules.disagreement is not None and counts.compared >= enough:
        rate = counts.differing / counts.compared
        if rate > share_of(rules.disagreement):
            text = f"{counts.differing} of {counts.compared} compared responses differ ({percentage(rate)})"
            return Exceeded("Disagreement", f"{text}; rollback.disagreement is {rules.disagreement}")
    return _exceeded_latency(rules, recent.latency)


def _exceeded_latency(rules: Rollback, counts: Counts) -> Exceeded | None:
    if rules.latency_ratio is None or min(sum(counts.stable), sum(counts.candidate)) < rules.min_requests:
        return None
    stable, candidate = latencies(counts)
    if stable is None or candidate is None or candidate - stable <= MIN_LATENCY_DIFFERENCE:
        return None
    if candidate <= rules.latency_ratio * stable:
        return None
    text = f"the 95th percentile of latency is {milliseconds(candidate)}, that of the stable version {milliseconds(stable)}"
    return Exceeded("Latency", f"{text}; rollback.latencyRatio is {rules.latency_ratio:g}")


def latencies(counts: Counts) -> tuple[float | None, float | None]:
    """Return the 95th percentile of latency of the stable version and of the candidate, in seconds."""
    return (
        percentile(counts.bounds, counts.stable, _SHARE),
        percentile(counts.bounds, counts.candidate, _SHARE),
    )


def share_of(text: str) -> float:
    """Return a percentage such as "5%" as a fraction."""
    return float(text.rstrip("%")) / 100


def percentage(share: float) -> str:
    """Return a fraction as a percentage with two digits, such as "3.1%"."""
    return f"{100 * share:.2g}%" if share < 0.995 else "100%" if share >= 1 else f"{100 * share:.3g}%"


def milliseconds(seconds: float) -> str:
    """Return a duration such as "12.5ms"."""
    return f"{1000 * seconds:.3g}ms" if seconds < 1 else f"{seconds:.3g}s"
