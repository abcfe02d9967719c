"""Deployments and services: rollouts, scaling, deletion, and the address of the service."""

from __future__ import annotations

import urllib.error
import urllib.request
from typing import Any


def fetch(url: str) -> str:
    try:
        with urllib.request.urlopen(url, timeout=5) as response:
            return str(response.read().decode())
    except OSError:
        return ""


def service(name: str) -> dict[str, Any]:
    spec = {"selector": {"app": name}, "ports": [{"name": "http", "port": 8080, "targetPort": "http"}]}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec}


def test_deployment_serves_rolls_out_scales_and_is_deleted(kubectl: Any, make: Any) -> None:
    kubectl("apply", "-f", "-", stdin=service("web"))
    assert (
        kubectl("apply", "-f", "-", stdin=make.deployment("web", replicas=2))
        == "deployment.apps/web created\n"
    )
    assert "successfully rolled out" in kubectl("rollout", "status", "deployment/web", "--timeout=60s")
    url = f"http://{kubectl.get('service', 'web')['spec']['clusterIP']}:8080/"
    kubectl.until(lambda: fetch(url) == "one")

    assert (
        kubectl("apply", "-f", "-", stdin=make.deployment("web", "two", 2))
        == "deployment.apps/web configured\n"
    )
    kubectl("rollout", "status", "deployment/web", "--timeout=60s")
    kubectl.until(lambda: fetch(url) == "two")
    assert (
        kubectl.get("deployment", "web")["metadata"]["annotations"]["deployment.kubernetes.io/revision"]
        == "2"
    )

    kubectl("rollout", "undo", "deployment/web")
    kubectl("rollout", "status", "deployment/web", "--timeout=60s")
    kubectl.until(lambda: fetch(url) == "one")

    kubectl("scale", "deployment/web", "--replicas=1")
    kubectl.until(lambda: len(kubectl.get("pods")["items"]) == 1)
    shown = ["web", "1/1", "1", "1"]
    kubectl.until(lambda: kubectl("get", "deployment", "web").splitlines()[1].split()[:4] == shown)
    assert "Scaled up replica set" in kubectl("describe", "deployment", "web")

    kubectl("delete", "deployment", "web", "--cascade=foreground")
    assert not kubectl.get("replicasets,pods")["items"]
    assert fetch(url) == ""


def test_an_endpoint_slice_has_the_pods_of_its_service(kubectl: Any, make: Any) -> None:
    def endpoints() -> dict[str, Any]:
        found = kubectl.get("endpointslices", "--selector=kubernetes.io/service-name=web")["items"]
        assert [(port["name"], port["port"]) for one in found for port in one["ports"]] in (
            [],
            [("http", 8080)],
        )
        return {e["targetRef"]["name"]: e["conditions"]["ready"] for one in found for e in one["endpoints"]}

    kubectl("apply", "-f", "-", stdin=service("web"))
    kubectl("apply", "-f", "-", stdin=make.deployment("web", replicas=2))
    kubectl("rollout", "status", "deployment/web", "--timeout=60s")
    kubectl.until(lambda: list(endpoints().values()) == [True, True])
    (first, _) = endpoints()
    kubectl("delete", "pod", first, "--wait=false")
    kubectl.until(lambda: list(endpoints().values()) == [True, True] and first not in endpoints())
    (address, *_) = kubectl.get("endpointslices", "web")["endpoints"][0]["addresses"]
    assert address in {pod["status"]["podIP"] for pod in kubectl.get("pods")["items"]}
    kubectl("delete", "service", "web")
    kubectl.until(lambda: kubectl.get("endpointslices")["items"] == [])


def test_failing_rollout_keeps_the_old_pods(kubectl: Any, make: Any) -> None:
    kubectl("apply", "-f", "-", stdin=make.deployment("web"))
    kubectl("wait", "--for=condition=Available", "deployment/web", "--timeout=60s")
    kubectl("set", "image", "deployment/web", "main=nowhere:1")
    kubectl.until(lambda: "ImagePullBackOff" in kubectl("get", "pods"))
    assert kubectl.get("deployment", "web")["status"]["availableReplicas"] == 1
    output = kubectl("rollout", "status", "deployment/web", "--watch=false")
    assert output.startswith('Waiting for deployment "web" rollout to finish: ')


def test_selector_that_does_not_match_the_template_is_rejected(kubectl: Any, make: Any) -> None:
    body = make.deployment("web")
    body["spec"]["selector"]["matchLabels"] = {"app": "other"}
    assert "`selector` does not match template `labels`" in kubectl.fails("apply", "-f", "-", stdin=body)


def test_requests_are_forwarded_to_pods_and_services(kubectl: Any, make: Any) -> None:
    kubectl("apply", "-f", "-", stdin=service("web"))
    kubectl("apply", "-f", "-", stdin=make.deployment("web"))
    kubectl("rollout", "status", "deployment/web", "--timeout=60s")
    url = f"http://{kubectl.get('service', 'web')['spec']['clusterIP']}:8080/"
    kubectl.until(lambda: fetch(url))
    pod = kubectl.get("pods")["items"][0]["metadata"]["name"]
    base = f"/api/v1/namespaces/{kubectl.namespace}"
    for place in (
        "services/web:8080",
        "services/web:http",
        "services/web",
        f"pods/{pod}:8080",
        f"pods/{pod}",
    ):
        assert kubectl("get", "--raw", f"{base}/{place}/proxy/any/path?a=1") == "one", place
    assert "not found" in kubectl.fails("get", "--raw", f"{base}/pods/none:8080/proxy/")
    assert "error trying to reach service" in kubectl.fails("get", "--raw", f"{base}/pods/{pod}:1/proxy/")
