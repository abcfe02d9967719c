"""Candidates on a cluster, with real replicas: what clients get and what the status says; stable pods are never replaced."""

from collections import Counter
from typing import Any

import httpx

from cortex_api.candidate import promoted

from .conftest import Kubectl, Operator, api, eventually
from .load import Load

Object = dict[str, Any]

CODE = (
    "import time\n"
    "class Handler:\n"
    "    def __init__(self, config):\n"
    "        while config.get('waits'):\n"
    "            time.sleep(0.1)\n"
    "        self.config = config\n"
    "    def handle_post(self, payload):\n"
    "        if self.config.get('fail'):\n"
    "            raise RuntimeError('broken')\n"
    "        return {'got': payload, 'version': self.config['version']}\n"
)


def release(candidate: Object | None, **spec: Any) -> Object:
    """Return an API of version 1. candidate: `spec.candidate`, in which `handler` is merged with version 2."""
    spec = {"handler": {"config": {"version": 1}}, **spec}
    if candidate is not None:
        handler = {"config": {"version": 2}, **candidate.get("handler", {})}
        spec["candidate"] = {**candidate, "handler": handler}
    return api(code=CODE, **spec)


def status(kubectl: Kubectl) -> Object:
    found: Object = kubectl.get("realtimeapi", "echo").get("status", {}).get("candidate", {})
    return found


def wait_phase(kubectl: Kubectl, phase: str, **fields: Any) -> Object:
    def is_reached(found: Object) -> bool:
        return found.get("phase") == phase and all(found.get(name) == value for name, value in fields.items())

    reached: Object = eventually(lambda: status(kubectl), is_reached)
    return reached


def versions(kubectl: Kubectl, requests: int, headers: dict[str, str] | None = None) -> Counter[int]:
    """Return how often each version answers."""
    with httpx.Client(base_url=kubectl.address("echo"), headers=headers, timeout=60) as client:
        answers = [client.post("/", json=number) for number in range(requests)]
    assert {answer.status_code for answer in answers} == {200}
    return Counter(answer.json()["version"] for answer in answers)


def stable_pods(kubectl: Kubectl) -> list[tuple[str, int]]:
    """Return the name of each stable pod, and how often it was restarted."""
    pods = kubectl.list("pods", "--selector=cortex.dev/component=api")
    return [
        (pod["metadata"]["name"], pod["status"]["containerStatuses"][0]["restartCount"])
        for pod in pods
        if "deletionTimestamp" not in pod["metadata"]
    ]


def test_a_candidate_answers_its_share_until_it_is_removed(kubectl: Kubectl) -> None:
    kubectl.apply(release(None))
    kubectl.wait_reason("echo", "Ready")
    pods = stable_pods(kubectl)
    with Load(f"{kubectl.address('echo')}/", clients=2) as load:
        kubectl.apply(release({"weight": 50}))
        wait_phase(kubectl, "Serving")
        eventually(lambda: versions(kubectl, 16), lambda found: set(found) == {1, 2})
        # The stable version answers instead of a candidate that stands still for half a second.
        eventually(lambda: versions(kubectl, 100), lambda shares: 25 < shares[2] < 75)
        assert versions(kubectl, 8, {"x-cortex-version": "stable"}) == {1: 8}
        of_candidate = {"x-cortex-version": "candidate"}
        eventually(lambda: versions(kubectl, 8, of_candidate), lambda found: found == {2: 8})
        kubectl.apply(release({"weight": 100}))
        eventually(lambda: versions(kubectl, 16), lambda found: set(found) == {2})
        assert "Serving" in kubectl("get", "realtimeapis")
        kubectl.apply(release(None))
        eventually(lambda: versions(kubectl, 16), lambda found: set(found) == {1})
        eventually(lambda: kubectl.list("pods"), lambda found: len(found) == 1)
    assert load.lost == {}
    assert stable_pods(kubectl) == pods
    eventually(lambda: status(kubectl), lambda found: found == {})
    eventually(
        lambda: {thing["metadata"]["name"] for thing in kubectl.list("deployments,services")},
        lambda names: names == {"api-echo"},
    )


def test_a_broken_candidate_costs_no_request_and_stays_rolled_back(
    kubectl: Kubectl, operator: Operator
) -> None:
    broken = {"config": {"version": 2, "fail": True}}
    rules = {"rollback": {"minRequests": 100}}
    kubectl.apply(release(None))
    kubectl.wait_reason("echo", "Ready")
    pods = stable_pods(kubectl)
    with Load(f"{kubectl.address('echo')}/", clients=2) as load:
        kubectl.apply(release({"weight": 50, "handler": broken, **rules}))
        found = wait_phase(kubectl, "RolledBack")
        assert found["reason"] == "ErrorRate"
        assert "rollback.errorRate is 5%" in found["message"]
        assert (found["weight"], found["errorRate"]) == (0, "100%")
        operator.stop()
        operator.start()
        kubectl.apply(release({"weight": 60, "handler": broken, **rules}))
        eventually(lambda: kubectl.get("realtimeapi", "echo"), is_observed)
        assert status(kubectl) == found
        assert versions(kubectl, 16) == {1: 16}
        # A changed candidate starts anew.
        kubectl.apply(release({"weight": 50, **rules}))
        wait_phase(kubectl, "Serving")
        eventually(lambda: versions(kubectl, 16), lambda seen: set(seen) == {1, 2})
    assert load.lost == {}
    assert stable_pods(kubectl) == pods
    reasons = [event["reason"] for event in kubectl.list("events")]
    assert "CandidateRolledBack" in reasons
    assert kubectl.ready("echo")["status"] == "True"


def is_observed(live: Object) -> bool:
    return bool(live["status"]["observedGeneration"] == live["metadata"]["generation"])


def test_a_candidate_that_clients_could_not_use_receives_no_request(kubectl: Kubectl) -> None:
    other = CODE.replace("handle_post", "handle_get").replace("self, payload", "self").replace("payload", "1")
    kubectl.apply(release({"weight": 100, "handler": {"source": {"files": {"handler.py": other}}}}))
    found = wait_phase(kubectl, "Failed")
    assert found["reason"] == "InterfaceChanged"
    assert found["message"].startswith("the candidate has no route POST /")
    assert versions(kubectl, 8) == {1: 8}
    # Neither does one that cannot start.
    missing = {"source": {"files": {"handler.py": "import no_such_module"}}}
    kubectl.apply(release({"weight": 100, "handler": missing}))
    found = wait_phase(kubectl, "Failed", reason="HandlerImportError")
    assert "no_such_module" in found["message"]
    assert versions(kubectl, 8) == {1: 8}
    ready = kubectl.ready("echo")
    assert (ready["status"], ready["reason"]) == ("True", "Ready")


def test_a_promotion_is_a_rolling_update_without_a_lost_request(kubectl: Kubectl) -> None:
    kubectl.apply(release({"weight": 50}, replicas=2))
    wait_phase(kubectl, "Serving")
    with Load(f"{kubectl.address('echo')}/", clients=2) as load:
        kubectl.apply(promoted(release({"weight": 50}, replicas=2)))
        eventually(lambda: kubectl.get("realtimeapi", "echo"), is_observed)
        kubectl("wait", "--for=condition=Ready", "realtimeapi/echo", "--timeout=60s")
        eventually(lambda: versions(kubectl, 16), lambda found: set(found) == {2})
        eventually(lambda: kubectl.list("pods"), lambda found: len(found) == 2)
    assert load.lost == {}


def test_differing_responses_end_a_mirrored_candidate(kubectl: Kubectl) -> None:
    rules = {"rollback": {"minRequests": 100, "disagreement": "5%"}}
    kubectl.apply(release({"mirror": 100, **rules}))
    wait_phase(kubectl, "Serving")
    with Load(f"{kubectl.address('echo')}/", clients=2) as load:
        found = wait_phase(kubectl, "RolledBack")
    assert load.lost == {}
    assert found["reason"] == "Disagreement"
    assert found["disagreement"] == "100%"
    # Copies are requests of the candidate as well, also those that it does not answer in time.
    assert found["requests"] >= found["compared"] >= 100
