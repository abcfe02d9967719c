"""The other objects of an API: routes, budgets, policies; shared endpoints, and a cluster that refuses objects."""

import json

from .conftest import Kubectl, api, eventually, post


def test_a_route_leads_to_the_endpoint_and_strips_it_from_the_path(kubectl: Kubectl) -> None:
    kubectl.apply(api(networking={"endpoint": "/flowers/iris"}))
    kubectl.wait_reason("echo", "Ready")
    (rule,) = kubectl.get("httproute", "api-echo")["spec"]["rules"]
    assert rule["matches"] == [{"path": {"type": "PathPrefix", "value": "/flowers/iris"}}]
    assert rule["backendRefs"][0]["name"] == "api-echo"
    assert kubectl.get("realtimeapi", "echo")["status"]["url"] == "http://apis.example.com/flowers/iris"


def test_a_route_that_the_gateway_rejects_is_reported_and_the_url_is_the_internal_one(
    kubectl: Kubectl,
) -> None:
    kubectl.apply(api())
    kubectl.wait_reason("echo", "Ready")
    refusal = {
        "type": "Accepted",
        "status": "False",
        "reason": "NotAllowedByListeners",
        "message": "no listener takes it",
    }
    parent = {"parentRef": {"name": "outside"}, "controllerName": "x/y", "conditions": [refusal]}
    patch = json.dumps({"status": {"parents": [parent]}})
    kubectl("patch", "httproute", "api-echo", "--subresource=status", "--type=merge", "-p", patch)
    ready = eventually(lambda: kubectl.ready("echo"), lambda ready: "RouteNotAccepted" in ready["message"])
    assert ready["status"] == "True"
    assert "no listener takes it" in ready["message"]
    url = kubectl.get("realtimeapi", "echo")["status"]["url"]
    assert url == f"http://api-echo.{kubectl.namespace}.svc:8080"


def test_the_younger_of_two_apis_with_one_endpoint_gets_it_when_the_older_is_deleted(
    kubectl: Kubectl,
) -> None:
    endpoint = f"/{kubectl.namespace}"
    kubectl.apply(api("older", networking={"endpoint": endpoint}))
    kubectl.wait_reason("older", "Ready")
    created = kubectl.get("realtimeapi", "older")["metadata"]["creationTimestamp"]
    kubectl.apply(api("younger", networking={"endpoint": endpoint}))
    ready = kubectl.wait_reason("younger", "EndpointTaken")
    assert kubectl.get("realtimeapi", "younger")["metadata"]["creationTimestamp"] >= created
    assert f"{kubectl.namespace}/older" in ready["message"]
    assert post(kubectl, "younger", 1).json() == {"got": 1}
    assert [route["metadata"]["name"] for route in kubectl.list("httproutes")] == ["api-older"]
    kubectl("delete", "realtimeapi", "older")
    kubectl.wait_reason("younger", "Ready")
    eventually(
        lambda: [route["metadata"]["name"] for route in kubectl.list("httproutes")],
        lambda names: "api-younger" in names,
    )


def test_two_replicas_have_a_budget_and_one_has_none(kubectl: Kubectl) -> None:
    kubectl.apply(api(replicas=2))
    kubectl.wait_message("echo", "2 of 2 replicas are ready")
    assert kubectl.get("pdb", "api-echo")["spec"]["maxUnavailable"] == 1
    kubectl("scale", "realtimeapi/echo", "--replicas=1")
    eventually(lambda: kubectl.list("pdb"), lambda found: found == [])


def test_pods_are_closed_to_all_but_requests(kubectl: Kubectl) -> None:
    kubectl.apply(api())
    kubectl.wait_reason("echo", "Ready")
    requests, admin = kubectl.get("networkpolicy", "api-echo")["spec"]["ingress"]
    assert requests == {"ports": [{"port": 8080, "protocol": "TCP"}]}
    assert admin["from"] == [{"namespaceSelector": {}}]


def test_a_secret_that_is_missing_is_named(kubectl: Kubectl) -> None:
    reference = {"secretKeyRef": {"name": "no-such-secret", "key": "token"}}
    kubectl.apply(api(handler={"env": [{"name": "TOKEN", "valueFrom": reference}]}), api("other"))
    assert "no-such-secret" in kubectl.wait_reason("echo", "PodConfigInvalid")["message"]
    kubectl.wait_reason("other", "Ready")
    kubectl("create", "secret", "generic", "no-such-secret", "--from-literal=token=1")
    kubectl.wait_reason("echo", "Ready")


def test_the_exit_of_a_pod_ends_ready_until_it_is_replaced(kubectl: Kubectl) -> None:
    dies = "import os\nclass Handler:\n    def handle_post(self, payload):\n        return payload\n"
    kubectl.apply(api(code=dies))
    kubectl.wait_reason("echo", "Ready")
    pod = kubectl.list("pods")[0]["metadata"]["name"]
    kubectl("delete", "pod", pod, "--grace-period=0", "--force")
    # The new pod may be ready before the status can be read, so the Event is awaited.
    eventually(
        lambda: [e["reason"] for e in kubectl.list("events") if e["involvedObject"]["name"] == "echo"],
        lambda reasons: set(reasons) - {"Ready"},
    )
    kubectl.wait_reason("echo", "Ready")
    assert kubectl.list("pods")[0]["metadata"]["name"] != pod


def test_a_deleted_namespace_deletes_its_contents(kubectl: Kubectl) -> None:
    kubectl.apply(api())
    kubectl.wait_reason("echo", "Ready")
    kubectl("delete", "namespace", kubectl.namespace)
    kubectl("create", "namespace", kubectl.namespace)
    assert kubectl.list("realtimeapis") == []
