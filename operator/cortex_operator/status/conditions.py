"""Observed objects to the conditions of an API. Pure; docs/troubleshooting.md has the table of what each situation means.

- Ready: requests are answered by pods of the current generation. Another number of replicas is no other generation.
- Available: requests are answered, by pods of whichever generation.
- Progressing: the API is on its way to what its spec asks for, without help.
- Degraded: something is wrong, or went wrong within the last five minutes, even while the API answers.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from cortex_api import AsyncAPI, RealtimeAPI
from cortex_api.contract import ADMIN_PORT, TEMPLATE_LABEL
from cortex_operator.autoscaling.autoscaler import ObservedScaling
from cortex_operator.replicas import reports
from cortex_operator.replicas.reports import Report
from cortex_operator.status import failures
from cortex_operator.status.failures import Failure, is_ready

Object = dict[str, Any]

METRICS_GRACE = 90.0
"""Seconds after the first pod became ready, or after metrics stopped, for which an autoscaler may be without them: metrics-server
reads each kubelet every 15 s, and an HPA looks every 15 s.
"""


@dataclass(frozen=True)
class Problem:
    """What is wrong besides the pods. reason: one word. message: what, and what to do. waits: whether time alone solves it."""

    reason: str
    message: str
    waits: bool = False


NAMESPACE_TERMINATING = Problem(
    "NamespaceTerminating", "the namespace is being deleted, and the API with it", waits=True
)


@dataclass(frozen=True)
class Component:
    """One Deployment of an API and its pods, as they are in the cluster. reports: what replicas say, by name of the pod."""

    deployment: Object | None = None
    pods: list[Object] = field(default_factory=list)
    reports: dict[str, Report] = field(default_factory=dict)

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
        """Why pods of the current template do not answer."""
        current = self.current()
        return (
            failures.of_pods(current)
            or failures.of_deployment(self.deployment)
            or failures.reported(current, self.reports)
        )


@dataclass(frozen=True)
class Observed:
    """The existing objects of an API.

    main: the component that runs the user's code. gateway: the front of an AsyncAPI. scaling: what the operator's own
    autoscaler found out. url: where the API is reached. problem: what of its surroundings could not be made.
    """

    url: str = ""
    main: Component = field(default_factory=Component)
    gateway: Component | None = None
    hpa: Object | None = None
    scaling: ObservedScaling | None = None
    problem: Problem | None = None
    now: datetime = field(default_factory=lambda: datetime.now(UTC))


@dataclass(frozen=True)
class Assessment:
    """All conditions in one.

    reason, message: those of Ready, which name what is wrong also while it holds. progressing: the reason of Progressing,
    empty while it does not hold. failure: the failure of a pod that explains it. until: seconds after which the assessment may be
    another one though no object changes.
    """

    ready: bool
    reason: str
    message: str
    available: bool = False
    progressing: str = ""
    degraded: bool = False
    failure: Failure | None = None
    until: float = math.inf


def assess(api: RealtimeAPI | AsyncAPI, observed: Observed) -> Assessment:
    """Whether the API answers as its current generation asks for, and why not."""
    if api.spec.paused:
        return Assessment(False, "Paused", "spec.paused is true: the API is out of service")
    assessment = _assess_main(api, observed)
    if observed.gateway is not None:
        assessment = _with_gateway(
            assessment, _assess_pods(observed.gateway, observed.now, max_unavailable=0)
        )
    if observed.scaling is not None and observed.scaling.queue_problem:
        text = f"the queue does not answer, so no job is accepted: {observed.scaling.queue_problem}"
        reason = assessment.reason if assessment.degraded and not assessment.ready else "QueueUnreachable"
        assessment = replace(
            assessment,
            ready=False,
            available=False,
            reason=reason,
            message=text,
            degraded=True,
            progressing="",
        )
    if assessment.ready:
        assessment = _with_autoscaler(assessment, observed)
    if observed.problem is not None:
        assessment = _degraded(assessment, observed.problem)
        if observed.problem.reason == "FieldsOverwritten" and not assessment.ready:
            # What the pods run is the other writer's.
            return replace(assessment, reason=observed.problem.reason)
        if observed.problem.reason == "EndpointTaken" and assessment.ready:
            return replace(
                assessment, ready=False, reason=observed.problem.reason, message=observed.problem.message
            )
    return assessment


def may_be_terminating(observed: Observed, live: Object) -> bool:
    """Whether the namespace may be about to go: all pods end although some are wanted, as they do first then."""
    main = observed.main
    if main.deployment is None or main.deployment["spec"].get("replicas", 1) == 0:
        return False
    if any(not pod["metadata"].get("deletionTimestamp") for pod in main.pods):
        return False
    told = (live.get("status") or {}).get("conditions", ())
    return bool(main.pods) or any(c.get("reason") == NAMESPACE_TERMINATING.reason for c in told)


def assess_rejected(problem: Problem, observed: Observed, was_ready: bool) -> Assessment:
    """The assessment on an API whose children cannot be rendered or applied.

    was_ready: whether pods of this very generation answered already. They still serve what the spec asks for, although no new
    one could be made.
    """
    components = [observed.main, *([observed.gateway] if observed.gateway is not None else [])]
    answers = all(any(map(is_ready, component.pods)) for component in components)
    ready = was_ready and all(any(map(is_ready, component.current())) for component in components)
    text = problem.message
    if answers and not ready:
        text += " (pods of a previous generation still ready)"
    return Assessment(
        ready and not problem.waits,
        problem.reason,
        text,
        available=answers,
        progressing=problem.reason if problem.waits else "",
        degraded=not problem.waits,
    )


def _assess_main(api: RealtimeAPI | AsyncAPI, observed: Observed) -> Assessment:
    main = observed.main
    if main.deployment is not None and main.deployment["spec"].get("replicas", 1) == 0:
        scaling = api.spec.autoscaling
        if isinstance(api, AsyncAPI) and scaling is not None and scaling.min_replicas == 0:
            return Assessment(
                True, "Ready", "no job waits, so no worker runs: the first job starts one", available=True
            )
        return Assessment(False, "ScaledToZero", "no replicas are wanted: spec.replicas is 0")
    return _assess_pods(main, observed.now, api.spec.update_strategy.max_unavailable)


def _with_gateway(main: Assessment, gateway: Assessment) -> Assessment:
    """An AsyncAPI answers when both its gateway and its workers do."""
    both = replace(
        main,
        available=main.available and gateway.available,
        progressing=main.progressing or gateway.progressing,
        until=min(main.until, gateway.until),
        failure=main.failure or gateway.failure,
    )
    if main.ready and not gateway.ready:
        return replace(
            both,
            ready=False,
            reason=gateway.reason,
            message=f"gateway: {gateway.message}",
            degraded=main.degraded or gateway.degraded,
        )
    if gateway.degraded:
        return _degraded(both, Problem(gateway.reason, f"gateway: {gateway.message}"))
    return both


def _assess_pods(component: Component, now: datetime, max_unavailable: int | str) -> Assessment:
    """Whether pods of the current template answer.

    While pods of a previous one answer as well, as many must as the rollout keeps available; a number of replicas that changes
    asks for no more than one.
    """
    deployment, current, older = component.deployment, component.current(), component.older()
    wanted = 1 if deployment is None else deployment["spec"].get("replicas", 1)
    answering = sum(map(is_ready, current))
    needed = max(1, wanted - _pods(max_unavailable, wanted)) if older else 1
    behind = f" ({len(older)} of the previous generation still ready)" if older else ""
    count = f"{answering} of {wanted} replicas are ready"
    ready = answering >= needed
    assessment = Assessment(ready, "Ready", count, available=bool(answering or older))
    if (problem := _problem_of(component, answering, wanted, f"{count}{behind}")) is not None:
        failure = problem if isinstance(problem, Failure) else None
        text = problem.message if not ready else f"{count}; {problem.reason}: {problem.message}"
        if not ready and failure is not None:
            text += behind
        return replace(assessment, reason=problem.reason, message=text, degraded=True, failure=failure)
    if (past := failures.recent(current, component.reports, now)) is not None:
        assessment = replace(
            _degraded(assessment, Problem(past.reason, past.message)),
            failure=past,
            until=failures.RECENT_SECONDS - failures.age(past, now),
        )
    alive = [pod for pod in current if not pod["metadata"].get("deletionTimestamp")]
    if answering < wanted:
        doing = _activity(current, component.reports)
        text = f"{assessment.message}{behind}" + (f"; {doing}" if doing else "")
        why = "Updating" if older else "Scaling" if ready else "Starting"
        reason = assessment.reason if ready else why
        return replace(assessment, reason=reason, message=text, progressing=why)
    if older or len(alive) > wanted:
        return replace(
            assessment,
            message=f"{assessment.message}{behind}",
            progressing="Updating" if older else "Scaling",
        )
    return assessment


def _problem_of(component: Component, answering: int, wanted: int, count: str) -> Failure | Problem | None:
    """Why fewer pods of the current template answer than are wanted, if something is wrong. count: how many do, in words."""
    if answering >= wanted:
        return None
    failure = component.failure()
    if device := failures.blocking_device(failure, component.older()):
        text = (
            f"the new pod waits for {device}, which the pods of the previous generation hold until it answers: {count}."
            " Set updateStrategy {maxSurge: 0, maxUnavailable: 1} to have them go first, or add a node."
        )
        return Problem("RolloutBlocked", text)
    if failure is not None:
        return failure
    silent = [pod for pod in component.current() if not is_ready(pod) and failures.has_been_ready(pod)]
    if silent:
        name = silent[0]["metadata"]["name"]
        return Problem(
            "NotAnswering", f"{count}: pod {name} runs but reports that it is not ready; its log says why"
        )
    if _deadline_exceeded(component.deployment):
        doing = _activity(component.current(), component.reports)
        text = f"{count}: no new pod became ready within the time that a rollout may take"
        return Problem("RolloutStuck", f"{text}; {doing}" if doing else text)
    return None


def _activity(pods: Iterable[Object], said: dict[str, Report]) -> str:
    """What the first of the pods that do not answer yet is doing."""
    for pod in sorted(pods, key=lambda pod: str(pod["metadata"]["name"])):
        if not is_ready(pod) and not pod["metadata"].get("deletionTimestamp"):
            return reports.activity(pod, said.get(pod["metadata"]["name"]))
    return ""


def _degraded(assessment: Assessment, problem: Problem) -> Assessment:
    """With one more problem; its reason is shown unless another one is already, or explains why requests are not answered."""
    shown = assessment.reason if assessment.degraded or not assessment.ready else problem.reason
    return replace(
        assessment,
        reason=shown,
        message=f"{assessment.message}; {problem.reason}: {problem.message}",
        degraded=True,
    )


def _with_autoscaler(assessment: Assessment, observed: Observed) -> Assessment:
    """Whether the autoscaler can do its work. Only asked of an API that answers: others have no load to measure."""
    found = _autoscaler_problem(observed)
    if found is None:
        return assessment
    problem, since = found
    began = [since, *_ready_since(observed.main.current())]
    waited = (observed.now - max(filter(None, began), default=observed.now)).total_seconds()
    if waited < METRICS_GRACE:
        return replace(assessment, until=min(assessment.until, METRICS_GRACE - waited))
    return _degraded(assessment, problem)


def _autoscaler_problem(observed: Observed) -> tuple[Problem, datetime | None] | None:
    """What keeps the autoscaler from working, and since when."""
    if (watched := observed.scaling) is not None and watched.no_metrics_since is not None:
        text = (
            f"autoscaling does nothing: {watched.told}. The operator must reach port {ADMIN_PORT} of the pods:"
            " check NetworkPolicies"
        )
        return Problem("MetricsUnavailable", text), watched.no_metrics_since
    for condition in (observed.hpa or {}).get("status", {}).get("conditions") or ():
        reason, said = condition.get("reason", ""), condition.get("message", "")
        if condition["status"] != "False" or reason == "ScalingDisabled":
            continue
        since = condition.get("lastTransitionTime")
        began = datetime.fromisoformat(since) if since else None
        if condition["type"] == "ScalingActive" and not reason.endswith("Selector"):
            text = f"autoscaling on CPU does nothing, the replicas stay as they are: {said}. {_metrics_advice(said)}"
            return Problem("MetricsUnavailable", text), began
        if condition["type"] in ("AbleToScale", "ScalingActive"):
            text = f"the HorizontalPodAutoscaler cannot scale the API: {reason}: {said}"
            return Problem("AutoscalerFailed", text), began
    return None


def _metrics_advice(said: str) -> str:
    """What to do about an HPA without metrics."""
    if "missing request for" in said or "missing pod-level request" in said:
        return "Set compute.cpu, and a CPU request for each container that spec.pod adds."
    if "could not find the requested resource" in said:
        return "Install metrics-server: the cluster does not serve metrics.k8s.io."
    if "unable to fetch metrics" in said:
        return "metrics-server does not answer: look at its pods and at APIService v1beta1.metrics.k8s.io."
    return "Check that metrics-server runs and reads the kubelets: `kubectl top pods` must show the pods."


def _ready_since(pods: Iterable[Object]) -> list[datetime]:
    """Since when the pod that has been ready for longest is ready; empty when none is."""
    times = [
        condition["lastTransitionTime"]
        for pod in pods
        if is_ready(pod)
        for condition in pod["status"]["conditions"]
        if condition["type"] == "Ready" and condition.get("lastTransitionTime")
    ]
    return [datetime.fromisoformat(min(times))] if times else []


def _deadline_exceeded(deployment: Object | None) -> bool:
    conditions = (deployment or {}).get("status", {}).get("conditions", ())
    return any(
        c["type"] == "Progressing" and c.get("reason") == "ProgressDeadlineExceeded" for c in conditions
    )


def _pods(share: int | str, wanted: int) -> int:
    """maxUnavailable in pods, rounded down as Deployments do."""
    return share if isinstance(share, int) else math.floor(wanted * int(share.rstrip("%")) / 100)
