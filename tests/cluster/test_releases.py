"""Releases on a cluster: the history of an API, and what continues while the operator is down."""

import os
import subprocess
import sys
from pathlib import Path

from .conftest import Kubectl, Operator, eventually
from .load import Load
from .test_candidates import release, stable_pods, status, versions, wait_phase


def cortex(kubeconfig: Path, kubectl: Kubectl, *words: str) -> str:
    command = [
        sys.executable,
        "-m",
        "cortex_cli",
        *words,
        "--kubeconfig",
        str(kubeconfig),
        "-n",
        kubectl.namespace,
    ]
    done = subprocess.run(command, env=os.environ, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def revisions(kubectl: Kubectl) -> list[int]:
    return sorted(each["revision"] for each in kubectl.list("controllerrevisions"))


def test_each_ready_spec_is_a_revision_and_a_rollback_loses_no_request(
    kubectl: Kubectl, kubeconfig: Path
) -> None:
    kubectl.apply(release(None))
    eventually(lambda: revisions(kubectl), lambda found: found == [1])
    # Neither replicas nor a candidate is a revision.
    kubectl.apply(release({"weight": 50}, replicas=2))
    wait_phase(kubectl, "Serving")
    with Load(f"{kubectl.address('echo')}/", clients=2) as load:
        assert "generation" in cortex(kubeconfig, kubectl, "promote", "echo")
        eventually(lambda: revisions(kubectl), lambda found: found == [1, 2])
        eventually(lambda: versions(kubectl, 8), lambda found: set(found) == {2})
        assert "handler.config.version: 1 -> 2" in cortex(kubeconfig, kubectl, "history", "echo")
        cortex(kubeconfig, kubectl, "rollback", "echo")
        eventually(lambda: revisions(kubectl), lambda found: found == [2, 3])
        eventually(lambda: versions(kubectl, 8), lambda found: set(found) == {1})
    assert load.lost == {}
    assert kubectl.get("realtimeapi", "echo")["spec"]["replicas"] == 2
    kubectl("delete", "realtimeapi", "echo")
    eventually(lambda: revisions(kubectl), lambda found: found == [])


def test_the_split_continues_without_the_operator(kubectl: Kubectl, operator: Operator) -> None:
    kubectl.apply(release({"weight": 50}))
    wait_phase(kubectl, "Serving")
    eventually(lambda: versions(kubectl, 16), lambda found: set(found) == {1, 2})
    operator.stop()
    try:
        pods = stable_pods(kubectl)
        kubectl("delete", "pod", pods[0][0])
        # A new stable pod has the split without the operator.
        eventually(lambda: stable_pods(kubectl), lambda found: found not in ([], pods))
        kubectl("wait", "--for=condition=Ready", "pods", "--all", "--timeout=60s")
        eventually(lambda: versions(kubectl, 16), lambda found: set(found) == {1, 2})
        eventually(lambda: versions(kubectl, 100), lambda shares: 25 < shares[2] < 75)
    finally:
        operator.start()


def test_a_candidate_that_gets_only_copies_and_fails_is_rolled_back(kubectl: Kubectl) -> None:
    broken = {"config": {"version": 2, "fail": True}}
    kubectl.apply(release({"mirror": 100, "handler": broken, "rollback": {"minRequests": 100}}))
    wait_phase(kubectl, "Serving")
    with Load(f"{kubectl.address('echo')}/", clients=2) as load:
        assert wait_phase(kubectl, "RolledBack")["reason"] == "ErrorRate"
    assert load.lost == {}
    assert status(kubectl)["mirror"] == 0
