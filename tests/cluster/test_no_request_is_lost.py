"""No request is lost while pods are replaced, added and removed."""

import contextlib

import httpx
import pytest

from .conftest import ECHO, Kubectl, api, code, eventually
from .load import Load


def pods(kubectl: Kubectl) -> set[str]:
    return {
        pod["metadata"]["name"] for pod in kubectl.list("pods") if "deletionTimestamp" not in pod["metadata"]
    }


def all_gone(kubectl: Kubectl, names: set[str]) -> None:
    eventually(
        lambda: {pod["metadata"]["name"] for pod in kubectl.list("pods")}, lambda there: not there & names
    )


def check(load: Load) -> None:
    assert load.lost == {}, load.errors[:5]
    assert load.sent > 100


def test_in_a_rolling_update(kubectl: Kubectl) -> None:
    kubectl.apply(api(replicas=2))
    kubectl.wait_message("echo", "2 of 2 replicas are ready")
    old = pods(kubectl)
    with Load(f"{kubectl.address('echo')}/") as load:
        kubectl.apply(api(code=ECHO + "# new\n", replicas=2))
        all_gone(kubectl, old)
        kubectl.wait_message("echo", "2 of 2 replicas are ready")
    check(load)


def test_in_a_change_of_the_code_in_its_config_map(kubectl: Kubectl) -> None:
    kubectl.apply(code(ECHO), api(handler={"source": {"configMap": {"name": "code"}}}))
    kubectl.wait_reason("echo", "Ready")
    old = pods(kubectl)
    with Load(f"{kubectl.address('echo')}/") as load:
        kubectl.apply(code(ECHO + "# new\n"))
        all_gone(kubectl, old)
    check(load)


def test_in_a_scale_in(kubectl: Kubectl) -> None:
    kubectl.apply(api(replicas=3))
    kubectl.wait_message("echo", "3 of 3 replicas are ready")
    old = pods(kubectl)
    with Load(f"{kubectl.address('echo')}/") as load:
        kubectl("scale", "realtimeapi/echo", "--replicas=1")
        eventually(lambda: pods(kubectl), lambda there: len(there) == 1)
        all_gone(kubectl, old - pods(kubectl))
    check(load)


def test_when_pods_are_evicted_one_after_the_other(kubectl: Kubectl) -> None:
    kubectl.apply(api(replicas=2))
    kubectl.wait_message("echo", "2 of 2 replicas are ready")
    with Load(f"{kubectl.address('echo')}/") as load:
        for name in pods(kubectl):
            kubectl("delete", "pod", name, "--wait=false")
            all_gone(kubectl, {name})
            kubectl.wait_message("echo", "2 of 2 replicas are ready")
    check(load)


def test_when_the_only_pod_is_evicted(kubectl: Kubectl) -> None:
    """It accepts connections until its replacement is ready."""
    kubectl.apply(api())
    kubectl.wait_reason("echo", "Ready")
    old = pods(kubectl)
    with Load(f"{kubectl.address('echo')}/") as load:
        kubectl("delete", "pod", *old, "--wait=false")
        all_gone(kubectl, old)
        kubectl.wait_reason("echo", "Ready")
    check(load)


@pytest.mark.parametrize("processes", [1, 2])
def test_a_killed_process_loses_only_its_running_requests(kubectl: Kubectl, processes: int) -> None:
    dies = ECHO + "    def handle_get(self):\n        import os\n        os.kill(os.getpid(), 9)\n"
    kubectl.apply(api(code=dies, handler={"processesPerReplica": processes}))
    kubectl.wait_reason("echo", "Ready")
    clients = 8

    def ready_since() -> list[str]:
        conditions = [at for pod in kubectl.list("pods") for at in pod["status"]["conditions"]]
        return [at["lastTransitionTime"] for at in conditions if at["type"] == "Ready"]

    first = ready_since()
    with Load(f"{kubectl.address('echo')}/", clients) as load:
        eventually(lambda: load.sent, lambda sent: sent > 100)
        with contextlib.suppress(httpx.TransportError):
            assert httpx.get(f"{kubectl.address('echo')}/").is_error
        before = load.sent
        eventually(lambda: load.sent, lambda sent: sent > before + 500)
    assert ready_since() == first, "the pod left its Service while its process was started again"
    assert sum(load.lost.values()) <= clients, load.errors
    assert load.sent > before + 500
