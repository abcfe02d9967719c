"""Compute the conditions of an API from its live objects. Pure; docs/troubleshooting.md lists every situation.

- Ready: pods of the current generation serve requests. Scaling does not change the generation.
- Available: pods of any generation serve requests.
- Progressing: the API is moving towards its spec, without help.
- Degraded: something is wrong, or was within the last five minutes, even while requests are served.
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
"""Seconds after the first pod became ready, or after metrics stopped, for which missing metrics are normal: metrics-server
scrapes each kubelet every 15 s, and an HPA syncs every 15 s.
"""


@dataclass(frozen=True)
class Problem:
    """A problem outside of the pods. reason: one word. message: what is wrong and what to do. is_transient: whether it passes
    without help."""

    reason: str
    message: str
    is_transient: bool = False


NAMESPACE_TERMINATING = Problem("NamespaceTerminating", "the namespace is being deleted", is_transient=True)


@dataclass(frozen=True)
class Component:
    """A Deployment of an API and its pods. reports: what the replicas report, by name of the pod."""

    deployment: Object | None = None
    pods: list[Object] = field(default_factory=list)
    reports: dict[str, Report] = field(default_factory=dict)

    def current(self) -> list[Object]:
        """Return the pods of the Deployment's current template."""
        if self.deployment is None:
            return []
        template = self.deployment["spec"]["template"]["metadata"]["labels"].get(TEMPLATE_LABEL)
        labelled = [(pod["metadata"].get("labels", {}).get(TEMPLATE_LABEL), pod) for pod in self.pods]
        return [pod for label, pod in labelled if label == template]

    def older(self) -> list[Object]:
        """Return the ready pods of previous templates."""
        current = {pod["metadata"]["name"] for pod in self.current()}
        return [pod for pod in self.pods if is_ready(pod) and pod["metadata"]["name"] not in current]

    def failure(self) -> Failure | None:
        """Return why pods of the current template are not ready."""
        current = self.current()
        return (
            failures.of_pods(current)
            or failures.of_deployment(self.deployment)
            or failures.reported(current, self.reports)
        )


@dataclass(frozen=True)
class Observed:
    """The existing objects of an API.

    url: the address of the API. main: the component that runs the user's code. gateway: that of an AsyncAPI. scaling: the state
    of the operator's own autoscaler. problem: what is wrong with the other objects of the API.
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
    """All conditions of an API.

    reason, message: those of Ready; they name what is wrong also while Ready is true. progressing: the reason of Progressing,
    empty while it is false. failure: the failure of a pod that is the cause. until: seconds after which the assessment may
    change although no object does.
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
    """Assess an API whose objects are applied."""
    if api.spec.paused:
        return Assessment(False, "Paused", "spec.paused is true: no pods run")
    assessment = _assess_main(api, observed)
    if observed.gateway is not None:
        assessment = _with_gateway(
            assessment, _assess_pods(observed.gateway, observed.now, max_unavailable=0)
        )
    if observed.scaling is not None and observed.scaling.queue_problem:
        text = f"the queue cannot be reached, so jobs are not accepted: {observed.scaling.queue_problem}"
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
            # The other writer may be the cause.
            return replace(assessment, reason=observed.problem.reason)
        if observed.problem.reason == "EndpointTaken" and assessment.ready:
            return replace(
                assessment, ready=False, reason=observed.problem.reason, message=observed.problem.message
            )
    return assessment


def may_be_terminating(observed: Observed, live: Object) -> bool:
    """Return whether the namespace may be terminating: all pods are being deleted although some are wanted."""
    main = observed.main
    if main.deployment is None or main.deployment["spec"].get("replicas", 1) == 0:
        return False
    if any(not pod["metadata"].get("deletionTimestamp") for pod in main.pods):
        return False
    conditions = (live.get("status") or {}).get("conditions", ())
    return bool(main.pods) or any(c.get("reason") == NAMESPACE_TERMINATING.reason for c in conditions)


def assess_rejected(problem: Problem, observed: Observed, was_ready: bool) -> Assessment:
    """Assess an API whose objects cannot be rendered or applied.

    was_ready: whether the API was ready at this generation. Its pods still serve the current spec then, although no new pod can
    be created.
    """
    components = [observed.main, *([observed.gateway] if observed.gateway is not None else [])]
    is_available = all(any(map(is_ready, component.pods)) for component in components)
    ready = was_ready and all(any(map(is_ready, component.current())) for component in components)
    text = problem.message
    if is_available and not ready:
        text += " (pods of a previous generation are still ready)"
    return Assessment(
        ready and not problem.is_transient,
        problem.reason,
        text,
        available=is_available,
        progressing=problem.reason if problem.is_transient else "",
        degraded=not problem.is_transient,
    )


def _assess_main(api: RealtimeAPI | AsyncAPI, observed: Observed) -> Assessment:
    main = observed.main
    if main.deployment is not None and main.deployment["spec"].get("replicas", 1) == 0:
        scaling = api.spec.autoscaling
        if isinstance(api, AsyncAPI) and scaling is not None and scaling.min_replicas == 0:
            return Assessment(
                True,
                "Ready",
                "no jobs are queued, so no workers run: the first job starts one",
                available=True,
            )
        return Assessment(False, "ScaledToZero", "spec.replicas is 0")
    return _assess_pods(main, observed.now, api.spec.update_strategy.max_unavailable)


def _with_gateway(main: Assessment, gateway: Assessment) -> Assessment:
    """Combine both components of an AsyncAPI, which is ready when both are."""
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
    """Assess the pods of one component.

    During a rollout as many pods of the current template must be ready as the rollout keeps available; otherwise one is enough,
    so that scaling does not make an API unready.
    """
    deployment, current, older = component.deployment, component.current(), component.older()
    wanted = 1 if deployment is None else deployment["spec"].get("replicas", 1)
    ready_pods = sum(map(is_ready, current))
    needed = max(1, wanted - _pod_count(max_unavailable, wanted)) if older else 1
    previous = f" ({len(older)} of the previous generation still ready)" if older else ""
    count = f"{ready_pods} of {wanted} replicas are ready"
    ready = ready_pods >= needed
    assessment = Assessment(ready, "Ready", count, available=bool(ready_pods or older))
    if (problem := _problem_of(component, ready_pods, wanted, f"{count}{previous}")) is not None:
        failure = problem if isinstance(problem, Failure) else None
        text = problem.message if not ready else f"{count}; {problem.reason}: {problem.message}"
        if not ready and failure is not None:
            text += previous
        return replace(assessment, reason=problem.reason, message=text, degraded=True, failure=failure)
    if (past := failures.recent(current, component.reports, now)) is not None:
        assessment = replace(
            _degraded(assessment, Problem(past.reason, past.message)),
            failure=past,
            until=failures.RECENT_SECONDS - failures.age(past, now),
        )
    alive = [pod for pod in current if not pod["metadata"].get("deletionTimestamp")]
    if ready_pods < wanted:
        doing = _activity(current, component.reports)
        text = f"{assessment.message}{previous}" + (f"; {doing}" if doing else "")
        why = "Updating" if older else "Scaling" if ready else "Starting"
        reason = assessment.reason if ready else why
        return replace(assessment, reason=reason, message=text, progressing=why)
    if older or len(alive) > wanted:
        return replace(
            assessment,
            message=f"{assessment.message}{previous}",
            progressing="Updating" if older else "Scaling",
        )
    return assessment


def _problem_of(component: Component, ready_pods: int, wanted: int, count: str) -> Failure | Problem | None:
    """Return what keeps pods of the current template from being ready, if anything is wrong. count: how many are ready, in
    words."""
    if ready_pods >= wanted:
        return None
    failure = component.failure()
    if device := failures.blocking_device(failure, component.older()):
        text = (
            f"the new pod needs {device}, which the pods of the previous generation hold until it is ready: {count}."
            " Set updateStrategy {maxSurge: 0, maxUnavailable: 1} to stop an old pod first, or add a node."
        )
        return Problem("RolloutBlocked", text)
    if failure is not None:
        return failure
    unready = [pod for pod in component.current() if not is_ready(pod) and failures.has_been_ready(pod)]
    if unready:
        name = unready[0]["metadata"]["name"]
        return Problem("NotAnswering", f"{count}: pod {name} runs but is no longer ready; see its log")
    if _deadline_exceeded(component.deployment):
        doing = _activity(component.current(), component.reports)
        text = f"{count}: no new pod became ready before the progress deadline"
        return Problem("RolloutStuck", f"{text}; {doing}" if doing else text)
    return None


def _activity(pods: Iterable[Object], pod_reports: dict[str, Report]) -> str:
    """Return what the first pod that is not ready is doing."""
    for pod in sorted(pods, key=lambda pod: str(pod["metadata"]["name"])):
        if not is_ready(pod) and not pod["metadata"].get("deletionTimestamp"):
            return reports.activity(pod, pod_reports.get(pod["metadata"]["name"]))
    return ""


def _degraded(assessment: Assessment, problem: Problem) -> Assessment:
    """Add a problem. Its reason becomes that of Ready unless the API has a more important one."""
    shown = assessment.reason if assessment.degraded or not assessment.ready else problem.reason
    return replace(
        assessment,
        reason=shown,
        message=f"{assessment.message}; {problem.reason}: {problem.message}",
        degraded=True,
    )


def _with_autoscaler(assessment: Assessment, observed: Observed) -> Assessment:
    """Add what keeps the autoscaler from working. Only for a ready API: others have no load to measure."""
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
    """Return what keeps the autoscaler from working, and since when."""
    if (watched := observed.scaling) is not None and watched.no_metrics_since is not None:
        text = (
            f"autoscaling is inactive: {watched.explanation}. The operator must reach port {ADMIN_PORT} of the pods:"
            " check NetworkPolicies"
        )
        return Problem("MetricsUnavailable", text), watched.no_metrics_since
    for condition in (observed.hpa or {}).get("status", {}).get("conditions") or ():
        reason, message = condition.get("reason", ""), condition.get("message", "")
        if condition["status"] != "False" or reason == "ScalingDisabled":
            continue
        since = condition.get("lastTransitionTime")
        began = datetime.fromisoformat(since) if since else None
        if condition["type"] == "ScalingActive" and not reason.endswith("Selector"):
            text = f"autoscaling on CPU is inactive, the number of replicas stays as it is: {message}. {_metrics_advice(message)}"
            return Problem("MetricsUnavailable", text), began
        if condition["type"] in ("AbleToScale", "ScalingActive"):
            text = f"the HorizontalPodAutoscaler cannot scale the API: {reason}: {message}"
            return Problem("AutoscalerFailed", text), began
    return None


def _metrics_advice(message: str) -> str:
    """Return what to do about an HPA without metrics."""
    if "missing request for" in message or "missing pod-level request" in message:
        return "Set compute.cpu, and a CPU request for each container that spec.pod adds."
    if "could not find the requested resource" in message:
        return "Install metrics-server: the cluster does not serve metrics.k8s.io."
    if "unable to fetch metrics" in message:
        return "metrics-server does not respond: check its pods and APIService v1beta1.metrics.k8s.io."
    return "Check that metrics-server runs and scrapes the kubelets: `kubectl top pods` must list the pods."


def _ready_since(pods: Iterable[Object]) -> list[datetime]:
    """Return when the pod that has been ready for longest became ready; empty when no pod is ready."""
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


def _pod_count(share: int | str, wanted: int) -> int:
    """Return maxUnavailable in pods, rounded down as Deployments do."""
    return share if isinstance(share, int) else math.floor(wanted * int(share.rstrip("%")) / 100)
