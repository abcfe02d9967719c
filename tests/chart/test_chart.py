"""The chart, rendered and linted by the real helm library: valid, strict, and without a right that it doesn't need."""

from pathlib import Path
from typing import Any

import helm_python
import kubernetes_validate
import pytest
import yaml

from cortex_operator.platform import Platform

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "charts" / "cortex"
KUBERNETES = "1.36"

VALUES: list[dict[str, Any]] = [
    {},
    {"crds": {"enabled": False}},
    {"crds": {"keep": False}},
    {"watchNamespaces": ["a", "b"], "imagePullSecrets": ["registry"], "logLevel": "debug"},
    {
        "operator": {
            "image": {"repository": "r/o", "tag": "2", "pullPolicy": "Always"},
            "resources": {"requests": {"cpu": "1"}, "limits": {"memory": "1Gi"}},
            "nodeSelector": {"pool": "system"},
            "tolerations": [{"key": "system", "operator": "Exists"}],
        },
        "runtime": {"image": {"repository": "r/r", "tag": "3", "pullPolicy": "Always"}},
        "serviceAccount": {"annotations": {"role": "arn:x"}},
    },
    {"operator": {"replicas": 1}, "tensorflowServing": {"image": None, "gpuImage": "g:1"}},
    {
        "gateway": {"name": "g", "namespace": "n", "sectionName": "s", "hostname": "h", "scheme": "https"},
        "queue": {"url": "nats://nats:4222", "secretName": "q"},
        "networkPolicy": {
            "enabled": True,
            "allowFrom": [{"podSelector": {}}],
            "monitoringFrom": [{"namespaceSelector": {}}],
        },
    },
    {
        "ingress": {
            "className": "nginx",
            "hostname": "h",
            "scheme": "https",
            "tlsSecretName": "t",
            "path": "/x{endpoint}",
            "pathType": "Prefix",
            "annotations": {"a": "b"},
        }
    },
]


def render(values: dict[str, Any] | None = None) -> list[dict[str, Any]]:
    chart = helm_python.Chart.load(str(CHART))
    try:
        chart.validate_schema(values or {})
        files = chart.render(values or {}, name="cortex", namespace="cortex-system")
    finally:
        chart.close()
    documents = (text for name, text in files.items() if not name.endswith(("NOTES.txt", ".tpl")))
    return [found for text in documents for found in yaml.safe_load_all(text) if found]


def of(kind: str, objects: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [found for found in objects if found["kind"] == kind]


@pytest.mark.parametrize("values", VALUES)
def test_every_object_is_valid_kubernetes(values: dict[str, Any]) -> None:
    for rendered in render(values):
        kubernetes_validate.validate(rendered, KUBERNETES, strict=True)


def test_helm_finds_nothing_to_complain_of() -> None:
    found = helm_python.lint(str(CHART))
    assert found["errors"] == []
    assert [m for m in found["messages"] if m["severity"] > 1] == []  # 1 is information


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"crd": {}}, "crd"),
        ({"operator": {"replica": 2}}, "replica"),
        ({"operator": {"image": {"tagg": "1"}}}, "tagg"),
        ({"logLevel": "loud"}, "logLevel"),
        ({"watchNamespaces": "default"}, "watchNamespaces"),
    ],
)
def test_a_misspelt_or_wrong_value_is_refused_with_its_name(values: dict[str, Any], named: str) -> None:
    with pytest.raises(helm_python.HelmError, match=named):
        render(values)


def test_crds_are_those_of_the_models_and_stay_unless_told_otherwise() -> None:
    for name in ("realtimeapis", "asyncapis"):
        generated = (ROOT / "crds" / f"{name}.yaml").read_text()
        assert (CHART / "files" / "crds" / f"{name}.yaml").read_text() == generated
    crds = of("CustomResourceDefinition", render())
    assert {crd["metadata"]["name"] for crd in crds} == {"realtimeapis.cortex.dev", "asyncapis.cortex.dev"}
    assert all(crd["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"} for crd in crds)
    loose = of("CustomResourceDefinition", render({"crds": {"keep": False}}))
    assert all("annotations" not in crd["metadata"] for crd in loose)
    assert of("CustomResourceDefinition", render({"crds": {"enabled": False}})) == []


@pytest.mark.parametrize("values", [{}, {"watchNamespaces": ["a"]}])
def test_rights_have_no_wildcard_and_touch_no_secret(values: dict[str, Any]) -> None:
    roles = [*of("ClusterRole", render(values)), *of("Role", render(values))]
    assert roles
    for rule in (rule for role in roles for rule in role["rules"]):
        words = [*rule["apiGroups"], *rule["resources"], *rule["verbs"]]
        assert "*" not in words
        assert "secrets" not in words


def test_a_list_of_namespaces_gives_rights_in_these_alone() -> None:
    rendered = render({"watchNamespaces": ["a", "b"]})
    assert of("ClusterRole", rendered) == []
    roles = {(role["metadata"]["namespace"], role["metadata"]["name"]) for role in of("Role", rendered)}
    lease = ("cortex-system", "cortex-operator-lease")
    assert roles == {("a", "cortex-operator"), ("b", "cortex-operator"), lease}


def test_the_operator_runs_restricted() -> None:
    (deployment,) = of("Deployment", render())
    pod = deployment["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in pod["containers"]:
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }


@pytest.mark.parametrize("values", VALUES)
def test_the_operator_understands_its_platform_file(values: dict[str, Any]) -> None:
    (config,) = of("ConfigMap", render(values))
    platform = Platform.model_validate(yaml.safe_load(config["data"]["platform.yaml"]))
    assert list(platform.watch_namespaces) == values.get("watchNamespaces", [])
    image = values.get("runtime", {}).get("image", {})
    assert (
        platform.runtime_image == f"{image.get('repository', 'cortex-runtime')}:{image.get('tag', '0.1.0')}"
    )


def test_nothing_differs_from_one_rendering_to_the_next() -> None:
    assert render() == render()
