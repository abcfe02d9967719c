"""The in-flight autoscaler: replicas follow the load, and the status has each decision."""

import threading

import httpx

from .conftest import Kubectl, api, eventually

SLOW = "import time\nclass Handler:\n    def handle_post(self, payload):\n        time.sleep(0.2)\n        return payload\n"


def test_requests_in_flight_bring_replicas(kubectl: Kubectl) -> None:
    scaling = {"targetInFlight": 1, "maxReplicas": 3, "window": "10s", "upscaleStabilizationPeriod": "0s"}
    kubectl.apply(api(code=SLOW, autoscaling=scaling))
    kubectl.wait_reason("echo", "Ready")
    address, stop, failed = kubectl.address("echo"), threading.Event(), []

    def load() -> None:
        while not stop.is_set():
            try:
                httpx.post(f"{address}/", json=1, timeout=60).raise_for_status()
            except httpx.HTTPError as error:
                failed.append(error)

    clients = [threading.Thread(target=load) for _ in range(4)]
    for client in clients:
        client.start()
    try:
        eventually(
            lambda: kubectl.get("deployment", "api-echo")["spec"]["replicas"], lambda n: n >= 2, seconds=90
        )
        autoscaling = eventually(
            lambda: kubectl.get("realtimeapi", "echo")["status"]["autoscaling"],
            lambda scaling: scaling.get("desired", 0) >= 2,
        )
    finally:
        stop.set()
        for client in clients:
            client.join()
    assert autoscaling["provider"] == "builtin"
    assert "in-flight requests on average over 10s, target 1 per replica" in autoscaling["reason"]
    assert failed == []


def test_a_manually_set_number_of_replicas_is_moved_into_the_bounds(kubectl: Kubectl) -> None:
    kubectl.apply(api(autoscaling={"targetInFlight": 1, "maxReplicas": 2}))
    kubectl.wait_reason("echo", "Ready")
    kubectl("scale", "deployment/api-echo", "--replicas=4")
    eventually(lambda: kubectl.get("deployment", "api-echo")["spec"]["replicas"], lambda n: n == 2)
