"""Which phase a candidate is in, and its part of the status. Pure.

    Starting ── pods ready, interface accepted ──▶ Serving ── a threshold is exceeded ──▶ RolledBack
        │ ▲
        ▼ │
      Failed (it cannot start, its interface differs, or its objects are refused)

A rollback lasts as long as the version, which is a hash of the candidate. It is in the status, so it survives the operator.
Pods that fail while the candidate serves do not change the phase: the stable replicas answer instead, and count the errors.
"""

from dataclasses import dataclass, field
from typing import Any

from cortex_api import RealtimeAPI
from cortex_api.candidate import Rollback
from cortex_operator.candidate.counts import Recent
from cortex_operator.candidate.thresholds import Exceeded, exceeded, latencies, milliseconds, percentage
from cortex_operator.status.conditions import Assessment, Component, Problem
from cortex_operator.status.failures import is_ready, serves

Object = dict[str, Any]

STARTING, SERVING, ROLLED_BACK, FAILED = "Starting", "Serving", "RolledBack", "Failed"
COUNTED = ("requests", "errorRate", "latencyP95", "stableLatencyP95", "compared", "disagreement")
"""The fields of the status that change with each request."""


@dataclass(frozen=True)
class Seen:
    """What is known about a candidate.

    version: its hash. component: its Deployment and pods. assessment: that of its pods. problem: why it must not start: its
    objects cannot be applied, or its interface differs. is_accepted: whether its interface was compared and accepted. recent:
    what the stable replicas count.
    """

    version: str
    component: Component = field(default_factory=Component)
    assessment: Assessment | None = None
    problem: Problem | None = None
    is_accepted: bool = False
    recent: Recent = field(default_factory=Recent)


def before(live: Object, version: str) -> Object:
    """Return the status of the candidate in a resource; empty if it is that of another version."""
    status = (live.get("status") or {}).get("candidate") or {}
    return status if status.get("version") == version else {}


def is_startable(seen: Seen) -> bool:
    """Return whether the pods of a candidate are ready, and those of earlier versions gone, so that only the interface is left
    to check."""
    ready = seen.problem is None and seen.assessment is not None and seen.assessment.ready
    return ready and not _earlier_pods(seen.component)


def _earlier_pods(component: Component) -> list[Object]:
    """Return the pods of earlier candidates that may still answer. A pod that is being deleted serves for some seconds, because
    the proxies of the nodes learn of it later than the operator."""
    current = {pod["metadata"]["name"] for pod in component.current()}
    return [pod for pod in component.pods if pod["metadata"]["name"] not in current and serves(pod)]


def decide(api: RealtimeAPI, previous: Object, seen: Seen) -> Object:
    """Return `status.candidate`. previous: what `before` returns. `since` is None where the phase changes, and the
    reporter sets it."""
    candidate = api.spec.candidate
    assert candidate is not None
    phase, reason, message = _phase(api, previous, seen)
    is_serving = phase == SERVING
    status: Object = {
        "phase": phase,
        "reason": reason,
        "message": message,
        "version": seen.version,
        "weight": candidate.weight if is_serving else 0,
        "mirror": candidate.mirror if is_serving else 0,
        **_replicas(seen.component),
        **(_numbers(seen.recent) or {name: previous[name] for name in COUNTED if name in previous}),
        "since": previous.get("since") if previous.get("phase") == phase else None,
    }
    return status


def _phase(api: RealtimeAPI, previous: Object, seen: Seen) -> tuple[str, str, str]:
    candidate = api.spec.candidate
    assert candidate is not None
    if previous.get("phase") == ROLLED_BACK:
        return ROLLED_BACK, previous.get("reason", ""), previous.get("message", "")
    if api.spec.paused:
        return STARTING, "Paused", "spec.paused is true: no pods run"
    if previous.get("phase") == SERVING:
        found = exceeded(candidate.rollback, seen.recent)
        if found is not None:
            return ROLLED_BACK, found.reason, _rollback_text(found, api.metadata.name)
        return _serving(api, seen)
    if seen.problem is not None:
        return FAILED, seen.problem.reason, seen.problem.message
    if not is_startable(seen):
        return _starting(seen)
    if not seen.is_accepted:
        return (
            STARTING,
            "Starting",
            "the interface of the candidate is being compared with that of the stable version",
        )
    return _serving(api, seen)


def proceed(previous: Object, name: str, rules: Rollback, component: Component, recent: Recent) -> Object:
    """Return `status.candidate` of an API whose spec cannot be applied, so that what ran before continues.

    previous: its status. name: of the API. rules, recent: the thresholds, and what was counted.
    """
    if previous.get("phase") != SERVING:
        return previous
    status = {**previous, **_replicas(component), **_numbers(recent)}
    found = exceeded(rules, recent)
    if found is None:
        return status
    text = _rollback_text(found, name)
    changed = {"phase": ROLLED_BACK, "reason": found.reason, "message": text, "since": None}
    return {**status, **changed, "weight": 0, "mirror": 0}


def _rollback_text(found: Exceeded, name: str) -> str:
    advice = f"A changed candidate starts anew; `cortex retry {name}` starts this one anew"
    return f"{found.message}. The stable version answers all requests. {advice}"


def _replicas(component: Component) -> Object:
    alive = [pod for pod in component.pods if not pod["metadata"].get("deletionTimestamp")]
    return {
        "replicas": len(alive),
        "readyReplicas": len([pod for pod in component.current() if is_ready(pod)]),
    }


def _starting(seen: Seen) -> tuple[str, str, str]:
    assessment = seen.assessment
    if assessment is None:
        return STARTING, "Starting", "the pods of the candidate are being created"
    if assessment.degraded and not assessment.ready:
        return FAILED, assessment.reason, assessment.message
    if assessment.ready:
        return STARTING, "Updating", "pods of the previous candidate still run"
    return STARTING, assessment.reason, assessment.message


def _serving(api: RealtimeAPI, seen: Seen) -> tuple[str, str, str]:
    candidate = api.spec.candidate
    assert candidate is not None
    parts = []
    if candidate.weight or not candidate.mirror:
        parts.append(f"{candidate.weight}% of the requests are answered by the candidate")
    if candidate.mirror:
        parts.append(f"{candidate.mirror}% are mirrored to it")
    text, assessment = ", ".join(parts), seen.assessment
    if seen.problem is not None:
        return SERVING, seen.problem.reason, f"{text}; {seen.problem.message}"
    if assessment is not None and not assessment.ready:
        return SERVING, assessment.reason, f"{text}; {assessment.message}"
    return SERVING, "Serving", text


def _numbers(recent: Recent) -> Object:
    """Return the counts since the version became active; empty before the first one."""
    total = recent.total
    if not (total.requests or total.compared):
        return {}
    numbers: Object = {"requests": total.requests, "compared": total.compared}
    if total.requests:
        numbers["errorRate"] = percentage(total.errors / total.requests)
    if total.compared:
        numbers["disagreement"] = percentage(total.differing / total.compared)
    stable, candidate = latencies(total)
    if stable is not None:
        numbers["stableLatencyP95"] = milliseconds(stable)
    if candidate is not None:
        numbers["latencyP95"] = milliseconds(candidate)
    return numbers
