"""The candidate of an API beside its stable version, with examples of differing responses."""

import re
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from cortex_api.contract import DIFFERENCES_PATH
from cortex_cli import apis
from cortex_cli.apis import API
from cortex_cli.candidate_reports import read_reports, value_text
from cortex_cli.connection import Cluster, ClusterError, Object
from cortex_cli.diagnosis import remedy
from cortex_cli.number_text import NO_DATA
from cortex_cli.ui.states import words
from cortex_cli.ui.store import Store, key_of

_EXAMPLES = 10
_MAX_PODS = 20


@dataclass(frozen=True)
class Comparison:
    """A number of both versions."""

    name: str
    stable: str
    candidate: str
    hint: str = ""


@dataclass(frozen=True)
class Example:
    """A request with two different responses. differences: path, value of the stable version, value of the candidate."""

    id: str
    clock: str
    path: str
    request: str
    stable: str
    candidate: str
    differences: list[tuple[str, str, str]]


@dataclass(frozen=True)
class Candidate:
    """What the operator reports of a candidate. share: which requests it receives, in words. remedy: what to do, or ""."""

    phase: str
    state: str
    reason: str
    message: str
    remedy: str
    since: str
    share: str
    rows: list[Comparison]


def candidate_of(api: API) -> Candidate | None:
    """Return the candidate of an API; None without one."""
    status, spec = api.status.get("candidate"), api.live["spec"].get("candidate")
    if not status and spec is None:
        return None
    status, spec = status or {}, spec or {}
    phase = str(status.get("phase") or "Starting")
    state = {"Serving": "ready", "Starting": "waiting"}.get(phase, "failed")
    ready, wanted = status.get("readyReplicas"), status.get("replicas")
    latencies = _reported(status.get("stableLatencyP95")), _reported(status.get("latencyP95"))
    stable = f"{api.status.get('readyReplicas') or 0} / {_reported(apis.desired_replicas(api))}"
    other = NO_DATA if wanted is None else f"{ready or 0} / {wanted}"
    rows = [
        Comparison("p95 latency", *latencies, "to the first byte"),
        Comparison("Replicas", stable, other, "ready / desired"),
        Comparison("Requests", "", _count(status.get("requests")), "sent to the candidate by its weight"),
        Comparison(
            "Errors",
            "",
            _reported(status.get("errorRate")),
            "share that the stable version had to answer instead",
        ),
        Comparison("Compared", "", _count(status.get("compared")), "mirrored requests with both responses"),
        Comparison(
            "Disagreement",
            "",
            _reported(status.get("disagreement")),
            "share of these with different responses",
        ),
    ]
    return Candidate(
        phase,
        state,
        words(str(status.get("reason") or "")),
        str(status.get("message") or ""),
        remedy(str(status.get("reason") or ""), api.name, str(status.get("message") or ""))
        if state == "failed"
        else "",
        apis.age(status.get("since")),
        _share(phase, spec, status),
        rows,
    )


def _share(phase: str, spec: Object, status: Object) -> str:
    """Return which requests a candidate receives. While it does not serve, its weight in the status is 0."""
    if phase == "Serving":
        return (
            f"Answers {_percent(status.get('weight') or 0)} of the requests;"
            f" receives a copy of {_percent(status.get('mirror') or 0)} of the others."
        )
    if phase != "Starting":
        return "Receives no request: the stable version answers all of them."
    wanted = [f"{_percent(spec['weight'])} of the requests"] if spec.get("weight") else []
    wanted += [f"a copy of {_percent(spec['mirror'])} of the others"] if spec.get("mirror") else []
    return f"Receives no request yet. Once it serves: {', '.join(wanted) or 'none'}."


def read_examples(cluster: Cluster, store: Store, api: API) -> list[Example]:
    """Return the newest differing pairs of all stable replicas. Raises ClusterError if no replica responds."""
    pods = apis.stable_replicas(store.pods(key_of(api)))[:_MAX_PODS]
    reports, errors = read_reports(cluster, pods, DIFFERENCES_PATH, timeout=3)
    found = [pair for (pairs,) in reports.values() for pair in pairs]
    if errors and not found:
        raise ClusterError(next(iter(errors.values())))
    # A request that was sent again has the same id.
    distinct = {(pair.get("requestId"), pair.get("time")): pair for pair in found}.values()
    newest = sorted(distinct, key=lambda pair: float(pair.get("time") or 0), reverse=True)[:_EXAMPLES]
    return [_example(pair) for pair in newest]


def _example(pair: dict[str, Any]) -> Example:
    moment = float(pair.get("time") or 0)
    differences = [
        (str(each.get("path") or "/"), value_text(each, "stable"), value_text(each, "candidate"))
        for each in pair.get("differences") or ()
    ]
    return Example(
        f"{pair.get('requestId')}-{moment:.3f}",
        datetime.fromtimestamp(moment).strftime("%H:%M:%S"),
        str(pair.get("path") or "/"),
        value_text(pair, "request"),
        value_text(pair, "stable"),
        value_text(pair, "candidate"),
        differences,
    )


def _count(value: Any) -> str:
    return NO_DATA if value is None else f"{int(value):,}"


def _reported(value: Any) -> str:
    """Return a value of the status, which has its unit: 1.2% or 14ms. A space separates the latter."""
    return NO_DATA if value is None else re.sub(r"(?<=\d)(?=m?s$)", " ", str(value))


def _percent(value: Any) -> str:
    return f"{value:g}%" if isinstance(value, int | float) else str(value)
