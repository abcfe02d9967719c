"""Pods and Deployment to the reason why an API does not answer, in words that its owner can act on. Pure."""

import json
from dataclasses import dataclass
from typing import Any

Object = dict[str, Any]

OUT_OF_MEMORY_EXIT = 137
_PULL_REASONS = {
    "ErrImagePull",
    "ImagePullBackOff",
    "InvalidImageName",
    "ErrImageNeverPull",
    "RegistryUnavailable",
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
    if not found and status.get("reason") == "Evicted":
        found.append(Failure("Evicted", status.get("message", "the node ran out of a resource"), name))
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
        return Failure(
            "PodConfigInvalid", f"container {name} can't be created: {message or reason}", pod, name
        )
    ended = container.get("state", {}).get("terminated") or container.get("lastState", {}).get("terminated")
    if not ended or (ended.get("exitCode") == 0 and reason != "CrashLoopBackOff"):
        return None
    code, when = ended.get("exitCode"), ended.get("finishedAt")
    said = (ended.get("message") or "").strip()
    if cause := _said_by_the_runtime(said):
        return Failure(cause[0], cause[1], pod, name, code, when)
    if ended.get("reason") == "OOMKilled":
        text = f"container {name} was killed: it needed more memory than its limit. Raise compute.mem or need less."
        return Failure("OutOfMemory", text, pod, name, code, when)
    text = f"container {name} ended with exit code {code}"
    if code == OUT_OF_MEMORY_EXIT:
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


def of_deployment(deployment: Object | None) -> Failure | None:
    """Why no pod was even made: a quota, an admission policy."""
    for condition in (deployment or {}).get("status", {}).get("conditions", ()):
        if condition["type"] == "ReplicaFailure" and condition["status"] == "True":
            return Failure("PodsRefused", condition.get("message", "pods can't be created"), "")
    return None
