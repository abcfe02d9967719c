"""Compute the status of an API: conditions, counts, the last failure, autoscaling and queue. Pure."""

from datetime import UTC, datetime
from typing import Any

from cortex_api import AsyncAPI, RealtimeAPI
from cortex_api.contract import COMPONENT_LABEL
from cortex_operator.autoscaling.autoscaler import ObservedScaling
from cortex_operator.render.names import main_component, selector
from cortex_operator.status.conditions import (
    Assessment,
    Component,
    Observed,
    Problem,
    assess,
    assess_rejected,
)
from cortex_operator.status.failures import Failure, is_ready

Object = dict[str, Any]


def compute_rejected(live: Object, problem: Problem, observed: Observed | None = None) -> Object:
    """Return the status of an API whose objects cannot be rendered or applied. Its pods keep running and are reported."""
    previous, generation = live.get("status") or {}, live["metadata"].get("generation", 0)
    seen = observed or Observed()
    assessment = assess_rejected(problem, seen, _was_ready(previous, generation))
    names = ("url", "selector", "autoscaling", "candidate", "queue", "queueName", "revision")
    kept = {name: previous[name] for name in names if name in previous}
    status = {
        **kept,
        **(_counts(seen.main) if seen.main.pods or "replicas" in previous else {}),
        "observedGeneration": generation,
        "conditions": _conditions(assessment, generation, previous),
        "lastFailure": _last_failure(assessment, previous),
    }
    return {name: value for name, value in status.items() if value is not None}


def compute(
    api: RealtimeAPI | AsyncAPI, live: Object, observed: Observed, assessment: Assessment | None = None
) -> Object:
    """Return the status of an API whose objects are applied. assessment: the result of `assess`, if it is known already."""
    previous, generation = live.get("status") or {}, api.metadata.generation
    assessment = assessment or assess(api, observed)
    chosen = selector(api, main_component(api))
    status: Object = {
        "observedGeneration": generation,
        "url": observed.url,
        **_counts(observed.main),
        "selector": ",".join(f"{key}={value}" for key, value in chosen.items()),
        "conditions": _conditions(assessment, generation, previous),
        "autoscaling": _autoscaling(api, observed),
        "queue": _queue(observed.scaling),
        "queueName": (api.spec.queue.name or api.metadata.name) if isinstance(api, AsyncAPI) else None,
        "lastFailure": _last_failure(assessment, previous),
        "revision": previous.get("revision"),
    }
    return {name: value for name, value in status.items() if value is not None}


def _counts(main: Component) -> Object:
    alive = [pod for pod in main.pods if not pod["metadata"].get("deletionTimestamp")]
    return {"replicas": len(alive), "readyReplicas": len([pod for pod in main.current() if is_ready(pod)])}


def _was_ready(previous: Object, generation: int) -> bool:
    """Return whether the API was ready at this generation before."""
    return any(
        c["type"] == "Ready" and c["status"] == "True" and c.get("observedGeneration") == generation
        for c in previous.get("conditions", ())
    )


def _last_failure(assessment: Assessment, previous: Object) -> Object | None:
    """Return the present failure of a pod, or else the last one.

    The API has recovered when it is ready and not degraded; a new recoveredAt is None, and the reporter sets it.
    """
    before: Object | None = previous.get("lastFailure")
    failure: Failure | None = assessment.failure
    if failure is not None and failure.pod:
        return failure.to_status()
    if before is None or "recoveredAt" in before or not assessment.ready or assessment.degraded:
        return before
    return {**before, "recoveredAt": None}


def _conditions(assessment: Assessment, generation: int, previous: Object) -> list[Object]:
    """Return all conditions; lastTransitionTime is None where the status changes, and the reporter sets it."""
    before = {condition["type"]: condition for condition in previous.get("conditions", ())}
    wanted = {
        "Ready": (assessment.ready, assessment.reason, assessment.message),
        "Available": (assessment.available, "Available" if assessment.available else assessment.reason, ""),
        "Progressing": (
            bool(assessment.progressing),
            assessment.progressing or "NotProgressing",
            assessment.message if assessment.progressing else "",
        ),
        "Degraded": (
            assessment.degraded,
            assessment.reason if assessment.degraded else "NotDegraded",
            assessment.message if assessment.degraded else "",
        ),
    }
    conditions = []
    for kind, (holds, reason, message) in wanted.items():
        status, old = "True" if holds else "False", before.get(kind, {})
        conditions.append(
            {
                "type": kind,
                "status": status,
                "reason": reason,
                "message": message,
                "observedGeneration": generation,
                "lastTransitionTime": old.get("lastTransitionTime") if old.get("status") == status else None,
            }
        )
    return conditions


def _autoscaling(api: RealtimeAPI | AsyncAPI, observed: Observed) -> Object | None:
    scaling = api.spec.autoscaling
    if scaling is None:
        return None
    deployment = observed.main.deployment or {}
    current = deployment.get("status", {}).get("replicas", 0)
    if scaling.target_cpu_utilization is None:
        metric = "in-flight" if isinstance(api, RealtimeAPI) else "queue"
        result: Object = {"provider": "builtin", "current": current, "metric": metric}
        if observed.scaling is not None and observed.scaling.desired is not None:
            result |= {"desired": observed.scaling.desired, "reason": observed.scaling.explanation}
        return result
    status = (observed.hpa or {}).get("status", {})
    result = {"provider": "hpa", "current": current, "metric": "cpu"}
    if "desiredReplicas" in status:
        result["desired"] = status["desiredReplicas"]
    for condition in status.get("conditions") or ():
        if condition["type"] in ("ScalingActive", "AbleToScale") and condition["status"] == "False":
            result["reason"] = f"{condition.get('reason', '')}: {condition.get('message', '')}"
    return result


def _queue(watched: ObservedScaling | None) -> Object | None:
    if watched is None or watched.queue is None:
        return None
    queue = watched.queue
    status: Object = {"queued": queue.queued, "inFlight": queue.in_flight}
    if queue.oldest is not None:
        status["oldest"] = datetime.fromtimestamp(queue.oldest, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return status


def component_of(pod: Object) -> str:
    """Return the component that a pod belongs to."""
    return str(pod["metadata"].get("labels", {}).get(COMPONENT_LABEL, ""))
