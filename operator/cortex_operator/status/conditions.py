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
from cortex_operator.autoscaling.autoscaler import Watched
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
    scaling: Watched | None = None
    problem: Problem | None = None
    now: datetime = field(default_factory=lambda: datetime.now(UTC))


@dataclass(frozen=True)
class Verdict:
    """All conditions in one.

    reason, message: those of Ready, which name what is wrong also while it holds. progressing: the reason of Progressing,
    empty while it does not hold. failure: the failure of a pod that explains it. until: seconds after which the verdict may be
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


def judge(api: RealtimeAPI | AsyncAPI, observed: Observed) -> Verdict:
    """Whether the API answers as its current generation asks for, and why not."""
    if api.spec.paused:
        return Verdict(False, "Paused", "spec.paused is true: the API is out of service")
    verdict = _judge_main(api, observed)
    if observed.gateway is not None:
        verdict = _with_gateway(verdict, _judge_pods(observed.gateway, observed.now, max_unavailable=0))
    if observed.scaling is not None and observed.scaling.queue_problem:
        text = f"the queue does not answer, so no job is accepted: {observed.scaling.queue_problem}"
        reason = verdict.reason if verdict.degraded and not verdict.ready else "QueueUnreachable"
        verdict = replace(
            verdict, ready=False, available=False, reason=reason, message=text, degraded=True, progressing=""
        )
    if verdict.ready:
        verdict = _with_autoscaler(verdict, observed)
    if observed.problem is not None:
        verdict = _degraded(verdict, observed.problem)
        if observed.problem.reason == "FieldsOverwritten" and not verdict.ready:
            # What the pods run is the other writer's.
            return replace(verdict, reason=observed.problem.reason)
        if observed.problem.reason == "EndpointTaken" and verdict.ready:
            return replace(
                verdict, ready=False, reason=observed.problem.reason, message=observed.problem.message
            )
    return verdict


def may_be_terminating(observed: Observed, live: Object) -> bool:
    """Whether the namespace may be about to go: all pods end although some are wanted, as they do first then."""
    main = observed.main
    if main.deployment is None or main.deployment["spec"].get("replicas", 1) == 0:
        return False
    if any(not pod["metadata"].get("deletionTimestamp") for pod in main.pods):
        return False
    told = (live.get("status") or {}).get("conditions", ())
    return bool(main.pods) or any(c.get("reason") == NAMESPACE_TERMINATING.reason for c in told)


def refuse(problem: Problem, observed: Observed, was_ready: bool) -> Verdict:
    """The verdict on an API whose children cannot be rendered or applied.

    was_ready: whether pods of this very generation answered already. They still serve what the spec asks for, although no new
    one could be made.
    """
    components = [observed.main, *([observed.gateway] if observed.gateway is not None else [])]
    answers = all(any(map(is_ready, component.pods)) for component in components)
    ready = was_ready and all(any(map(is_ready, component.current())) for component in components)
    text = problem.message
    if answers and not ready:
        text += " (pods of a previous generation still answer)"
    return Verdict(
        ready and not problem.waits,
        problem.reason,
        text,
        available=answers,
        progressing=problem.reason if problem.waits else "",
        degraded=not problem.waits,
    )


def _judge_main(api: RealtimeAPI | AsyncAPI, observed: Observed) -> Verdict:
    main = observed.main
    if main.deployment is not None and main.deployment["spec"].get("replicas", 1) == 0:
        scaling = api.spec.autoscaling
        if isinstance(api, AsyncAPI) and scaling is not None and scaling.min_replicas == 0:
            return Verdict(
                True, "Ready", "no job waits, so no worker runs: the first job starts one", available=True
            )
        return Verdict(False, "ScaledToZero", "no replicas are wanted: spec.replicas is 0")
    return _judge_pods(main, observed.now, api.spec.update_strategy.max_unavailable)


def _with_gateway(main: Verdict, gateway: Verdict) -> Verdict:
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


def _judge_pods(component: Component, now: datetime, max_unavailable: int | str) -> Verdict:
    """Whether pods of the current template answer.

    While pods of a previous one answer as well, as many must as the rollout keeps available; a number of replicas that changes
    asks for no more than one.
    """
    deployment, current, older = component.deployment, component.current(), component.older()
    wanted = 1 if deployment is None else deployment["spec"].get("replicas", 1)
    answering = sum(map(is_ready, current))
    needed = max(1, wanted - _pods(max_unavailable, wanted)) if older else 1
    behind = f" ({len(older)} of the previous generation still answer)" if older else ""
    count = f"{answering} of {wanted} replicas answer"
    ready = answering >= needed
    verdict = Verdict(ready, "Ready", count, available=bool(answering or older))
    if (problem := _problem_of(component, answering, wanted, f"{count}{behind}")) is not None:
        failure = problem if isinstance(problem, Failure) else None
        text = problem.message if not ready else f"{count}; {problem.reason}: {problem.message}"
        if not ready and failure is not None:
            text += behind
        return replace(verdict, reason=problem.reason, message=text, degraded=True, failure=failure)
    if (past := failures.recent(current, component.reports, now)) is not None:
        verdict = replace(
            _degraded(verdict, Problem(past.reason, past.message)),
            failure=past,
            until=failures.RECENT - failures.age(past, now),
        )
    alive = [pod for pod in current if not pod["metadata"].get("deletionTimestamp")]
    if answering < wanted:
        doing = _activity(current, component.reports)
        text = f"{verdict.message}{behind}" + (f"; {doing}" if doing else "")
        why = "Updating" if older else "Scaling" if ready else "Starting"
        reason = verdict.reason if ready else why
        return replace(verdict, reason=reason, message=text, progressing=why)
    if older or len(alive) > wanted:
        return replace(
            verdict, message=f"{verdict.message}{behind}", progressing="Updating" if older else "Scaling"
        )
    return verdict


def _problem_of(component: Component, answering: int, wanted: int, count: str) -> Failure | Problem | None:
    """Why fewer pods of the current template answer than are wanted, if something is wrong. count: how many do, in words."""
    if answering >= wanted:
        return None
    failure = component.failure()
    if device := failures.holds_its_own_devices(failure, component.older()):
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
    if _has_given_up(component.deployment):
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


def _degraded(verdict: Verdict, problem: Problem) -> Verdict:
    """With one more problem; its reason is shown unless another one is already, or explains why requests are not answered."""
    shown = verdict.reason if verdict.degraded or not verdict.ready else problem.reason
    return replace(
        verdict,
        reason=shown,
        message=f"{verdict.message}; {problem.reason}: {problem.message}",
        degraded=True,
    )


def _with_autoscaler(verdict: Verdict, observed: Observed) -> Verdict:
    """Whether the autoscaler can do its work. Only asked of an API that answers: others have no load to measure."""
    found = _autoscaler_problem(observed)
    if found is None:
        return verdict
    problem, since = found
    began = [since, *_ready_since(observed.main.current())]
    waited = (observed.now - max(filter(None, began), default=observed.now)).total_seconds()
    if waited < METRICS_GRACE:
        return replace(verdict, until=min(verdict.until, METRICS_GRACE - waited))
    return _degraded(verdict, problem)


def _autoscaler_problem(observed: Observed) -> tuple[Problem, datetime | None] | None:
    """What keeps the autoscaler from working, and since when."""
    if (watched := observed.scaling) is not None and watched.blind_since is not None:
        text = (
            f"autoscaling does nothing: {watched.told}. The operator must reach port {ADMIN_PORT} of the pods:"
            " check NetworkPolicies"
        )
        return Problem("MetricsUnavailable", text), watched.blind_since
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


def _has_given_up(deployment: Object | None) -> bool:
    conditions = (deployment or {}).get("status", {}).get("conditions", ())
    return any(
        c["type"] == "Progressing" and c.get("reason") == "ProgressDeadlineExceeded" for c in conditions
    )


def _pods(share: int | str, wanted: int) -> int:
    """maxUnavailable in pods, rounded down as Deployments do."""
    return share if isinstance(share, int) else math.floor(wanted * int(share.rstrip("%")) / 100)
