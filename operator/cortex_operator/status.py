"""Observed objects to status: conditions with reason and message. Pure, and silent about time: nothing here ticks."""

import math
from dataclasses import dataclass, field
from typing import Any

from cortex_api import RealtimeAPI
from cortex_operator import failures
from cortex_operator.failures import Failure, is_ready
from cortex_operator.render.names import TEMPLATE_LABEL, selector, url

Object = dict[str, Any]


@dataclass(frozen=True)
class Problem:
    """Why an API can't even be rendered: known before any pod."""

    reason: str
    message: str


@dataclass(frozen=True)
class Observed:
    """What there is of an API in the cluster."""

    deployment: Object | None = None
    hpa: Object | None = None
    pods: list[Object] = field(default_factory=list)


@dataclass(frozen=True)
class Verdict:
    """Ready, Progressing and Degraded in one: the first says why, the others follow."""

    ready: bool
    reason: str
    message: str
    progressing: bool = False
    degraded: bool = False


def refused(live: Object, problem: Problem) -> Object:
    """The status of an API that can't be rendered; what it says of running pods stays."""
    previous = live.get("status") or {}
    verdict = Verdict(False, problem.reason, problem.message, degraded=True)
    generation = live["metadata"].get("generation", 0)
    kept = {
        name: previous[name]
        for name in ("url", "replicas", "readyReplicas", "selector", "autoscaling", "lastFailure")
        if name in previous
    }
    return {
        **kept,
        "observedGeneration": generation,
        "conditions": _conditions(verdict, generation, previous),
    }


def compute(api: RealtimeAPI, live: Object, observed: Observed) -> Object:
    """The status of an API whose children are applied."""
    previous = live.get("status") or {}
    generation = api.metadata.generation
    current = _current(observed)
    failure = failures.of_pods(current) or failures.of_deployment(observed.deployment)
    ready = [pod for pod in current if is_ready(pod)]
    verdict = judge(api, observed, failure)
    status: Object = {
        "observedGeneration": generation,
        "url": url(api),
        "replicas": len([pod for pod in observed.pods if not pod["metadata"].get("deletionTimestamp")]),
        "readyReplicas": len(ready),
        "selector": ",".join(f"{key}={value}" for key, value in selector(api).items()),
        "conditions": _conditions(verdict, generation, previous),
        "autoscaling": _autoscaling(api, observed),
    }
    if failure is not None and failure.pod:
        status["lastFailure"] = failure.to_status()
    elif "lastFailure" in previous:
        status["lastFailure"] = previous["lastFailure"]
    return {name: value for name, value in status.items() if value is not None}


def judge(api: RealtimeAPI, observed: Observed, failure: Failure | None) -> Verdict:
    """Whether enough pods of the current generation answer, and why not."""
    if api.spec.paused:
        return Verdict(False, "Paused", "spec.paused is true: the API is out of service")
    deployment = observed.deployment
    wanted = 1 if deployment is None else deployment["spec"].get("replicas", 1)
    if wanted == 0:
        return Verdict(False, "ScaledToZero", "no replicas are wanted: spec.replicas is 0")
    current = _current(observed)
    ready = sum(map(is_ready, current))
    needed = max(1, wanted - _pods(api.spec.update_strategy.max_unavailable, wanted))
    older = sum(is_ready(pod) for pod in observed.pods if pod not in current)
    count = f"{ready} of {wanted} replicas answer"
    if ready >= wanted:
        return Verdict(True, "Ready", count, progressing=older > 0)
    if ready >= needed:
        if failure is not None:
            return Verdict(True, "Ready", f"{count}; {failure.reason}: {failure.message}", degraded=True)
        return Verdict(True, "Ready", count, progressing=True)
    behind = f" ({older} of the previous generation still answer)" if older else ""
    if failure is not None:
        return Verdict(False, failure.reason, f"{failure.message}{behind}", degraded=True)
    return Verdict(False, "Starting", f"{count}{behind}", progressing=True)


def _current(observed: Observed) -> list[Object]:
    """Pods of the Deployment's current template."""
    if observed.deployment is None:
        return []
    template = observed.deployment["spec"]["template"]["metadata"]["labels"].get(TEMPLATE_LABEL)
    return [pod for pod in observed.pods if pod["metadata"].get("labels", {}).get(TEMPLATE_LABEL) == template]


def _pods(share: int | str, wanted: int) -> int:
    """maxUnavailable in pods, rounded down as Deployments do."""
    return share if isinstance(share, int) else math.floor(wanted * int(share.rstrip("%")) / 100)


def _conditions(verdict: Verdict, generation: int, previous: Object) -> list[Object]:
    """The three conditions; lastTransitionTime is left open (None) where the status is a new one, for the writer to fill."""
    before = {condition["type"]: condition for condition in previous.get("conditions", ())}
    wanted = {"Ready": verdict.ready, "Progressing": verdict.progressing, "Degraded": verdict.degraded}
    conditions = []
    for kind, holds in wanted.items():
        status = "True" if holds else "False"
        told = kind == "Ready" or holds
        old = before.get(kind, {})
        conditions.append(
            {
                "type": kind,
                "status": status,
                "reason": verdict.reason if told else f"Not{kind}",
                "message": verdict.message if told else "",
                "observedGeneration": generation,
                "lastTransitionTime": old.get("lastTransitionTime") if old.get("status") == status else None,
            }
        )
    return conditions


def _autoscaling(api: RealtimeAPI, observed: Observed) -> Object | None:
    scaling = api.spec.autoscaling
    if scaling is None:
        return None
    deployment = observed.deployment or {}
    current = deployment.get("status", {}).get("replicas", 0)
    if scaling.target_cpu_utilization is None:
        reason = "targetInFlight is not acted on by this version: the number of replicas stays as it is"
        return {"provider": "none", "current": current, "metric": "in-flight", "reason": reason}
    status = (observed.hpa or {}).get("status", {})
    result: Object = {"provider": "hpa", "current": current, "metric": "cpu"}
    if "desiredReplicas" in status:
        result["desired"] = status["desiredReplicas"]
    for metric in status.get("currentMetrics") or ():
        usage = metric.get("containerResource", {}).get("current", {}).get("averageUtilization")
        if usage is not None:
            result["value"] = f"{usage}%"
    return result
