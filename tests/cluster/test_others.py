"""Changes of an API's objects by other writers are reverted and reported, unless they are allowed."""

import json
from typing import Any

import pytest

from .conftest import Kubectl, api, eventually, post

Object = dict[str, Any]


@pytest.fixture
def ready(kubectl: Kubectl) -> Kubectl:
    kubectl.apply(api())
    kubectl.wait_reason("echo", "Ready")
    return kubectl


def pod_spec(kubectl: Kubectl) -> Object:
    return kubectl.get("deployment", "api-echo")["spec"]["template"]["spec"]


def events(kubectl: Kubectl, reason: str) -> list[str]:
    found = kubectl.list("events", f"--field-selector=reason={reason}")
    return [event["message"] for event in found if event["involvedObject"]["name"] == "echo"]


def patch(kubectl: Kubectl, kind: str, operations: list[Object], *arguments: str) -> None:
    kubectl("patch", kind, "api-echo", "--type=json", "-p", json.dumps(operations), *arguments)


CONTAINERS = "/spec/template/spec/containers"


def test_a_variable_that_kubectl_sets_is_removed_and_reported(ready: Kubectl) -> None:
    before = pod_spec(ready)
    ready("set", "env", "deployment/api-echo", "DEBUG=1")
    eventually(lambda: pod_spec(ready), lambda spec: spec == before)
    (message,) = eventually(lambda: events(ready, "ChangeReverted"), bool)
    assert '"kubectl-set"' in message
    assert "spec.template.spec.containers[name=api].env" in message
    assert "Deployment api-echo" in message
    ready.wait_reason("echo", "Ready")
    assert post(ready, "echo", {"x": 1}).status_code == 200


def test_a_sidecar_of_another_field_manager_is_removed(ready: Kubectl) -> None:
    before = pod_spec(ready)
    sidecar = {"name": "proxy", "image": "proxy"}
    manifest = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "api-echo"},
        "spec": {"template": {"spec": {"containers": [sidecar], "hostNetwork": True}}},
    }
    ready("apply", "--server-side", "--field-manager=mesh", "-f", "-", stdin=json.dumps(manifest))
    eventually(lambda: pod_spec(ready), lambda spec: spec == before)
    (message,) = eventually(lambda: events(ready, "ChangeReverted"), bool)
    assert '"mesh"' in message
    assert "containers[name=proxy]" in message


def test_a_renamed_container_does_not_leave_two(ready: Kubectl) -> None:
    before = pod_spec(ready)
    patch(ready, "deployment", [{"op": "replace", "path": f"{CONTAINERS}/0/name", "value": "renamed"}])
    eventually(lambda: pod_spec(ready), lambda spec: spec == before)
    eventually(lambda: events(ready, "ChangeReverted"), bool)
    ready.wait_reason("echo", "Ready")
    assert post(ready, "echo", {"x": 1}).status_code == 200
    assert "InvalidSpec" not in [event["reason"] for event in ready.list("events")]


@pytest.mark.parametrize(
    ("kind", "operation"),
    [
        (
            "service",
            {"op": "add", "path": "/spec/ports/-", "value": {"name": "more", "port": 9, "targetPort": 9}},
        ),
        ("deployment", {"op": "add", "path": "/spec/paused", "value": True}),
        ("networkpolicy", {"op": "add", "path": "/spec/egress", "value": [{}]}),
    ],
)
def test_every_kind_of_child_is_set_back(ready: Kubectl, kind: str, operation: Object) -> None:
    def content() -> Object:
        return {key: value for key, value in ready.get(kind, "api-echo").items() if key in ("spec", "data")}

    before = content()
    patch(ready, kind, [operation], "--field-manager=theirs")
    (message,) = eventually(lambda: events(ready, "ChangeReverted"), bool)
    assert '"theirs"' in message
    eventually(content, lambda now: now == before)


def test_a_restart_by_kubectl_restarts_and_stays(ready: Kubectl) -> None:
    before = {pod["metadata"]["uid"] for pod in ready.list("pods")}
    ready("rollout", "restart", "deployment/api-echo")
    eventually(lambda: {pod["metadata"]["uid"] for pod in ready.list("pods")}, lambda now: not now & before)
    ready.wait_reason("echo", "Ready")
    template = ready.get("deployment", "api-echo")["spec"]["template"]["metadata"]
    assert "kubectl.kubernetes.io/restartedAt" in template["annotations"]
    assert events(ready, "ChangeReverted") == []


def test_labels_and_annotations_of_others_stay(ready: Kubectl) -> None:
    ready("label", "deployment", "api-echo", "team=a")
    ready("annotate", "deployment", "api-echo", "note=x")
    ready("set", "env", "deployment/api-echo", "DEBUG=1")
    eventually(lambda: events(ready, "ChangeReverted"), bool)
    eventually(lambda: "DEBUG" in json.dumps(pod_spec(ready)), lambda there: not there)
    metadata = ready.get("deployment", "api-echo")["metadata"]
    assert (metadata["labels"]["team"], metadata["annotations"]["note"]) == ("a", "x")


def test_a_writer_that_insists_is_named_and_not_fought(ready: Kubectl) -> None:
    insist = ("set", "env", "deployment/api-echo", "DEBUG=1")

    def contested() -> Object:
        ready(*insist)
        conditions = ready.get("realtimeapi", "echo")["status"]["conditions"]
        return next(condition for condition in conditions if condition["type"] == "Degraded")

    degraded = eventually(contested, lambda condition: condition["reason"] == "FieldsOverwritten")
    assert degraded["status"] == "True"
    assert '"kubectl-set"' in degraded["message"]
    generation = ready.get("deployment", "api-echo")["metadata"]["generation"]
    for _ in range(5):
        ready(*insist)
    # Each of two writers that do not back off would have written five times.
    assert ready.get("deployment", "api-echo")["metadata"]["generation"] <= generation + 6

    def has_variable() -> bool:
        return "DEBUG" in json.dumps(pod_spec(ready))

    eventually(lambda: (ready(*insist), has_variable())[1], bool)
    eventually(lambda: ready.ready("echo")["status"], lambda status: status == "True")
    # The other writer has stopped, so the operator's value remains.
    eventually(has_variable, lambda there: not there, seconds=120)
