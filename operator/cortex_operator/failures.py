"""Pods and Deployment to the reason why an API does not answer, in words that its owner can act on. Pure."""

import json
from dataclasses import dataclass
from typing import Any

Object = dict[str, Any]

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
    found = [failure for pod in pods if not is_ready(pod) for failure in _of_pod(pod)]
    ended = [failure for failure in found if failure.time]
    if ended:
        return max(ended, key=lambda failure: (failure.time or "", failure.pod))
    return min(found, key=lambda failure: failure.pod, default=None)


def of_pod(pod: Object) -> Failure | None:
    """What is wrong with one pod."""
    return of_pods([pod])


def is_ready(pod: Object) -> bool:
    """Whether a pod answers and is to stay."""
    if pod["metadata"].get("deletionTimestamp"):
        return False
    conditions = pod.get("status", {}).get("conditions", ())
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


def _of_pod(pod: Object) -> list[Failure]:
    if pod["metadata"].get("deletionTimestamp"):
        return []
    name, status = pod["metadata"]["name"], pod.get("status", {})
    statuses = [*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ())]
    found = [failure for container in statuses if (failure := _of_container(name, container))]
    if not found and status.get("phase") == "Failed":
        reason = status.get("reason") or "the node gave no reason"
        text = f"the node ended the pod: {status.get('message') or reason}"
        found.append(Failure("Evicted", text, name))
    conditions = status.get("conditions", ())
    blocked = [c for c in conditions if c["type"] == "PodScheduled" and c["status"] == "False"]
    found.extend(_unschedulable(name, condition) for condition in blocked)
    return found


def _of_container(pod: str, container: Object) -> Failure | None:
    name = container["name"]
    waiting = container.get("state", {}).get("waiting") or {}
    reason, message = waiting.get("reason", ""), waiting.get("message", "")
    if reason in _PULL_REASONS:
        image = container.get("image", "")
        text = f'image "{image}" of container {name} can\'t be pulled: {message or reason}. Check name, tag and pull secrets.'
        return Failure("ImagePullFailed", text, pod, name)
    if reason in _CONFIG_REASONS:
        text = f"container {name} can't be created: {message or reason}"
        return Failure("PodConfigInvalid", text, pod, name)
    ended = container.get("state", {}).get("terminated") or container.get("lastState", {}).get("terminated")
    if not ended or (ended.get("exitCode") == 0 and reason != "CrashLoopBackOff"):
        return None
    code, when = ended.get("exitCode"), ended.get("finishedAt")
    said = (ended.get("message") or "").strip()
    cause = _said_by_the_runtime(said)
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


def _said_by_the_runtime(message: str) -> tuple[str, str] | None:
    """Reason and message that the runtime left in its termination log."""
    try:
        cause = json.loads(message)
        return str(cause["reason"]), str(cause["message"])
    except (ValueError, KeyError, TypeError):
        return None


def _tail(text: str, lines: int = 10) -> str:
    return "\n".join(text.splitlines()[-lines:])


def _unschedulable(pod: str, condition: Object) -> Failure:
    said = condition.get("message", "no node has room")
    text = f"no node can run the pod: {said} Ask for less in compute, or add such a node."
    return Failure("Unschedulable", text, pod)


def holds_its_own_devices(failure: Failure | None, older: list[Object]) -> str | None:
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
            text = f"the cluster refuses the pods: {condition.get('message', 'no reason given')}"
            return Failure("PodsRefused", text, "")
    return None
