"""The operator causes no drift: the resource in the cluster equals the applied manifest."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.chart.rendering import of, render
from tests.cluster.conftest import ECHO, Kubectl, eventually
from tests.gitops.conftest import SYSTEM, adapt

Object = dict[str, Any]
JOBS = "class Handler:\n    def handle_async(self, payload):\n        return payload\n"


def code(text: str) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "code"},
        "data": {"handler.py": text},
    }


def api(kind: str, **spec: Any) -> Object:
    source = {"configMap": {"name": "code"}}
    return {
        "apiVersion": "cortex.dev/v1alpha1",
        "kind": kind,
        "metadata": {"name": "served", "labels": {"team": "a"}, "annotations": {"note": "mine"}},
        "spec": {"handler": {"type": "python", "path": "handler.py", "source": source}, **spec},
    }


MANIFESTS = {
    "minimal": [code(ECHO), api("RealtimeAPI")],
    # Quantities, numbers and empty values in forms that a server might normalize.
    "unnormalized": [
        code(ECHO),
        api(
            "RealtimeAPI",
            compute={"cpu": "0.10", "mem": "131072Ki", "nodeSelector": {}, "tolerations": []},
            autoscaling={
                "minReplicas": 1,
                "maxReplicas": 2,
                "targetInFlight": 1.0,
                "downscaleStabilizationPeriod": "300s",
            },
            updateStrategy={"maxSurge": "25%", "maxUnavailable": 0},
            networking={"endpoint": "/served"},
        ),
    ],
    "async": [code(JOBS), api("AsyncAPI", replicas=1)],
}


def text(manifests: list[Object]) -> str:
    return "\n---\n".join(map(json.dumps, manifests))


def comparable(live: Object) -> Object:
    """Return the part of an object that GitOps tools compare: all except status and bookkeeping."""
    metadata = {
        key: value
        for key, value in live["metadata"].items()
        if key not in ("managedFields", "resourceVersion")
    }
    return {**{key: value for key, value in live.items() if key != "status"}, "metadata": metadata}


def fields(entry: Object) -> set[str]:
    return set(entry["fieldsV1"])


SERVER_SIDE = ("--server-side", "--field-manager=argocd-controller")


@pytest.mark.parametrize(
    ("name", "how"), [("unnormalized", SERVER_SIDE), ("unnormalized", ()), ("async", SERVER_SIDE)]
)
def test_apply_changes_nothing_after_the_operator_has_reconciled(
    kubectl: Kubectl, name: str, how: tuple[str, ...], tmp_path: Path
) -> None:
    manifests = MANIFESTS[name]
    kind = manifests[-1]["kind"].lower()
    file = tmp_path / "api.json"
    file.write_text(text(manifests))
    kubectl("apply", *how, "-f", str(file))
    kubectl.wait_reason("served", "Ready", kind)
    eventually(lambda: kubectl.ready("served", kind).get("status"), lambda status: status == "True")
    before = json.loads(kubectl("get", kind, "served", "-o", "json", "--show-managed-fields"))
    assert before["metadata"]["generation"] == 1
    assert before["spec"] == manifests[-1]["spec"]
    assert set(before["metadata"]["labels"]) == {"team"}
    assert "finalizers" not in before["metadata"]

    # kubectl reads and merges in two requests: a status that is written between them is a difference, once.
    eventually(lambda: diff(kubectl, *how, "-f", str(file)), lambda found: found == (0, ""))

    output = kubectl("apply", *how, "--dry-run=server", "-o", "json", "-f", str(file))
    result = json.loads(output)["items"][-1]
    assert comparable(result) == comparable(before)

    entries = [e for e in before["metadata"]["managedFields"] if e["manager"].startswith("cortex-operator")]
    assert entries
    for entry in entries:
        assert entry.get("subresource") == "status"
        assert fields(entry) == {"f:status"}


def diff(kubectl: Kubectl, *words: str) -> tuple[int, str]:
    """Return exit status and output of `kubectl diff`."""
    done = subprocess.run([*kubectl._command, "diff", *words], capture_output=True, text=True, timeout=120)
    return done.returncode, done.stdout


def test_child_objects_have_an_owner_and_no_tracking_label(kubectl: Kubectl) -> None:
    """Argo CD ignores objects with an owner, and prunes objects with its tracking label."""
    manifests = MANIFESTS["minimal"]
    tracked = {
        **manifests[-1],
        "metadata": {"name": "served", "labels": {"app.kubernetes.io/instance": "models"}},
    }
    kubectl.apply(manifests[0], tracked)
    kubectl.wait_reason("served", "Ready")
    for kind in ("deployment", "service", "configmap", "networkpolicy"):
        for child in kubectl.list(kind):
            if child["metadata"]["name"] != "code":
                assert [owner["kind"] for owner in child["metadata"]["ownerReferences"]] == ["RealtimeAPI"]
                assert "app.kubernetes.io/instance" not in child["metadata"]["labels"]


def test_helm_test_succeeds(installed: Path) -> None:
    kubectl = Kubectl(installed, SYSTEM)
    (pod,) = of("Pod", render())
    adapt(pod["spec"], installed)
    # The dev cluster has no DNS.
    service = kubectl.get("service", "cortex-operator-metrics")
    (container,) = pod["spec"]["containers"]
    assert (
        container["args"][1]
        == f"http://{service['metadata']['name']}.{SYSTEM}.svc:{service['spec']['ports'][0]['port']}"
    )
    container["args"][1] = f"http://{service['spec']['clusterIP']}:{service['spec']['ports'][0]['port']}"
    kubectl.apply(pod)
    phase = eventually(
        lambda: kubectl.get("pod", "cortex-test")["status"].get("phase"),
        lambda p: p in ("Succeeded", "Failed"),
    )
    log = kubectl("logs", "cortex-test")
    assert phase == "Succeeded", log
    assert [line.split(":")[0] for line in log.splitlines()] == ["operator", "realtimeapis", "asyncapis"]


def test_helm_test_reports_failed_checks(installed: Path) -> None:
    kubectl = Kubectl(installed, SYSTEM)
    (pod,) = of("Pod", render({"watchNamespaces": [SYSTEM]}, "broken"))
    adapt(pod["spec"], installed)
    pod["metadata"]["namespace"] = SYSTEM
    kubectl.apply(pod)
    phase = eventually(
        lambda: kubectl.get("pod", "broken-test")["status"].get("phase"),
        lambda p: p in ("Succeeded", "Failed"),
    )
    assert phase == "Failed"
    log = kubectl("logs", "broken-test")
    assert "operator: " in log
    assert f"realtimeapis: 0 in {SYSTEM}" in log
