"""A cluster on which the chart is installed: the operator is a pod of it, with what `helm template | kubectl apply` makes."""

import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cortex_devcluster import DevCluster
from tests.chart.rendering import of, render
from tests.cluster.conftest import Kubectl, free_port, nats  # noqa: F401 - a fixture

SYSTEM = "cortex-system"
IMAGE = "cortex-operator:0.1.0"


def adapted(pod: dict[str, Any], kubeconfig: Path) -> None:
    """The dev cluster has no tokens of service accounts, and its pods share their ports where they listen on all addresses."""
    for container in pod["containers"]:
        # /tmp is a volume of the pod; this machine's is behind its root.
        container["env"] = [{"name": "KUBECONFIG", "value": f"/proc/self/root{kubeconfig}"}]
        for port in container.get("ports", ()):
            free = free_port()
            container["args"] = [
                str(free) if w == str(port["containerPort"]) else w for w in container["args"]
            ]
            port["containerPort"] = free


@pytest.fixture(scope="session")
def installed(nats: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:  # noqa: F811
    """The kubeconfig, once the operator has rolled out."""
    folder = tmp_path_factory.mktemp("gitops")
    with DevCluster(folder, images=[IMAGE]) as cluster:
        kubectl = Kubectl(cluster.kubeconfig, SYSTEM)
        kubectl("create", "namespace", SYSTEM)
        objects = render(
            {"operator": {"replicas": 1}, "queue": {"url": nats}, "networkPolicy": {"enabled": True}}
        )
        for deployment in of("Deployment", objects):
            adapted(deployment["spec"]["template"]["spec"], cluster.kubeconfig)
        kinds = of("CustomResourceDefinition", objects)
        kubectl("apply", "--server-side", "-f", "-", stdin="\n---\n".join(map(json.dumps, kinds)))
        others = [found for found in objects if found not in kinds and found["kind"] != "Pod"]
        kubectl("apply", "--server-side", "-f", "-", stdin="\n---\n".join(map(json.dumps, others)))
        rolled = kubectl("rollout", "status", "deployment/cortex-operator", "--timeout=55s", ok=False)
        assert "successfully rolled out" in rolled, kubectl("logs", "deployment/cortex-operator", ok=False)
        yield cluster.kubeconfig


@pytest.fixture
def kubectl(installed: Path) -> Iterator[Kubectl]:
    """In a namespace of the test's own."""
    name = f"gitops-{uuid.uuid4().hex[:8]}"
    kubectl = Kubectl(installed, name)
    kubectl("create", "namespace", name)
    yield kubectl
    kubectl("delete", "namespace", name, "--wait=false")
