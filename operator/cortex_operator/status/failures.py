"""Find why pods are not ready, in words that the owner of the API can act on. Pure."""

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from cortex_api import scheduler_messages
from cortex_api.contract import HANDLER_CONTAINER, TENSORFLOW_SERVING_CONTAINER
from cortex_operator.replicas.reports import Report

Object = dict[str, Any]

RECENT_SECONDS = 300.0
"""Seconds after a failure for which an API that is ready again counts as degraded."""

KILLED = 137
"""Exit code after SIGKILL."""
_PULL_REASONS = {
    "ErrImagePull",
    "ImagePullBackOff",
    "InvalidImageName",
    "ErrImageNeverPull",
    "RegistryUnavailable",
    "ImageInspectError",
}
_WHILE_SERVING = {"OutOfMemory", "CrashLoop", "WorkerHung", "NotAnswering"}
"""Reasons with which a container exits that has served; all others are causes of a failed start."""
_CONFIG_REASONS = {"CreateContainerConfigError", "CreateContainerError", "RunContainerError"}


@dataclass(frozen=True)
class Failure:
    """Why a pod is not ready.

    reason: one word. message: what is wrong and what to do. time: when the container exited, in RFC 3339.
    """

    reason: str
    message: str
    pod: str
    container: str | None = None
    exit_code: int | None = None
    time: str | None = None

    def to_status(self) -> dict[str, Any]:
        """Return the value of `status.lastFailure`."""
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
    """Return the most relevant failure: the last container that failed, or else what keeps a pod from starting."""
    return _most_relevant([failure for pod in pods if not is_ready(pod) for failure in _of_pod(pod)])


def of_pod(pod: Object) -> Failure | None:
    """Return what is wrong with one pod."""
    return of_pods([pod])


def reported(pods: list[Object], reports: dict[str, Report]) -> Failure | None:
    """Return why running replicas are not ready: what they report, or the loss of their node."""
    found = [f for pod in pods if not is_ready(pod) and (f := _of_unready(pod, reports)) is not None]
    return _most_relevant(found)


def recent(pods: list[Object], reports: dict[str, Report], now: datetime) -> Failure | None:
    """Return the last failure of pods that are ready again, unless it is older than RECENT_SECONDS.

    A container that failed to start and has started since is not degraded: nothing that answered has failed.
    """
    found: list[Failure] = []
    for pod in filter(is_ready, pods):
        found += [failure for failure in _of_containers(pod) if failure.reason in _WHILE_SERVING]
        found += _of_worker(pod, reports.get(pod["metadata"]["name"]))
    return _most_relevant([failure for failure in found if age(failure, now) < RECENT_SECONDS])


def age(failure: Failure, now: datetime) -> float:
    """Return the seconds since a failure; 0 when its time is unknown."""
    if failure.time is None:
        return 0.0
    return max(0.0, (now - datetime.fromisoformat(failure.time)).total_seconds())


def _most_relevant(found: list[Failure]) -> Failure | None:
    ended = [failure for failure in found if failure.time]
    if ended:
        return max(ended, key=lambda failure: (failure.time or "", failure.pod))
    return min(found, key=lambda failure: failure.pod, default=None)


def is_ready(pod: Object) -> bool:
    """Return whether a pod is ready and not being deleted."""
    return not pod["metadata"].get("deletionTimestamp") and serves(pod)


def serves(pod: Object) -> bool:
    """Return whether a pod is ready. A pod that is being deleted still is, until it has ended its requests."""
    conditions = pod.get("status", {}).get("conditions", ())
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


def has_been_ready(pod: Object) -> bool:
    """Return whether a pod became ready after its container started, so that it lost readiness later.

    `started` alone is not enough: the kubelet reports it shortly before the first readiness.
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
    # How an earlier container exited does not explain why one that was ready is not.
    found = [] if has_been_ready(pod) else _of_containers(pod)
    if not found and status.get("phase") == "Failed":
        reason = status.get("reason") or "no reason given"
        text = f"the node evicted the pod: {status.get('message') or reason}"
        found.append(Failure("Evicted", text, name))
    conditions = status.get("conditions", ())
    blocked = [c for c in conditions if c["type"] == "PodScheduled" and c["status"] == "False"]
    found.extend(_unschedulable(name, condition) for condition in blocked)
    return found


def _of_containers(pod: Object) -> list[Failure]:
    """Return what is wrong with the containers of a pod, and how they exited last."""
    status = pod.get("status", {})
    statuses = [*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ())]
    name = pod["metadata"]["name"]
    return [failure for container in statuses if (failure := _of_container(name, container))]


def _of_unready(pod: Object, reports: dict[str, Report]) -> Failure | None:
    """Return why a running pod is not ready: its node is lost, or what it reports."""
    if pod["metadata"].get("deletionTimestamp"):
        return None
    name = pod["metadata"]["name"]
    if _is_on_lost_node(pod):
        node = pod.get("spec", {}).get("nodeName", "its node")
        text = (
            f"node {node} does not report to the cluster, so pod {name} counts as lost. It is replaced when the node's"
            " taint evicts it, by default after 5 minutes: repair the node, or delete the pod"
        )
        return Failure("NodeLost", text, name)
    report = reports.get(name)
    if report is None or report.ready or report.starting or not report.reason:
        return None
    if report.reason == "Draining":
        return None
    return Failure(report.reason, report.message, name, container=HANDLER_CONTAINER)


def _is_on_lost_node(pod: Object) -> bool:
    """Return whether the node controller, not the kubelet, marked a pod unready: its containers still count as ready."""
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
        text = f'image "{image}" of container {name} cannot be pulled: {message or reason}. Check name, tag and pull secrets.'
        if name == TENSORFLOW_SERVING_CONTAINER:
            text += (
                " If no image exists for the architecture of the nodes, set tensorflowServingImage: null"
                " (tensorflowServing.image in the values of the chart): TensorFlow then runs in the process of the API."
            )
        return Failure("ImagePullFailed", text, pod, name)
    if reason in _CONFIG_REASONS:
        text = f"container {name} cannot be created: {message or reason}"
        return Failure("PodConfigInvalid", text, pod, name)
    ended = container.get("state", {}).get("terminated") or container.get("lastState", {}).get("terminated")
    if not ended or (ended.get("exitCode") == 0 and reason != "CrashLoopBackOff"):
        return None
    code, when = ended.get("exitCode"), ended.get("finishedAt")
    output = (ended.get("message") or "").strip()
    cause = _runtime_cause(output)
    # The kernel may have killed only a worker process; its supervisor reported the signal then.
    if ended.get("reason") == "OOMKilled" and (cause is None or "SIGKILL" in cause[1]):
        text = f"container {name} was killed because it exceeded its memory limit: raise compute.mem, or use less memory"
        return Failure("OutOfMemory", text, pod, name, code, when)
    if cause is not None:
        return Failure(cause[0], cause[1], pod, name, code, when)
    text = f"container {name} exited with code {code}"
    if code == KILLED:
        text += " (killed)"
    return Failure("CrashLoop", f"{text}: {_tail(output)}" if output else text, pod, name, code, when)


def _runtime_cause(message: str) -> tuple[str, str] | None:
    """Return reason and message that the runtime wrote to its termination log."""
    try:
        cause = json.loads(message)
        return str(cause["reason"]), str(cause["message"])
    except (ValueError, KeyError, TypeError):
        return None


def _tail(text: str, lines: int = 10) -> str:
    return "\n".join(text.splitlines()[-lines:])


def _unschedulable(pod: str, condition: Object) -> Failure:
    message = condition.get("message") or "no node has room"
    return Failure("Unschedulable", f"no node can run the pod: {scheduler_messages.explain(message)}", pod)


def blocking_device(failure: Failure | None, older: list[Object]) -> str | None:
    """Return the device that a new pod waits for because pods of the previous generation hold it."""
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
    """Return why pods cannot be created, such as a quota or an admission policy."""
    for condition in (deployment or {}).get("status", {}).get("conditions", ()):
        if condition["type"] == "ReplicaFailure" and condition["status"] == "True":
            message = condition.get("message", "no reason given")
            if "being terminated" in message:
                return Failure("NamespaceTerminating", "the namespace is being deleted", "")
            return Failure("PodsRefused", f"the cluster rejects the pods: {message}", "")
    return None
