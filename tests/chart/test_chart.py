"""The chart, rendered and linted with the helm library: valid objects, strict values and minimal permissions."""

import functools
import json
import runpy
from typing import Any

import helm_python
import kubernetes_validate
import pytest
import yaml

from cortex_api import __version__
from cortex_operator.platform import Platform
from tests.chart.rendering import CHART, EVERYTHING, ROOT, Object, files, of, pods, render
from tests.chart.restricted import violations

KUBERNETES = ("1.30", "1.37")
FOREIGN = ("monitoring.coreos.com/v1", "karpenter.sh/v1")
"""API groups that are not part of Kubernetes."""
REFERENCE = runpy.run_path(str(ROOT / "charts" / "reference.py"))


@pytest.mark.parametrize("values", EVERYTHING)
def test_every_object_is_valid_kubernetes(values: Object) -> None:
    for rendered in render(values):
        if rendered["apiVersion"] not in FOREIGN:
            validate(json.dumps(rendered))


@functools.cache
def validate(rendered: str) -> None:
    for version in KUBERNETES:
        kubernetes_validate.validate(json.loads(rendered), version, strict=True)


@pytest.mark.parametrize("values", EVERYTHING)
def test_every_pod_is_admitted_by_pod_security_restricted(values: Object) -> None:
    found = pods(render(values))
    assert found
    assert [words for pod in found for words in violations(pod)] == []
    for container in (container for pod in found for container in pod["containers"]):
        assert container["securityContext"]["readOnlyRootFilesystem"] is True
        assert container["resources"]["requests"]
        assert container["resources"]["limits"]["memory"]


def paths(values: Object, prefix: str = "") -> set[str]:
    """Return the paths of all values and sections."""
    found = set()
    for key, value in values.items():
        found.add(f"{prefix}{key}")
        if isinstance(value, dict):
            found |= paths(value, f"{prefix}{key}.")
    return found


def test_every_value_is_tested_and_has_a_comment_and_a_schema() -> None:
    leaves = [
        leaf for value in REFERENCE["read"]((CHART / "values.yaml").read_text()) for leaf in value.leaves()
    ]
    assert [leaf.path for leaf in leaves if not leaf.comment] == []
    tested = set[str]().union(*(paths(values) for values in EVERYTHING))
    assert {leaf.path for leaf in leaves} - tested == set()
    schema = json.loads((CHART / "values.schema.json").read_text())
    defaults = yaml.safe_load((CHART / "values.yaml").read_text())
    assert set(schema["properties"]) - {"global"} == set(defaults)
    assert undocumented(schema, schema, defaults) == []


def undocumented(node: Object, schema: Object, defaults: Any, prefix: str = "") -> list[str]:
    """Return the properties in the schema that are missing in values.yaml."""
    if "$ref" in node:
        node = schema["definitions"][node["$ref"].rsplit("/", 1)[1]]
    found = []
    for name, child in node.get("properties", {}).items():
        path = f"{prefix}{name}"
        if path == "global" or prefix.endswith("resources."):
            continue
        if name not in defaults:
            found.append(path)
        elif isinstance(defaults[name], dict) and defaults[name]:
            found += undocumented(child, schema, defaults[name], f"{path}.")
    return found


def test_reference_page_is_up_to_date() -> None:
    assert REFERENCE["main"](["--check"]) == 0


def test_helm_lint_succeeds() -> None:
    found = helm_python.lint(str(CHART))
    assert found["errors"] == []
    assert [m for m in found["messages"] if m["severity"] > 1] == []  # 1 is information


POOL = {"name": "a", "max": 1, "instanceTypes": ["m"]}
KARPENTER = {"enabled": True, "nodeClass": {"name": "c"}}
PEERS = [{"podSelector": {}}]


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"crd": {}}, "crd"),
        ({"operator": {"replica": 2}}, "replica"),
        ({"operator": {"replicas": 0}}, "replicas"),
        ({"operator": {"image": {"tagg": "1"}}}, "tagg"),
        ({"operator": {"image": {"digest": "sha256:1"}}}, "digest"),
        ({"operator": {"resources": {"limit": {}}}}, "limit"),
        ({"operator": {"resources": {"limits": {"memory": "1Gb"}}}}, "memory"),
        ({"operator": {"tolerations": [{"keys": "a"}]}}, "keys"),
        ({"logLevel": "loud"}, "logLevel"),
        ({"watchNamespaces": "default"}, "watchNamespaces"),
        ({"queue": {"url": "http://x"}}, "queue"),
        ({"nats": {"replicas": 2}}, "replicas"),
        ({"nats": {"storage": {"size": "10GB"}}}, "size"),
        ({"networkPolicy": {"enabled": True, "allowFrom": [{"podselector": {}}]}}, "podselector"),
        ({"networkPolicy": {"enabled": True, "allowFrom": [{}]}}, "allowFrom"),
        ({"tracing": {"endpoint": "collector:4318"}}, "endpoint"),
        ({"tracing": {"sampling": 101}}, "sampling"),
        ({"metrics": {"rules": {"errorRatio": 5}}}, "errorRatio"),
        ({"metrics": {"rules": {"notReadyFor": "soon"}}}, "notReadyFor"),
        ({"karpenter": KARPENTER, "nodePools": [{"name": "a", "max": 1}]}, "instanceTypes"),
        ({"karpenter": KARPENTER, "nodePools": [{**POOL, "maximum": 1}]}, "maximum"),
        ({"extraObjects": [{"metadata": {}}]}, "extraObjects"),
        # Values that are valid, but not together.
        ({"gateway": {"name": "g"}, "ingress": {"className": "i"}}, "gateway.name and ingress.className"),
        ({"gateway": {"hostname": "h"}}, "gateway.hostname"),
        ({"gateway": {"grpcHostname": "{name}-{namespace}.h"}}, "gateway.grpcHostname requires gateway.name"),
        ({"gateway": {"name": "g", "grpcHostname": "{name}.h"}}, "grpcHostname"),
        ({"gateway": {"name": "g", "grpcSectionName": "s"}}, "gateway.grpcSectionName requires"),
        ({"ingress": {"tlsSecretName": "h"}}, "ingress.tlsSecretName"),
        ({"nats": {"enabled": True}, "queue": {"url": "nats://x:1"}}, "nats.enabled and queue.url"),
        ({"nats": {"tokenSecretName": "t"}, "queue": {"secretName": "s"}}, "nats.tokenSecretName"),
        ({"nats": {"enabled": True, "tokenSecretName": "t"}}, "queue.secretName"),
        ({"networkPolicy": {"allowFrom": PEERS}}, "networkPolicy.allowFrom"),
        ({"networkPolicy": {"monitoringFrom": PEERS}}, "networkPolicy.monitoringFrom"),
        (
            {"networkPolicy": {"enabled": True}, "metrics": {"podMonitor": {"enabled": True}}},
            "metrics.podMonitor.enabled",
        ),
        ({"nodePools": [POOL]}, "karpenter.enabled"),
        ({"karpenter": KARPENTER}, "nodePools"),
        ({"karpenter": {"enabled": True}, "nodePools": [POOL]}, "karpenter.nodeClass.name"),
        (
            {"karpenter": KARPENTER, "nodePools": [{**POOL, "min": 2}]},
            r"min must be at most max \(1\); got 2",
        ),
        ({"karpenter": KARPENTER, "nodePools": [POOL, POOL]}, r"nodePools\[1\]"),
    ],
)
def test_unknown_invalid_and_contradicting_values_are_rejected(values: Object, named: str) -> None:
    with pytest.raises(helm_python.HelmError, match=named):
        render(values)


def test_crds_match_the_models_and_are_kept_by_default() -> None:
    for name in ("realtimeapis", "asyncapis"):
        generated = (ROOT / "crds" / f"{name}.yaml").read_text()
        assert (CHART / "files" / "crds" / f"{name}.yaml").read_text() == generated
    crds = of("CustomResourceDefinition", render())
    assert {crd["metadata"]["name"] for crd in crds} == {"realtimeapis.cortex.dev", "asyncapis.cortex.dev"}
    assert all(crd["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"} for crd in crds)
    loose = of("CustomResourceDefinition", render({"crds": {"keep": False}}))
    assert all("annotations" not in crd["metadata"] for crd in loose)
    assert of("CustomResourceDefinition", render({"crds": {"enabled": False}})) == []


@pytest.mark.parametrize("values", EVERYTHING)
def test_permissions_have_no_wildcards_and_no_access_to_secrets(values: Object) -> None:
    roles = [*of("ClusterRole", render(values)), *of("Role", render(values))]
    assert roles
    for rule in (rule for role in roles for rule in role["rules"]):
        words = [*rule["apiGroups"], *rule["resources"], *rule["verbs"]]
        assert "*" not in words
        assert "secrets" not in words


def test_watch_namespaces_limits_the_permissions() -> None:
    rendered = render({"watchNamespaces": ["a", "b"]})
    assert of("ClusterRole", rendered) == []
    roles = {(role["metadata"]["namespace"], role["metadata"]["name"]) for role in of("Role", rendered)}
    own = ("cortex-system", "cortex-operator-own")
    assert roles == {("a", "cortex-operator"), ("b", "cortex-operator"), own}


@pytest.mark.parametrize("values", [{"nats": {"enabled": True}}, {"queue": {"secretName": "q"}}])
def test_queues_can_be_deleted_with_a_watched_namespace(values: Object) -> None:
    """The namespace may delete Role and RoleBinding first, so removing finalizers needs a ClusterRole."""
    rendered = render({"watchNamespaces": ["a"], **values})
    (role,) = of("ClusterRole", rendered)
    assert {
        (resource, verb) for rule in role["rules"] for resource in rule["resources"] for verb in rule["verbs"]
    } == {
        *(("asyncapis", verb) for verb in ("get", "list", "watch", "patch")),
        ("asyncapis/status", "patch"),
    }
    (binding,) = of("ClusterRoleBinding", rendered)
    assert binding["roleRef"]["name"] == role["metadata"]["name"]
    (own,) = (found for found in of("Role", rendered) if found["metadata"]["name"] == "cortex-operator-own")
    assert {"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "create", "delete"]} in own["rules"]


@pytest.mark.parametrize("values", EVERYTHING)
def test_platform_file_is_valid(values: Object) -> None:
    (config,) = (
        found for found in of("ConfigMap", render(values)) if found["metadata"]["name"] == "cortex-operator"
    )
    platform = Platform.model_validate(yaml.safe_load(config["data"]["platform.yaml"]))
    assert list(platform.watch_namespaces) == values.get("watchNamespaces", [])
    image = values.get("runtime", {}).get("image", {})
    version = f"@{image['digest']}" if "digest" in image else f":{image.get('tag', __version__)}"
    tracing = values.get("tracing")
    assert (platform.tracing.model_dump() if platform.tracing is not None else None) == tracing
    assert platform.runtime_image == f"{image.get('repository', 'cortex-runtime')}{version}"


def test_digest_overrides_the_tag() -> None:
    digest = f"sha256:{'a' * 64}"
    rendered = render({"operator": {"image": {"repository": "r/o", "tag": "1", "digest": digest}}})
    assert {pod["containers"][0]["image"] for pod in pods(rendered)} == {f"r/o@{digest}"}


def test_rendering_is_reproducible() -> None:
    assert render(EVERYTHING[-4]) == render(EVERYTHING[-4])


@pytest.mark.parametrize("values", EVERYTHING)
def test_two_releases_share_only_the_crds(values: Object) -> None:
    def names(name: str) -> set[tuple[str, str, str]]:
        return {
            (found["kind"], found["metadata"].get("namespace", ""), found["metadata"]["name"])
            for found in render(values, name)
            if found["kind"] not in ("CustomResourceDefinition", "NodePool")
        }

    assert names("one") & names("two") == set()


@pytest.mark.parametrize(
    ("values", "phrases"),
    [
        ({}, ["all namespaces", "No queue is configured for AsyncAPIs", "only reachable inside the cluster"]),
        ({"watchNamespaces": ["a", "b"]}, ["the namespaces a, b", "kubectl apply --namespace a -f"]),
        ({"gateway": {"name": "g"}, "nats": {"enabled": True}}, ["the Gateway cortex-system/g"]),
    ],
)
def test_notes_describe_the_release_and_the_next_commands(values: Object, phrases: list[str]) -> None:
    notes = next(text for path, text in files(values).items() if path.endswith("NOTES.txt"))
    assert all(phrase in notes for phrase in phrases)
    commands = [line.split()[:2] for line in notes.splitlines() if line.startswith("  ")]
    assert commands == [["helm", "test"], ["kubectl", "apply"], ["kubectl", "get"]]
    assert ("No queue" in notes) == ("nats" not in values)


def test_chart_annotations_list_images_and_kinds() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    images = yaml.safe_load(chart["annotations"]["artifacthub.io/images"])
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    nats = values["nats"]["image"]
    assert {image["image"] for image in images} == {
        f"cortex-operator:{chart['appVersion']}",
        f"cortex-runtime:{chart['appVersion']}",
        values["tensorflowServing"]["image"],
        f"{nats['repository']}:{nats['tag']}",
    }
    kinds = yaml.safe_load(chart["annotations"]["artifacthub.io/crds"])
    rendered = of("CustomResourceDefinition", render())
    assert {kind["name"] for kind in kinds} == {crd["metadata"]["name"] for crd in rendered}
