"""A dev cluster with the rendered chart, where the operator runs as a pod."""

import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cortex_api import __version__
from cortex_devcluster import DevCluster
from tests.chart.rendering import of, render
from tests.cluster.conftest import Kubectl, free_port, nats  # noqa: F401 - a fixture

SYSTEM = "cortex-system"
IMAGE = f"cortex-operator:{__version__}"


def adapt(pod: dict[str, Any], kubeconfig: Path) -> None:
    """Adapt a pod to the dev cluster, which has no service account tokens, and where pods share one network namespace."""
    for container in pod["containers"]:
        # /tmp is a volume of the pod, so the host's /tmp is only reachable through the root of the process.
        container["env"] = [{"name": "KUBECONFIG", "value": f"/proc/self/root{kubeconfig}"}]
        for port in container.get("ports", ()):
            free = free_port()
            container["args"] = [
                str(free) if w == str(port["containerPort"]) else w for w in container["args"]
            ]
            port["containerPort"] = free


@pytest.fixture(scope="session")
def installed(nats: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:  # noqa: F811
    """Install the chart, wait for the operator, and return the kubeconfig."""
    folder = tmp_path_factory.mktemp("gitops")
    with DevCluster(folder, images=[IMAGE]) as cluster:
        kubectl = Kubectl(cluster.kubeconfig, SYSTEM)
        kubectl("create", "namespace", SYSTEM)
        objects = render(
            {"operator": {"replicas": 1}, "queue": {"url": nats}, "networkPolicy": {"enabled": True}}
        )
        for deployment in of("Deployment", objects):
            adapt(deployment["spec"]["template"]["spec"], cluster.kubeconfig)
        kinds = of("CustomResourceDefinition", objects)
        kubectl("apply", "--server-side", "-f", "-", stdin="\n---\n".join(map(json.dumps, kinds)))
        others = [found for found in objects if found not in kinds and found["kind"] != "Pod"]
        kubectl("apply", "--server-side", "-f", "-", stdin="\n---\n".join(map(json.dumps, others)))
        rolled = kubectl("rollout", "status", "deployment/cortex-operator", "--timeout=110s", ok=False)
        assert "successfully rolled out" in rolled, kubectl("logs", "deployment/cortex-operator", ok=False)
        yield cluster.kubeconfig


@pytest.fixture
def kubectl(installed: Path) -> Iterator[Kubectl]:
    """Return a kubectl for a new namespace."""
    name = f"gitops-{uuid.uuid4().hex[:8]}"
    kubectl = Kubectl(installed, name)
    kubectl("create", "namespace", name)
    yield kubectl
    kubectl("delete", "namespace", name, "--wait=false")
