"""Observed objects to status: conditions with reason and message. Pure, and silent about time: nothing here ticks."""

import math
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from cortex_api import AsyncAPI, RealtimeAPI
from cortex_operator import failures
from cortex_operator.failures import Failure, is_ready
from cortex_operator.render.names import COMPONENT_LABEL, TEMPLATE_LABEL, main_component, selector
from cortex_operator.scaler import Watched

Object = dict[str, Any]


@dataclass(frozen=True)
class Problem:
    """What is wrong beside the pods. reason: one word. message: what, and what to do."""

    reason: str
    message: str


@dataclass(frozen=True)
class Component:
    """One Deployment of an API and its pods, as they are in the cluster."""

    deployment: Object | None = None
    pods: list[Object] = field(default_factory=list)

    def current(self) -> list[Object]:
        """Pods of the Deployment's current template."""
        if self.deployment is None:
            return []
        template = self.deployment["spec"]["template"]["metadata"]["labels"].get(TEMPLATE_LABEL)
        labelled = [(pod["metadata"].get("labels", {}).get(TEMPLATE_LABEL), pod) for pod in self.pods]
        return [pod for label, pod in labelled if label == template]

    def older(self) -> list[Object]:
        """Pods of previous templates that still answer."""
        current = {pod["metadata"]["name"] for pod in self.current()}
        return [pod for pod in self.pods if is_ready(pod) and pod["metadata"]["name"] not in current]

    def failure(self) -> Failure | None:
        """Why pods of the current template don't run."""
        return failures.of_pods(self.current()) or failures.of_deployment(self.deployment)


@dataclass(frozen=True)
class Observed:
    """What there is of an API in the cluster.

    main: the component that runs the user's code. gateway: the front of an AsyncAPI. scaling: what the operator's own
    autoscaler knows. url: where the API is reached. problem: what of its surroundings could not be made.
    """

    url: str = ""
    main: Component = field(default_factory=Component)
    gateway: Component | None = None
    hpa: Object | None = None
    scaling: Watched | None = None
    problem: Problem | None = None


@dataclass(frozen=True)
class Verdict:
    """Ready, Progressing and Degraded in one: the first says why, the others follow."""

    ready: bool
    reason: str
    message: str
    progressing: bool = False
    degraded: bool = False


def refused(live: Object, problem: Problem) -> Object:
    """The status of an API that can't be rendered or applied; what it says of running pods stays."""
    previous = live.get("status") or {}
    verdict = Verdict(False, problem.reason, problem.message, degraded=True)
    generation = live["metadata"].get("generation", 0)
    kept = {
        name: previous[name]
        for name in (
            "url",
            "replicas",
            "readyReplicas",
            "selector",
            "autoscaling",
            "queue",
            "queueName",
            "lastFailure",
        )
        if name in previous
    }
    return {
        **kept,
        "observedGeneration": generation,
        "conditions": _conditions(verdict, generation, previous),
    }


def compute(api: RealtimeAPI | AsyncAPI, live: Object, observed: Observed) -> Object:
    """The status of an API whose children are applied."""
    previous = live.get("status") or {}
    generation = api.metadata.generation
    main = observed.main
    verdict = judge(api, observed)
    failure = main.failure() or (observed.gateway.failure() if observed.gateway else None)
    chosen = selector(api, main_component(api))
    status: Object = {
        "observedGeneration": generation,
        "url": observed.url,
        "replicas": len([pod for pod in main.pods if not pod["metadata"].get("deletionTimestamp")]),
        "readyReplicas": len([pod for pod in main.current() if is_ready(pod)]),
        "selector": ",".join(f"{key}={value}" for key, value in chosen.items()),
        "conditions": _conditions(verdict, generation, previous),
        "autoscaling": _autoscaling(api, observed),
        "queue": _queue(observed.scaling),
        "queueName": (api.spec.queue.name or api.metadata.name) if isinstance(api, AsyncAPI) else None,
    }
    if failure is not None and failure.pod:
        status["lastFailure"] = failure.to_status()
    elif "lastFailure" in previous:
        status["lastFailure"] = previous["lastFailure"]
    return {name: value for name, value in status.items() if value is not None}


def judge(api: RealtimeAPI | AsyncAPI, observed: Observed) -> Verdict:
    """Whether the API answers as its current generation wants it, and why not."""
    if api.spec.paused:
        return Verdict(False, "Paused", "spec.paused is true: the API is out of service")
    verdict = _judge_main(api, observed.main)
    if observed.gateway is not None:
        gateway = _judge_pods(observed.gateway, max_unavailable=0, least=1)
        if verdict.ready and not gateway.ready:
            verdict = Verdict(
                False, gateway.reason, f"gateway: {gateway.message}", gateway.progressing, gateway.degraded
            )
    if observed.problem is not None:
        reason, message = observed.problem.reason, observed.problem.message
        if reason == "EndpointTaken" and verdict.ready:
            return Verdict(False, reason, message, verdict.progressing, degraded=True)
        return Verdict(
            verdict.ready,
            verdict.reason,
            f"{verdict.message}; {reason}: {message}",
            verdict.progressing,
            True,
        )
    return verdict


def _judge_main(api: RealtimeAPI | AsyncAPI, main: Component) -> Verdict:
    if main.deployment is not None and main.deployment["spec"].get("replicas", 1) == 0:
        scaling = api.spec.autoscaling
        if isinstance(api, AsyncAPI) and scaling is not None and scaling.min_replicas == 0:
            return Verdict(True, "Ready", "no job waits, so no worker runs: the first job starts one")
        return Verdict(False, "ScaledToZero", "no replicas are wanted: spec.replicas is 0")
    return _judge_pods(main, api.spec.update_strategy.max_unavailable)


def _judge_pods(component: Component, max_unavailable: int | str, least: int | None = None) -> Verdict:
    """Whether enough pods of the current template answer. least: how many are enough; as maxUnavailable says when absent."""
    deployment = component.deployment
    wanted = 1 if deployment is None else deployment["spec"].get("replicas", 1)
    current, older = component.current(), component.older()
    ready = sum(map(is_ready, current))
    needed = max(1, wanted - _pods(max_unavailable, wanted)) if least is None else least
    failure = component.failure()
    count = f"{ready} of {wanted} replicas answer"
    if ready >= wanted:
        return Verdict(True, "Ready", count, progressing=bool(older))
    if ready >= needed:
        if failure is not None:
            return Verdict(True, "Ready", f"{count}; {failure.reason}: {failure.message}", degraded=True)
        return Verdict(True, "Ready", count, progressing=True)
    behind = f" ({len(older)} of the previous generation still answer)" if older else ""
    if device := failures.holds_its_own_devices(failure, older):
        text = (
            f"the new pod waits for {device}, which the pods of the previous generation hold until it answers{behind}."
            " Set updateStrategy {maxSurge: 0, maxUnavailable: 1} to have them go first, or add a node."
        )
        return Verdict(False, "RolloutBlocked", text, degraded=True)
    if failure is not None:
        return Verdict(False, failure.reason, f"{failure.message}{behind}", degraded=True)
    silent = [pod for pod in current if not is_ready(pod) and _has_been_ready(pod)]
    if silent and not older:
        name = silent[0]["metadata"]["name"]
        text = f"{count}: pod {name} runs but says that it isn't ready; its log tells why"
        return Verdict(False, "NotAnswering", text, degraded=True)
    if _gave_up(deployment):
        text = f"{count}{behind}: no new pod became ready within the time that a rollout may take"
        return Verdict(False, "RolloutStuck", text, degraded=True)
    return Verdict(False, "Starting", f"{count}{behind}", progressing=True)


def _has_been_ready(pod: Object) -> bool:
    """Whether a pod has been ready since its container started, so that it lost it again.

    `started` alone says too much: a kubelet reports it some moments before the first readiness.
    """
    if pod["metadata"].get("deletionTimestamp"):
        return False
    status = pod.get("status", {})
    containers = status.get("containerStatuses", ())
    if not containers or not all(container.get("started") for container in containers):
        return False
    begun = max(c.get("state", {}).get("running", {}).get("startedAt") or "" for c in containers)
    return any(
        c["type"] == "Ready" and c.get("lastTransitionTime", "") > begun for c in status.get("conditions", ())
    )


def _gave_up(deployment: Object | None) -> bool:
    conditions = (deployment or {}).get("status", {}).get("conditions", ())
    return any(
        c["type"] == "Progressing" and c.get("reason") == "ProgressDeadlineExceeded" for c in conditions
    )


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
            result |= {"desired": observed.scaling.desired, "reason": observed.scaling.told}
        return result
    status = (observed.hpa or {}).get("status", {})
    result = {"provider": "hpa", "current": current, "metric": "cpu"}
    if "desiredReplicas" in status:
        result["desired"] = status["desiredReplicas"]
    for condition in status.get("conditions") or ():
        if condition["type"] in ("ScalingActive", "AbleToScale") and condition["status"] == "False":
            result["reason"] = f"{condition.get('reason', '')}: {condition.get('message', '')}"
    return result


def _queue(watched: Watched | None) -> Object | None:
    if watched is None or watched.queue is None:
        return None
    queue = watched.queue
    status: Object = {"queued": queue.queued, "inFlight": queue.in_flight}
    if queue.oldest is not None:
        status["oldest"] = datetime.fromtimestamp(queue.oldest, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return status


def component_of(pod: Object) -> str:
    """The component that a pod belongs to."""
    return str(pod["metadata"].get("labels", {}).get(COMPONENT_LABEL, ""))
