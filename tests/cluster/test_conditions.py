"""The status during scaling, after the exit of a worker process, and during a long start."""

import httpx
import pytest

from .conftest import Kubectl, api, eventually

FRAGILE = """
import os

class Handler:
    def handle_post(self, payload):
        if payload == "exit":
            os._exit(3)
        return payload
"""
SLOW = """
import time

class Handler:
    def __init__(self, config):
        while config.get("waits"):
            time.sleep(0.1)

    def handle_post(self, payload):
        return payload
"""


def condition(kubectl: Kubectl, name: str, kind: str) -> dict[str, str]:
    conditions = kubectl.get("realtimeapi", name).get("status", {}).get("conditions", [])
    return next((c for c in conditions if c["type"] == kind), {})


def test_an_api_stays_ready_while_replicas_are_added_and_removed(kubectl: Kubectl) -> None:
    kubectl.apply(api())
    since = kubectl.wait_reason("echo", "Ready")["lastTransitionTime"]
    for replicas in (3, 1):
        kubectl("scale", "realtimeapi/echo", f"--replicas={replicas}")
        kubectl.wait_message("echo", f"{replicas} of {replicas} replicas are ready")
        ready = kubectl.ready("echo")
        assert (ready["status"], ready["lastTransitionTime"]) == ("True", since)


def test_the_end_of_a_worker_process_degrades_an_api_that_answers(kubectl: Kubectl) -> None:
    kubectl.apply(api(code=FRAGILE))
    kubectl.wait_reason("echo", "Ready")
    with pytest.raises(httpx.TransportError):
        httpx.post(f"{kubectl.address('echo')}/", json="exit", timeout=60)
    ready = kubectl.wait_reason("echo", "CrashLoop")
    assert "exited with status 3" in ready["message"]
    assert condition(kubectl, "echo", "Degraded")["status"] == "True"
    failure = kubectl.get("realtimeapi", "echo")["status"]["lastFailure"]
    assert (failure["reason"], failure["container"]) == ("CrashLoop", "api")
    assert "recoveredAt" not in failure
    eventually(
        lambda: [(e["type"], e["reason"]) for e in kubectl.list("events")],
        lambda events: ("Warning", "CrashLoop") in events,
    )
    eventually(lambda: kubectl.ready("echo")["status"], lambda status: status == "True")


def test_a_long_start_reports_the_current_step(kubectl: Kubectl) -> None:
    kubectl.apply(api(code=SLOW, handler={"config": {"waits": True}}))
    eventually(
        lambda: kubectl.ready("echo").get("message", ""),
        lambda message: "constructing the handler since" in message,
    )
    assert condition(kubectl, "echo", "Progressing")["reason"] == "Starting"
    kubectl.apply(api(code=SLOW))
    kubectl.wait_reason("echo", "Ready")
