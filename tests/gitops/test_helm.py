"""`helm install`, `upgrade` and `uninstall` on a cluster with existing CustomResourceDefinitions.

The pods do not run, because the images do not exist.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import helm_python
import pytest
import yaml

from cortex_devcluster import DevCluster
from tests.chart.rendering import CHART, ROOT
from tests.cluster.conftest import Kubectl

NAMESPACE = "cortex"


@dataclass
class Helm:
    config: helm_python.Config
    kubectl: Kubectl

    def install(self) -> None:
        self.config.install(CHART, "cortex", {}, namespace=NAMESPACE)

    def upgrade(self, values: dict[str, Any], **how: Any) -> None:
        self.config.upgrade(CHART, "cortex", values, namespace=NAMESPACE, **how)

    def log_level(self) -> str:
        """Return the log level in the ConfigMap of the operator."""
        config = self.kubectl.get("configmap", "cortex-operator")
        return str(yaml.safe_load(config["data"]["platform.yaml"])["logLevel"])


@pytest.fixture
def helm(tmp_path: Path) -> Iterator[Helm]:
    with DevCluster(tmp_path) as cluster:
        kubectl = Kubectl(cluster.kubeconfig, NAMESPACE)
        kubectl("create", "namespace", NAMESPACE)
        kubectl("apply", "-f", str(ROOT / "crds"))
        with helm_python.Config(
            kubeconfig_path=cluster.kubeconfig, namespace=NAMESPACE, storage_driver="secret"
        ) as config:
            yield Helm(config, kubectl)


def test_release_adopts_the_crds_keeps_its_values_and_keeps_the_apis(helm: Helm) -> None:
    # The procedure in docs/chart.md.
    with pytest.raises(helm_python.HelmReleaseError, match="invalid ownership metadata"):
        helm.install()
    page = (ROOT / "docs" / "chart.md").read_text().replace("\\\n", "")
    commands = re.findall(r"^kubectl (?:label|annotate) .*", page, re.MULTILINE)
    assert len(commands) == 2
    for command in commands:
        helm.kubectl(*command.split()[1:])
    helm.install()
    assert helm.log_level() == "info"

    # Values are kept until they are reset.
    helm.upgrade({"logLevel": "debug"})
    helm.upgrade({})
    assert helm.log_level() == "debug"
    helm.upgrade({"operator": {"replicas": 1}}, reset_values=True)
    assert helm.log_level() == "info"
    assert helm.kubectl.get("deployment", "cortex-operator")["spec"]["replicas"] == 1

    source = {"type": "python", "path": "h.py", "source": {"files": {"h.py": "class Handler: pass"}}}
    api = {"apiVersion": "cortex.dev/v1alpha1", "kind": "RealtimeAPI", "spec": {"handler": source}}
    helm.kubectl.apply({**api, "metadata": {"name": "stays"}})
    helm.config.uninstall("cortex")
    assert helm.kubectl.list("deployment") == []
    assert [found["metadata"]["name"] for found in helm.kubectl.list("realtimeapi")] == ["stays"]
