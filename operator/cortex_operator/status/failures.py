"""Pods and Deployment to the reason why an API does not answer, in words that its owner can act on. Pure."""

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from cortex_api import scheduling
from cortex_api.contract import HANDLER_CONTAINER, TENSORFLOW_SERVING_CONTAINER
from cortex_operator.replicas.reports import Report

Object = dict[str, Any]

RECENT_SECONDS = 300.0
"""Seconds after a failure for which an API that answers again counts as degraded."""

KILLED = 137
"""Exit code of a process that was killed by signal 9."""
_PULL_REASONS = {
    "ErrImagePull",
    "ImagePullBackOff",
    "InvalidImageName",
    "ErrImageNeverPull",
    "RegistryUnavailable",
    "ImageInspectError",
}
_CONFIG_REASONS = {"CreateContainerConfigError", "CreateContainerError", "RunContainerError"}


@dataclass(frozen=True)
class Failure:
    """Why a pod does not run.

    reason: one word. message: what is wrong and what to do. time: when the container ended, as Kubernetes wrote it.
    """

    reason: str
    message: str
    pod: str
    container: str | None = None
    exit_code: int | None = None
    time: str | None = None

    def to_status(self) -> dict[str, Any]:
        """As `status.lastFailure`."""
        fields = {
            "pod": self.pod,
            "container": self.container,
            "reason": self.reason,
            "exitCode": self.exit_code,
            "message": self.message,
            "time": self.time,
        }
        return {name: value for name, value in fields.items() if value is not None}


def of_pods(pods: list[Object]) -> Failure | None:
    """The failure that explains most: the last container that ended badly, else what keeps a pod from starting."""
    return _most_relevant([failure for pod in pods if not is_ready(pod) for failure in _of_pod(pod)])


def of_pod(pod: Object) -> Failure | None:
    """What is wrong with one pod."""
    return of_pods([pod])


def reported(pods: list[Object], reports: dict[str, Report]) -> Failure | None:
    """Why replicas that run are not ready, in their own words, or because their node is gone."""
    found = [f for pod in pods if not is_ready(pod) and (f := _of_unready(pod, reports)) is not None]
    return _most_relevant(found)


def recent(pods: list[Object], reports: dict[str, Report], now: datetime) -> Failure | None:
    """Return the last failure of pods that are ready again, unless it is older than RECENT_SECONDS."""
    found = [
        failure
        for pod in pods
        if is_ready(pod)
        for failure in (*_of_containers(pod), *_of_worker(pod, reports.get(pod["metadata"]["name"])))
        if age(failure, now) < RECENT_SECONDS
    ]
    return _most_relevant(found)


def age(failure: Failure, now: datetime) -> float:
    """Seconds since a failure; 0 for one whose time is not known."""
    if failure.time is None:
        return 0.0
    return max(0.0, (now - datetime.fromisoformat(failure.time)).total_seconds())


def _most_relevant(found: list[Failure]) -> Failure | None:
    ended = [failure for failure in found if failure.time]
    if ended:
        return max(ended, key=lambda failure: (failure.time or "", failure.pod))
    return min(found, key=lambda failure: failure.pod, default=None)


def is_ready(pod: Object) -> bool:
    """Whether a pod answers and is to stay."""
    if pod["metadata"].get("deletionTimestamp"):
        return False
    conditions = pod.get("status", {}).get("conditions", ())
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


def has_been_ready(pod: Object) -> bool:
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


def _of_pod(pod: Object) -> list[Failure]:
    if pod["metadata"].get("deletionTimestamp"):
        return []
    name, status = pod["metadata"]["name"], pod.get("status", {})
    # How a container ended before the one that was ready explains nothing about the present.
    found = [] if has_been_ready(pod) else _of_containers(pod)
    if not found and status.get("phase") == "Failed":
        reason = status.get("reason") or "the node gave no reason"
        text = f"the node ended the pod: {status.get('message') or reason}"
        found.append(Failure("Evicted", text, name))
    conditions = status.get("conditions", ())
    blocked = [c for c in conditions if c["type"] == "PodScheduled" and c["status"] == "False"]
    found.extend(_unschedulable(name, condition) for condition in blocked)
    return found


def _of_containers(pod: Object) -> list[Failure]:
    """What the containers of a pod say, and how they ended last."""
    status = pod.get("status", {})
    statuses = [*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ())]
    name = pod["metadata"]["name"]
    return [failure for container in statuses if (failure := _of_container(name, container))]


def _of_unready(pod: Object, reports: dict[str, Report]) -> Failure | None:
    """Why a pod that has been ready is so no more; or what a replica that starts again and again says."""
    if pod["metadata"].get("deletionTimestamp"):
        return None
    name = pod["metadata"]["name"]
    if _is_on_lost_node(pod):
        node = pod.get("spec", {}).get("nodeName", "its node")
        text = (
            f"node {node} does not report to the cluster, so pod {name} counts as lost. It is replaced once the node's"
            " taint evicts it, after 5 minutes unless its tolerations say otherwise: repair the node, or delete the pod"
        )
        return Failure("NodeLost", text, name)
    report = reports.get(name)
    if report is None or report.ready or report.starting or not report.reason:
        return None
    if report.reason == "Draining":
        return None
    return Failure(report.reason, report.message, name, container=HANDLER_CONTAINER)


def _is_on_lost_node(pod: Object) -> bool:
    """Whether the node controller, not the kubelet, has taken a pod's readiness: its containers still count as ready."""
    conditions = {c["type"]: c for c in pod.get("status", {}).get("conditions", ())}
    ready = conditions.get("Ready", {})
    containers = conditions.get("ContainersReady", {}).get("status")
    return ready.get("status") == "False" and containers == "True" and not ready.get("reason")


def _of_worker(pod: Object, report: Report | None) -> list[Failure]:
    if report is None or report.failure is None:
        return []
    last = report.failure
    return [
        Failure(
            last.reason, last.message, pod["metadata"]["name"], container=HANDLER_CONTAINER, time=last.time
        )
    ]


def _of_container(pod: str, container: Object) -> Failure | None:
    name = container["name"]
    waiting = container.get("state", {}).get("waiting") or {}
    reason, message = waiting.get("reason", ""), waiting.get("message", "")
    if reason in _PULL_REASONS:
        image = container.get("image", "")
        text = f'image "{image}" of container {name} can\'t be pulled: {message or reason}. Check name, tag and pull secrets.'
        if name == TENSORFLOW_SERVING_CONTAINER:
            text += (
                " Where there is none for these nodes, set tensorflowServingImage: null (tensorflowServing.image in the values of"
                " the chart): TensorFlow then runs in the API's own process."
            )
        return Failure("ImagePullFailed", text, pod, name)
    if reason in _CONFIG_REASONS:
        text = f"container {name} can't be created: {message or reason}"
        return Failure("PodConfigInvalid", text, pod, name)
    ended = container.get("state", {}).get("terminated") or container.get("lastState", {}).get("terminated")
    if not ended or (ended.get("exitCode") == 0 and reason != "CrashLoopBackOff"):
        return None
    code, when = ended.get("exitCode"), ended.get("finishedAt")
    said = (ended.get("message") or "").strip()
    cause = _runtime_cause(said)
    # The kernel may have killed a worker alone, and its supervisor said what it saw of that.
    if ended.get("reason") == "OOMKilled" and (cause is None or "SIGKILL" in cause[1]):
        text = f"container {name} was killed: it needed more memory than its limit. Raise compute.mem or need less."
        return Failure("OutOfMemory", text, pod, name, code, when)
    if cause is not None:
        return Failure(cause[0], cause[1], pod, name, code, when)
    text = f"container {name} ended with exit code {code}"
    if code == KILLED:
        text += " (killed)"
    return Failure("CrashLoop", f"{text}: {_tail(said)}" if said else text, pod, name, code, when)


def _runtime_cause(message: str) -> tuple[str, str] | None:
    """Reason and message that the runtime left in its termination log."""
    try:
        cause = json.loads(message)
        return str(cause["reason"]), str(cause["message"])
    except (ValueError, KeyError, TypeError):
        return None


def _tail(text: str, lines: int = 10) -> str:
    return "\n".join(text.splitlines()[-lines:])


def _unschedulable(pod: str, condition: Object) -> Failure:
    said = condition.get("message") or "no node has room"
    return Failure("Unschedulable", f"no node can run the pod: {scheduling.explain(said)}", pod)


def blocking_device(failure: Failure | None, older: list[Object]) -> str | None:
    """The device that keeps a new pod from starting because pods of the previous generation hold it; None when it is not that."""
    if failure is None or failure.reason != "Unschedulable":
        return None
    for pod in older:
        spec = pod["spec"]
        for container in [*spec.get("initContainers", ()), *spec["containers"]]:
            for device in container.get("resources", {}).get("limits", {}):
                if "/" in device and f"Insufficient {device}" in failure.message:
                    return str(device)
    return None


def of_deployment(deployment: Object | None) -> Failure | None:
    """Why no pod was even made: a quota, an admission policy."""
    for condition in (deployment or {}).get("status", {}).get("conditions", ()):
        if condition["type"] == "ReplicaFailure" and condition["status"] == "True":
            said = condition.get("message", "no reason given")
            if "being terminated" in said:
                return Failure(
                    "NamespaceTerminating", "the namespace is being deleted, and the API with it", ""
                )
            return Failure("PodsRefused", f"the cluster refuses the pods: {said}", "")
    return None
