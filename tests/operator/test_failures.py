"""From the state of pods to the reason in the status."""

import json
from typing import Any

import pytest

from cortex_operator.status.failures import of_deployment, of_pods


def pod(name: str = "p", conditions: list[dict[str, Any]] | None = None, **container: Any) -> dict[str, Any]:
    status = {"containerStatuses": [{"name": "api", "image": "i:1", **container}]} if container else {}
    return {"metadata": {"name": name}, "status": {**status, "conditions": conditions or []}}


def ended(
    code: int, message: str = "", reason: str = "Error", when: str = "2026-01-01T00:00:00Z"
) -> dict[str, Any]:
    return {"terminated": {"exitCode": code, "message": message, "reason": reason, "finishedAt": when}}


SAID = json.dumps({"reason": "ModelNotFound", "message": "there is no iris.onnx in the project"})
WORKER_KILLED = json.dumps({"reason": "HandlerInitError", "message": "a worker was killed by SIGKILL"})

CASES = [
    (pod(state={"waiting": {"reason": "ErrImagePull", "message": "not found"}}), "ImagePullFailed", '"i:1"'),
    (pod(state={"waiting": {"reason": "ImagePullBackOff"}}), "ImagePullFailed", "pull secrets"),
    (pod(state={"waiting": {"reason": "CreateContainerConfigError", "message": "no s"}}), "PodConfigInvalid", "no s"),
    (pod(state=ended(1, SAID)), "ModelNotFound", "no iris.onnx"),
    (pod(state={"waiting": {"reason": "CrashLoopBackOff"}}, lastState=ended(1, SAID)), "ModelNotFound", "no iris.onnx"),
    (pod(state=ended(137, reason="OOMKilled")), "OutOfMemory", "compute.mem"),
    (pod(state=ended(1, WORKER_KILLED, "OOMKilled")), "OutOfMemory", "compute.mem"),
    (pod(state=ended(1, SAID, "OOMKilled")), "ModelNotFound", "no iris.onnx"),
    (pod(state=ended(139, "Segmentation fault")), "CrashLoop", "exited with code 139: Segmentation fault"),
    (pod(state=ended(2, "[1, 2]")), "CrashLoop", "exited with code 2"),
]  # fmt: skip


@pytest.mark.parametrize(("seen", "reason", "text"), CASES)
def test_each_state_of_a_container_has_its_reason(seen: dict[str, Any], reason: str, text: str) -> None:
    failure = of_pods([seen])
    assert failure is not None
    assert failure.reason == reason
    assert text in failure.message


def test_an_unschedulable_pod_names_the_resource() -> None:
    message = "0/3 nodes are available: 3 Insufficient nvidia.com/gpu."
    failure = of_pods([pod(conditions=[{"type": "PodScheduled", "status": "False", "message": message}])])
    assert failure is not None
    assert failure.reason == "Unschedulable"
    assert "nvidia.com/gpu" in failure.message


def test_starting_ready_and_terminating_pods_have_no_failure() -> None:
    ready = pod(conditions=[{"type": "Ready", "status": "True"}], state={"running": {}}, lastState=ended(1))
    going = pod(state=ended(1))
    going["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    assert of_pods([ready, going, pod(state={"waiting": {"reason": "ContainerCreating"}}), pod()]) is None


def test_the_last_failure_is_reported() -> None:
    early = pod("a", state=ended(1, "early", when="2026-01-01T00:00:00Z"))
    late = pod("b", state=ended(2, "late", when="2026-01-01T00:00:05Z"))
    failure = of_pods([late, early])
    assert failure is not None
    assert (failure.pod, failure.exit_code) == ("b", 2)


def test_a_quota_that_rejects_pods_is_reported() -> None:
    condition = {"type": "ReplicaFailure", "status": "True", "message": "exceeded quota: small"}
    failure = of_deployment({"status": {"conditions": [condition]}})
    assert failure is not None
    assert (failure.reason, failure.message) == (
        "PodsRefused",
        "the cluster rejects the pods: exceeded quota: small",
    )
    assert of_deployment(None) is None
