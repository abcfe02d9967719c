"""From the state of pods to the reason in the status."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from cortex_operator.replicas.reports import Report, WorkerFailure
from cortex_operator.status.failures import (
    Failure,
    age,
    blocking_device,
    has_been_ready,
    is_ready,
    of_deployment,
    of_pod,
    of_pods,
    recent,
    reported,
)


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


PULL = "Check name, tag and pull secrets."


@pytest.mark.parametrize(
    ("container", "failure"),
    [
        *[
            (
                {"state": {"waiting": {"reason": reason, "message": "m"}}},
                Failure("ImagePullFailed", f'image "i:1" of container api cannot be pulled: m. {PULL}', "p", "api"),
            )
            for reason in (
                "ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "RegistryUnavailable",
                "ImageInspectError",
            )
        ],
        *[
            (
                {"state": {"waiting": {"reason": reason}}},
                Failure("PodConfigInvalid", f"container api cannot be created: {reason}", "p", "api"),
            )
            for reason in ("CreateContainerConfigError", "CreateContainerError", "RunContainerError")
        ],
        (
            {"image": "", "state": {"waiting": {"reason": "ErrImagePull"}}},
            Failure("ImagePullFailed", f'image "" of container api cannot be pulled: ErrImagePull. {PULL}', "p", "api"),
        ),
        ({"state": {"waiting": {"reason": "ContainerCreating"}}}, None),
        ({"state": {"waiting": {}}}, None),
        ({"state": {"running": {}}}, None),
        ({"state": ended(0)}, None),
        ({"state": {"waiting": {"reason": "PodInitializing"}}, "lastState": ended(0)}, None),
        (
            {"state": {"waiting": {"reason": "CrashLoopBackOff"}}, "lastState": ended(0)},
            Failure("CrashLoop", "container api exited with code 0", "p", "api", 0, "2026-01-01T00:00:00Z"),
        ),
        (
            {"state": ended(137)},
            Failure("CrashLoop", "container api exited with code 137 (killed)", "p", "api", 137, "2026-01-01T00:00:00Z"),
        ),
        (
            {"state": ended(2, "\n".join(f"line {n}" for n in range(12)) + "\n")},
            Failure(
                "CrashLoop",
                "container api exited with code 2: " + "\n".join(f"line {n}" for n in range(2, 12)),
                "p", "api", 2, "2026-01-01T00:00:00Z",
            ),
        ),
        (
            {"state": ended(1, SAID)},
            Failure("ModelNotFound", "there is no iris.onnx in the project", "p", "api", 1, "2026-01-01T00:00:00Z"),
        ),
        (
            {"state": {"terminated": {"finishedAt": "2026-01-01T00:00:00Z"}}},
            Failure("CrashLoop", "container api exited with code None", "p", "api", None, "2026-01-01T00:00:00Z"),
        ),
    ],
)  # fmt: skip
def test_the_failure_of_a_container(container: dict[str, Any], failure: Failure | None) -> None:
    assert of_pod(pod(**container)) == failure


def test_a_container_without_an_image_for_the_architecture() -> None:
    found = of_pod(pod(state={"waiting": {"reason": "ErrImagePull"}}))
    assert found is not None
    assert "tensorflowServingImage: null" not in found.message
    serving = {"name": "tensorflow-serving", "image": "t:1", "state": {"waiting": {"reason": "ErrImagePull"}}}
    seen = {"metadata": {"name": "p"}, "status": {"initContainerStatuses": [serving]}}
    found = of_pod(seen)
    assert found is not None
    assert 'image "t:1" of container tensorflow-serving cannot be pulled' in found.message
    assert "set tensorflowServingImage: null" in found.message


@pytest.mark.parametrize(
    ("status", "said"),
    [
        ({"reason": "Evicted", "message": "low on memory"}, "low on memory"),
        ({"reason": "Preempted"}, "Preempted"),
        ({}, "no reason given"),
    ],
)
def test_a_pod_that_the_node_evicted(status: dict[str, Any], said: str) -> None:
    seen = {"metadata": {"name": "p"}, "status": {"phase": "Failed", **status}}
    assert of_pod(seen) == Failure("Evicted", f"the node evicted the pod: {said}", "p")
    assert of_pod({"metadata": {"name": "p"}, "status": {**status, "phase": "Pending"}}) is None
    crashed = pod(state=ended(3))
    crashed["status"] |= {"phase": "Failed", **status}
    found = of_pod(crashed)
    assert found is not None
    assert found.reason == "CrashLoop"


def test_a_pod_without_a_node_and_without_words() -> None:
    condition = {"type": "PodScheduled", "status": "False"}
    found = of_pod(pod(conditions=[condition]))
    assert found is not None
    assert (found.reason, found.pod) == ("Unschedulable", "p")
    assert "no node has room" in found.message
    assert of_pod(pod(conditions=[{**condition, "status": "True"}])) is None
    assert of_pod(pod(conditions=[{**condition, "type": "Initialized"}])) is None


def test_of_stuck_pods_the_first_by_name_is_reported() -> None:
    stuck = {"state": {"waiting": {"reason": "ErrImagePull"}}}
    found = of_pods([pod("b", **stuck), pod("a", **stuck), pod("c", **stuck)])
    assert found is not None
    assert found.pod == "a"
    same = of_pods([pod("a", state=ended(1)), pod("b", state=ended(1))])
    assert same is not None
    assert same.pod == "b"


READY = [{"type": "Ready", "status": "True"}]
NOW = datetime(2026, 1, 1, 0, 5, tzinfo=UTC)


def at(seconds: int) -> str:
    """Return a time, in seconds after the start of the year."""
    return datetime.fromtimestamp(1767225600 + seconds, UTC).isoformat().replace("+00:00", "Z")


def test_failures_of_ready_pods_count_for_five_minutes() -> None:
    def found(when: str, state: str = "lastState") -> Failure | None:
        return recent([pod(conditions=READY, **{state: ended(1, when=when)})], {}, NOW)

    assert found(at(1)) is not None
    assert found(at(0)) is None
    assert recent([pod(lastState=ended(1, when=at(200)))], {}, NOW) is None
    worker = Report(True, failure=WorkerFailure("OutOfMemory", "m", at(200)))
    assert recent([pod(conditions=READY)], {"p": worker, "q": worker}, NOW) == Failure(
        "OutOfMemory", "m", "p", container="api", time=at(200)
    )
    assert recent([pod(conditions=READY)], {"p": Report(True)}, NOW) is None


@pytest.mark.parametrize(("time", "seconds"), [(None, 0.0), (at(240), 60.0), (at(300), 0.0), (at(400), 0.0)])
def test_the_age_of_a_failure(time: str | None, seconds: float) -> None:
    assert age(Failure("R", "m", "p", time=time), NOW) == seconds


def leaving(seen: dict[str, Any]) -> dict[str, Any]:
    seen["metadata"]["deletionTimestamp"] = at(0)
    return seen


def test_whether_a_pod_is_ready() -> None:
    assert is_ready(pod(conditions=READY)) is True
    assert is_ready(leaving(pod(conditions=READY))) is False
    assert is_ready(pod(conditions=[{"type": "Ready", "status": "False"}])) is False
    assert is_ready(pod(conditions=[{"type": "ContainersReady", "status": "True"}])) is False
    assert is_ready({"metadata": {}}) is False


@pytest.mark.parametrize(
    ("containers", "changed", "expected"),
    [
        ([{"started": True, "state": {"running": {"startedAt": at(10)}}}], at(20), True),
        ([{"started": True, "state": {"running": {"startedAt": at(20)}}}], at(20), False),
        ([{"started": False, "state": {"running": {"startedAt": at(10)}}}], at(20), False),
        ([{"started": True, "state": {"running": {"startedAt": at(10)}}}, {"started": False}], at(20), False),
        (
            [
                {"started": True, "state": {"running": {"startedAt": at(10)}}},
                {"started": True, "state": {"running": {"startedAt": at(30)}}},
            ],
            at(20), False,
        ),
        ([{"started": True, "state": {"running": {"startedAt": None}}}], at(20), True),
        ([{"started": True}], at(20), True),
        ([], at(20), False),
        ([{"started": True, "state": {"running": {"startedAt": at(10)}}}], None, False),
    ],
)  # fmt: skip
def test_whether_a_pod_was_ready_since_its_containers_started(
    containers: list[dict[str, Any]], changed: str | None, expected: bool
) -> None:
    condition = {"type": "Ready", "status": "False", **({"lastTransitionTime": changed} if changed else {})}
    seen = {"metadata": {"name": "p"}, "status": {"containerStatuses": containers, "conditions": [condition]}}
    assert has_been_ready(seen) is expected
    other = {"type": "PodScheduled", "status": "True", "lastTransitionTime": at(99)}
    seen["status"]["conditions"] = [other]
    assert has_been_ready(seen) is False
    assert has_been_ready({"metadata": {"name": "p"}}) is False
    assert has_been_ready(leaving(seen)) is False


@pytest.mark.parametrize(
    ("report", "failure"),
    [
        (Report(False, "WorkerHung", "m"), Failure("WorkerHung", "m", "p", container="api")),
        (Report(True, "WorkerHung", "m"), None),
        (Report(False), None),
        (Report(False, "Starting", "m"), None),
        (Report(False, "Draining", "m"), None),
        (None, None),
    ],
)
def test_the_report_of_a_replica_explains_why_it_is_not_ready(
    report: Report | None, failure: Failure | None
) -> None:
    reports = {"p": report} if report else {}
    assert reported([pod()], reports) == failure
    assert reported([pod(conditions=READY)], reports) is None
    assert reported([leaving(pod())], reports) is None


def test_a_pod_on_a_lost_node() -> None:
    conditions = [{"type": "Ready", "status": "False"}, {"type": "ContainersReady", "status": "True"}]
    seen = {"metadata": {"name": "p"}, "spec": {"nodeName": "n1"}, "status": {"conditions": conditions}}
    found = reported([seen], {"p": Report(False, "WorkerHung", "m")})
    assert found is not None
    assert (found.reason, found.pod) == ("NodeLost", "p")
    assert found.message.startswith("node n1 does not report to the cluster, so pod p counts as lost.")
    found = reported([{**seen, "spec": {}}], {})
    assert found is not None
    assert found.message.startswith("node its node does not report")
    conditions[0]["reason"] = "ContainersNotReady"
    assert reported([seen], {}) is None


def test_the_device_that_a_new_pod_waits_for() -> None:
    def holder(section: str, *devices: str) -> dict[str, Any]:
        resources = {"limits": dict.fromkeys(devices, "1")}
        spec = {"containers": [{"name": "a"}], section: [{"name": "b", "resources": resources}]}
        return {"metadata": {"name": "o"}, "spec": spec}

    waits = Failure("Unschedulable", "1 Insufficient nvidia.com/gpu, 1 Insufficient memory.", "p")
    for section in ("containers", "initContainers"):
        assert blocking_device(waits, [holder(section, "memory", "nvidia.com/gpu")]) == "nvidia.com/gpu"
        assert blocking_device(waits, [holder(section, "memory")]) is None
        assert blocking_device(waits, [holder(section, "amd.com/gpu")]) is None
    assert blocking_device(waits, []) is None
    assert blocking_device(None, [holder("containers", "nvidia.com/gpu")]) is None
    other = Failure("CrashLoop", "Insufficient nvidia.com/gpu", "p")
    assert blocking_device(other, [holder("containers", "nvidia.com/gpu")]) is None


@pytest.mark.parametrize(
    ("condition", "failure"),
    [
        ({"status": "True"}, Failure("PodsRefused", "the cluster rejects the pods: no reason given", "")),
        ({"status": "False", "message": "m"}, None),
        ({"type": "Progressing", "status": "True", "message": "m"}, None),
        (
            {"status": "True", "message": "namespace n is being terminated"},
            Failure("NamespaceTerminating", "the namespace is being deleted", ""),
        ),
    ],
)
def test_why_a_deployment_has_no_pods(condition: dict[str, Any], failure: Failure | None) -> None:
    found = of_deployment({"status": {"conditions": [{"type": "ReplicaFailure", **condition}]}})
    assert found == failure
    assert of_deployment({}) is None


def test_the_fields_of_last_failure() -> None:
    whole = Failure("R", "m", "p", "c", 0, at(0))
    assert whole.to_status() == {
        "pod": "p",
        "container": "c",
        "reason": "R",
        "exitCode": 0,
        "message": "m",
        "time": at(0),
    }
    assert Failure("R", "m", "p").to_status() == {"pod": "p", "reason": "R", "message": "m"}
