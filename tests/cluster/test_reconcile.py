"""From a manifest to running pods and their status, with the real operator, kubectl and processes."""

import json
from typing import Any

import httpx

from .conftest import ECHO, Kubectl, Operator, api, code, eventually, post

OF_ECHO = "cortex.dev/api=echo"


def test_an_api_becomes_ready_and_answers_and_its_children_go_with_it(kubectl: Kubectl) -> None:
    kubectl.apply(api())
    ready = kubectl.wait_reason("echo", "Ready")
    assert ready["status"] == "True"
    assert ready["message"] == "1 of 1 replicas are ready"
    assert post(kubectl, "echo", [1, 2]).json() == {"got": [1, 2]}
    live = kubectl.get("realtimeapi", "echo")
    assert live["status"]["url"] == "http://apis.example.com/echo"
    assert live["status"]["observedGeneration"] == live["metadata"]["generation"]
    assert live["status"]["readyReplicas"] == 1
    kubectl("delete", "realtimeapi", "echo")
    for kind in ("deployments", "services", "pods"):
        eventually(lambda kind=kind: kubectl.list(kind), lambda found: found == [])


def test_only_the_status_of_the_users_object_is_written(kubectl: Kubectl) -> None:
    kubectl.apply(api())
    kubectl.wait_reason("echo", "Ready")
    live = kubectl.get("realtimeapi", "echo")
    assert set(live["metadata"].get("annotations", {})) == {
        "kubectl.kubernetes.io/last-applied-configuration"
    }
    assert "finalizers" not in live["metadata"]
    assert live["metadata"]["generation"] == 1
    assert live["spec"] == api()["spec"]


def test_a_handler_that_does_not_import_is_named_with_its_error(kubectl: Kubectl) -> None:
    kubectl.apply(api("bad", "import no_such_module\n"), api("good"))
    ready = kubectl.wait_reason("bad", "HandlerImportError")
    assert ready["status"] == "False"
    assert "no_such_module" in ready["message"]
    failure = kubectl.get("realtimeapi", "bad")["status"]["lastFailure"]
    assert failure["reason"] == "HandlerImportError"
    assert failure["exitCode"] == 1
    assert kubectl.wait_reason("good", "Ready")["status"] == "True"
    eventually(
        lambda: [e["reason"] for e in kubectl.list("events") if e["involvedObject"]["name"] == "bad"],
        lambda reasons: "HandlerImportError" in reasons,
    )


def test_each_invalid_handler_has_a_reason(kubectl: Kubectl) -> None:
    kubectl.apply(
        api("missing", handler={"path": "other.py"}),
        api("none", "x = 1\n"),
        api("two", ECHO + ECHO),
        api("signature", "class Handler:\n    def handle_post(self, payload, colour):\n        pass\n"),
        api("model", handler={"type": "onnx", "models": {"path": "no.onnx"}}),
        api("image", handler={"image": "registry.invalid/no:1"}),
        api("gpu", compute={"gpu": 1}),
    )
    expected = {
        "missing": "HandlerNotFound",
        "none": "HandlerNotFound",
        "two": "HandlerInvalid",
        "signature": "HandlerInvalid",
        "model": "ModelNotFound",
        "image": "ImagePullFailed",
        "gpu": "Unschedulable",
    }
    for name, reason in expected.items():
        assert kubectl.wait_reason(name, reason)["status"] == "False"
    assert "nvidia.com/gpu" in kubectl.ready("gpu")["message"]
    assert "registry.invalid/no:1" in kubectl.ready("image")["message"]


def test_a_missing_source_is_reported_and_the_api_starts_once_it_exists(kubectl: Kubectl) -> None:
    kubectl.apply(api(handler={"source": {"configMap": {"name": "code"}}}))
    assert 'ConfigMap "code"' in kubectl.wait_reason("echo", "SourceUnavailable")["message"]
    kubectl.apply(code(ECHO))
    kubectl.wait_reason("echo", "Ready")
    kubectl.apply(code(ECHO.replace("got", "received")))
    answer = eventually(lambda: post(kubectl, "echo", 1).json(), lambda got: "received" in got)
    assert answer == {"received": 1}


def test_a_failed_update_reports_that_the_old_pods_still_serve(kubectl: Kubectl) -> None:
    kubectl.apply(api())
    kubectl.wait_reason("echo", "Ready")
    kubectl.apply(api(code="raise ValueError('new')\n"))
    ready = kubectl.wait_reason("echo", "HandlerImportError")
    assert "1 of the previous generation still ready" in ready["message"]
    assert post(kubectl, "echo", 1).json() == {"got": 1}
    kubectl.apply(api(code=ECHO.replace("got", "fixed")))
    kubectl.wait_reason("echo", "Ready")


def test_scaling_and_autoscaling_restart_no_pod_and_leave_the_hpa_its_replicas(kubectl: Kubectl) -> None:
    kubectl.apply(api())
    kubectl.wait_reason("echo", "Ready")
    pod = kubectl.list("pods")[0]["metadata"]["name"]
    kubectl("scale", "realtimeapi/echo", "--replicas=2")
    eventually(
        lambda: kubectl.ready("echo").get("message"), lambda message: message == "2 of 2 replicas are ready"
    )

    kubectl("patch", "realtimeapi", "echo", "--type=json", "-p", '[{"op": "remove", "path": "/spec/replicas"}, '
            '{"op": "add", "path": "/spec/autoscaling", "value": {"minReplicas": 2, "maxReplicas": 4}}]')  # fmt: skip
    hpa = eventually(lambda: kubectl.list("hpa"), bool)[0]
    assert (hpa["spec"]["minReplicas"], hpa["spec"]["maxReplicas"]) == (2, 4)
    kubectl("scale", "deployment/api-echo", "--replicas=3")  # as the HPA would
    eventually(
        lambda: kubectl.ready("echo").get("message"), lambda message: message == "3 of 3 replicas are ready"
    )
    kubectl(
        "patch", "realtimeapi", "echo", "--type=merge", "-p", '{"spec": {"autoscaling": {"maxReplicas": 5}}}'
    )
    eventually(lambda: kubectl.list("hpa")[0]["spec"]["maxReplicas"], lambda bound: bound == 5)
    assert kubectl.get("deployment", "api-echo")["spec"]["replicas"] == 3

    kubectl(
        "patch", "realtimeapi", "echo", "--type=merge", "-p", '{"spec": {"autoscaling": null, "replicas": 1}}'
    )
    eventually(lambda: kubectl.list("hpa"), lambda found: found == [])
    eventually(
        lambda: kubectl.ready("echo").get("message"), lambda message: message == "1 of 1 replicas are ready"
    )
    assert pod in [p["metadata"]["name"] for p in kubectl.list("pods")]


def test_an_autoscaled_api_is_born_with_its_init_replicas(kubectl: Kubectl) -> None:
    kubectl.apply(api(autoscaling={"minReplicas": 1, "maxReplicas": 4, "initReplicas": 2}))
    eventually(
        lambda: kubectl.ready("echo").get("message"), lambda message: message == "2 of 2 replicas are ready"
    )


def test_changes_of_owned_objects_by_others_are_reverted(kubectl: Kubectl) -> None:
    kubectl.apply(api())
    kubectl.wait_reason("echo", "Ready")
    kubectl(
        "patch",
        "service",
        "api-echo",
        "--type=merge",
        "-p",
        '{"spec": {"selector": {"cortex.dev/api": "x"}}}',
    )
    eventually(
        lambda: kubectl.get("service", "api-echo")["spec"]["selector"]["cortex.dev/api"],
        lambda v: v == "echo",
    )
    kubectl("delete", "service", "api-echo")
    eventually(lambda: kubectl.list("services"), bool)
    before = {pod["metadata"]["uid"] for pod in kubectl.list("pods")}
    kubectl("delete", "deployment", "api-echo")
    eventually(lambda: kubectl.list("deployments"), bool)
    # The previous status may be read for a moment, although the pods are new.
    eventually(
        lambda: kubectl.list("pods"), lambda pods: pods and not before & {p["metadata"]["uid"] for p in pods}
    )
    eventually(
        lambda: kubectl.get("deployment", "api-echo")["status"].get("readyReplicas", 0),
        lambda ready: ready == 1,
    )
    assert post(kubectl, "echo", 1).json() == {"got": 1}
    kubectl.wait_reason("echo", "Ready")


def test_an_object_of_another_owner_is_left_alone_until_it_is_deleted(kubectl: Kubectl) -> None:
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "api-echo"}}
    kubectl.apply({**service, "spec": {"ports": [{"port": 80}]}})
    before = kubectl.get("service", "api-echo")
    kubectl.apply(api())
    assert "Service api-echo" in kubectl.wait_reason("echo", "NameTaken")["message"]
    assert kubectl.get("service", "api-echo") == before
    assert kubectl.list("pods") == []
    kubectl("delete", "service", "api-echo")
    kubectl.wait_reason("echo", "Ready")


def test_a_pod_of_the_previous_generation_runs_the_previous_code(kubectl: Kubectl) -> None:
    """Such as after a node drain, while the rollout waits for new pods that do not start."""
    kubectl.apply(api())
    kubectl.wait_reason("echo", "Ready")
    (old,) = kubectl.list("pods")
    kubectl.apply(api(code="raise RuntimeError('broken')\n"))
    kubectl.wait_reason("echo", "HandlerImportError")
    kubectl("delete", "pod", old["metadata"]["name"])

    def serves() -> bool:
        try:
            return post(kubectl, "echo", 1).json() == {"got": 1}
        except httpx.HTTPError:
            return False

    eventually(serves, bool)
    maps = {
        config_map["metadata"]["name"] for config_map in kubectl.list("configmaps", f"--selector={OF_ECHO}")
    }
    assert len(maps) == 4, "those of both generations"
    kubectl.apply(api())
    kubectl.wait_reason("echo", "Ready")
    eventually(lambda: len(kubectl.list("configmaps", f"--selector={OF_ECHO}")), lambda count: count == 2)


def test_pausing_deletes_the_pods_and_nothing_else(kubectl: Kubectl) -> None:
    kubectl.apply(api())
    kubectl.wait_reason("echo", "Ready")
    kubectl("patch", "realtimeapi", "echo", "--type=merge", "-p", '{"spec": {"paused": true}}')
    kubectl.wait_reason("echo", "Paused")
    eventually(lambda: kubectl.list("pods"), lambda found: found == [])
    kubectl("patch", "realtimeapi", "echo", "--type=merge", "-p", '{"spec": {"paused": false}}')
    kubectl.wait_reason("echo", "Ready")


def test_a_restart_of_the_operator_changes_nothing(kubectl: Kubectl, operator: Operator) -> None:
    kubectl.apply(api(autoscaling={"minReplicas": 1}), api("plain"))
    kubectl.wait_reason("echo", "Ready")
    kubectl.wait_reason("plain", "Ready")

    def seen() -> dict[str, Any]:
        kinds = ("realtimeapis", "deployments", "services", "configmaps", "pods")
        versions = {
            f"{kind}/{item['metadata']['name']}": item["metadata"]["resourceVersion"]
            for kind in kinds
            for item in kubectl.list(kind)
        }
        # An HPA updates its measurements, and the operator copies them to the status of the API.
        del versions["realtimeapis/echo"]
        echo = kubectl.get("realtimeapi", "echo")["status"]
        return {**versions, "hpa": kubectl.get("hpa", "api-echo")["spec"], "echo": echo["conditions"]}

    eventually(
        lambda: kubectl.get("realtimeapi", "echo")["status"]["autoscaling"]["current"], lambda n: n == 1
    )
    operator.stop()
    # The controllers of the Deployments may still write.
    before, _ = eventually(lambda: (seen(), seen()), lambda twice: twice[0] == twice[1])
    operator.start()
    kubectl.apply(api("later"))
    kubectl.wait_reason("later", "Ready")  # Everything that the operator found at its start is reconciled.
    after = seen()
    assert {name: after.get(name) for name in before} == before


def test_the_api_server_rejects_objects_that_violate_the_schema(kubectl: Kubectl) -> None:
    bad = api(autoscaling={"minReplicas": 3, "maxReplicas": 2})
    bad["spec"]["handler"]["models"] = {"path": "a.onnx", "dir": "models"}
    output = kubectl("apply", "-f", "-", stdin=json.dumps(bad), ok=False)
    assert "minReplicas must not be greater than maxReplicas" in output
    assert "exactly one of path, paths and dir must be set" in output
    unknown = api()
    unknown["spec"]["handler"]["pth"] = "x"
    assert 'unknown field "spec.handler.pth"' in kubectl(
        "apply", "-f", "-", stdin=json.dumps(unknown), ok=False
    )
    wrong = api(replicas="many")
    assert "spec.replicas" in kubectl("apply", "-f", "-", stdin=json.dumps(wrong), ok=False)
    assert kubectl.list("realtimeapis") == []


def test_the_refusal_of_a_name_names_the_field(kubectl: Kubectl) -> None:
    for name in ("9to5", "a.b", "a" * 51):
        output = kubectl("apply", "-f", "-", stdin=json.dumps(api(name)), ok=False)
        assert (
            f'The RealtimeAPI "{name}" is invalid: metadata.name: Invalid value: must be at most 50 characters'
            in output
        )
    assert kubectl.list("realtimeapis") == []
