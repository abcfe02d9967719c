"""The chart, rendered and linted by the real helm library: valid, strict, and without a right that it doesn't need."""

import functools
import json
import runpy
from typing import Any

import helm_python
import kubernetes_validate
import pytest
import yaml

from cortex_operator.platform import Platform
from tests.chart.rendering import CHART, EVERYTHING, ROOT, Object, files, of, pods, render
from tests.chart.restricted import violations

KUBERNETES = ("1.30", "1.37")
FOREIGN = ("monitoring.coreos.com/v1", "karpenter.sh/v1")
"""Kinds that are no part of Kubernetes."""
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


def paths(values: Object, above: str = "") -> set[str]:
    """Paths of all values, and of the objects and lists that they are in."""
    found = set()
    for key, value in values.items():
        found.add(f"{above}{key}")
        if isinstance(value, dict):
            found |= paths(value, f"{above}{key}.")
    return found


def test_every_value_is_tried_has_a_comment_and_is_in_the_schema() -> None:
    leaves = [
        leaf for value in REFERENCE["read"]((CHART / "values.yaml").read_text()) for leaf in value.leaves()
    ]
    assert [leaf.path for leaf in leaves if not leaf.comment] == []
    tried = set[str]().union(*(paths(values) for values in EVERYTHING))
    assert {leaf.path for leaf in leaves} - tried == set()
    schema = json.loads((CHART / "values.schema.json").read_text())
    defaults = yaml.safe_load((CHART / "values.yaml").read_text())
    assert set(schema["properties"]) - {"global"} == set(defaults)
    assert undocumented(schema, schema, defaults) == []


def undocumented(node: Object, schema: Object, defaults: Any, above: str = "") -> list[str]:
    """Properties that the schema knows and values.yaml doesn't, below sections of values.yaml."""
    if "$ref" in node:
        node = schema["definitions"][node["$ref"].rsplit("/", 1)[1]]
    found = []
    for name, child in node.get("properties", {}).items():
        path = f"{above}{name}"
        if path == "global" or above.endswith("resources."):
            continue
        if name not in defaults:
            found.append(path)
        elif isinstance(defaults[name], dict) and defaults[name]:
            found += undocumented(child, schema, defaults[name], f"{path}.")
    return found


def test_the_reference_is_that_of_the_values() -> None:
    assert REFERENCE["main"](["--check"]) == 0


def test_helm_finds_nothing_to_complain_of() -> None:
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
        ({"metrics": {"rules": {"errorRatio": 5}}}, "errorRatio"),
        ({"metrics": {"rules": {"notReadyFor": "soon"}}}, "notReadyFor"),
        ({"karpenter": KARPENTER, "nodePools": [{"name": "a", "max": 1}]}, "instanceTypes"),
        ({"karpenter": KARPENTER, "nodePools": [{**POOL, "maximum": 1}]}, "maximum"),
        ({"extraObjects": [{"metadata": {}}]}, "extraObjects"),
        # Each is right by itself.
        ({"gateway": {"name": "g"}, "ingress": {"className": "i"}}, "gateway.name and ingress.className"),
        ({"gateway": {"hostname": "h"}}, "gateway.hostname"),
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
        ({"karpenter": KARPENTER, "nodePools": [{**POOL, "min": 2}]}, "min 2 is greater than max 1"),
        ({"karpenter": KARPENTER, "nodePools": [POOL, POOL]}, r"nodePools\[1\]"),
    ],
)
def test_a_misspelt_wrong_or_contradictory_value_is_refused_with_its_name(values: Object, named: str) -> None:
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


@pytest.mark.parametrize("values", EVERYTHING)
def test_rights_have_no_wildcard_and_touch_no_secret(values: Object) -> None:
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
    own = ("cortex-system", "cortex-operator-own")
    assert roles == {("a", "cortex-operator"), ("b", "cortex-operator"), own}


@pytest.mark.parametrize("values", [{"nats": {"enabled": True}}, {"queue": {"secretName": "q"}}])
def test_the_queue_of_a_listed_namespace_can_be_removed_while_the_namespace_ends(values: Object) -> None:
    """The namespace takes Role and RoleBinding away first; what releases its AsyncAPIs must outlive them."""
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
def test_the_operator_understands_its_platform_file(values: Object) -> None:
    (config,) = (
        found for found in of("ConfigMap", render(values)) if found["metadata"]["name"] == "cortex-operator"
    )
    platform = Platform.model_validate(yaml.safe_load(config["data"]["platform.yaml"]))
    assert list(platform.watch_namespaces) == values.get("watchNamespaces", [])
    image = values.get("runtime", {}).get("image", {})
    version = f"@{image['digest']}" if "digest" in image else f":{image.get('tag', '0.1.0')}"
    assert platform.runtime_image == f"{image.get('repository', 'cortex-runtime')}{version}"


def test_a_digest_goes_before_the_tag() -> None:
    digest = f"sha256:{'a' * 64}"
    rendered = render({"operator": {"image": {"repository": "r/o", "tag": "1", "digest": digest}}})
    assert {pod["containers"][0]["image"] for pod in pods(rendered)} == {f"r/o@{digest}"}


def test_nothing_differs_from_one_rendering_to_the_next() -> None:
    assert render(EVERYTHING[-4]) == render(EVERYTHING[-4])


@pytest.mark.parametrize("values", EVERYTHING)
def test_two_releases_share_no_object_but_the_kinds(values: Object) -> None:
    def names(name: str) -> set[tuple[str, str, str]]:
        return {
            (found["kind"], found["metadata"].get("namespace", ""), found["metadata"]["name"])
            for found in render(values, name)
            if found["kind"] not in ("CustomResourceDefinition", "NodePool")
        }

    assert names("one") & names("two") == set()


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({}, ["all namespaces", "AsyncAPIs have no queue yet", "inside the cluster only"]),
        ({"watchNamespaces": ["a", "b"]}, ["the namespaces a, b", "kubectl apply --namespace a -f"]),
        ({"gateway": {"name": "g"}, "nats": {"enabled": True}}, ["the Gateway cortex-system/g"]),
    ],
)
def test_the_notes_say_what_there_is_and_the_next_three_commands(values: Object, said: list[str]) -> None:
    notes = next(text for path, text in files(values).items() if path.endswith("NOTES.txt"))
    assert all(words in notes for words in said)
    commands = [line.split()[:2] for line in notes.splitlines() if line.startswith("  ")]
    assert commands == [["helm", "test"], ["kubectl", "apply"], ["kubectl", "get"]]
    assert ("no queue" in notes) == ("nats" not in values)


def test_a_release_of_the_chart_names_its_images_and_kinds() -> None:
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
