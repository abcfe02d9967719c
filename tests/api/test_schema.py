"""The CustomResourceDefinitions are up to date, structural, small and without defaults (so that GitOps tools see no drift)."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from cortex_api.__main__ import manifests

CRDS = Path(__file__).resolve().parents[2] / "crds"


@pytest.fixture(params=["realtimeapis", "asyncapis"])
def crd(request: pytest.FixtureRequest) -> dict[str, Any]:
    return yaml.safe_load((CRDS / f"{request.param}.yaml").read_text())


@pytest.fixture
def schema(crd: dict[str, Any]) -> dict[str, Any]:
    return crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]


def nodes(schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    yield path, schema
    for name, child in schema.get("properties", {}).items():
        yield from nodes(child, f"{path}.{name}")
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            yield from nodes(schema[key], f"{path}[]")


@pytest.mark.parametrize("name", ["realtimeapis.yaml", "asyncapis.yaml"])
def test_committed_files_match_the_models(name: str) -> None:
    assert (CRDS / name).read_text() == manifests()[name]


def test_crd_is_small_enough_for_client_side_apply(crd: dict[str, Any]) -> None:
    assert (CRDS / f"{crd['spec']['names']['plural']}.yaml").stat().st_size < 100_000


def test_every_node_is_structural(schema: dict[str, Any]) -> None:
    for path, node in nodes(schema):
        assert "type" in node or node.get("x-kubernetes-int-or-string"), path
        assert not {"$ref", "anyOf", "allOf", "oneOf", "not", "title", "const"} & set(node), path


def test_no_field_has_a_default(schema: dict[str, Any]) -> None:
    assert [path for path, node in nodes(schema) if "default" in node] == []


def test_every_field_of_the_spec_has_a_description(schema: dict[str, Any]) -> None:
    undocumented = [
        path
        for path, node in nodes(schema["properties"]["spec"])
        if not path.endswith("[]") and not node.get("description")
    ]
    assert undocumented == []


def test_strings_and_lists_are_bounded_to_limit_the_cost_of_rules(schema: dict[str, Any]) -> None:
    unbounded = [
        path
        for path, node in nodes(schema["properties"]["spec"])
        if (node.get("type") == "string" and not {"maxLength", "enum"} & set(node) and ".files" not in path)
        or (node.get("type") == "array" and "maxItems" not in node)
    ]
    assert unbounded == []


def test_subresources_and_names(crd: dict[str, Any]) -> None:
    version = crd["spec"]["versions"][0]
    assert version["subresources"]["status"] == {}
    assert version["subresources"]["scale"] == {
        "specReplicasPath": ".spec.replicas",
        "statusReplicasPath": ".status.replicas",
        "labelSelectorPath": ".status.selector",
    }
    assert crd["spec"]["names"]["shortNames"] in (["rapi"], ["aapi"])
    assert crd["spec"]["names"]["categories"] == ["cortex"]


def test_printer_columns_show_readiness_and_reason(crd: dict[str, Any]) -> None:
    columns = crd["spec"]["versions"][0]["additionalPrinterColumns"]
    queued = ["Queued"] if crd["spec"]["names"]["kind"] == "AsyncAPI" else ["Candidate"]
    names = [column["name"] for column in columns if not column.get("priority")]
    assert names == ["Ready", "Reason", "Replicas", *queued, "URL", "Age"]


def test_the_handler_of_a_candidate_is_a_patch_of_the_handler(
    crd: dict[str, Any], schema: dict[str, Any]
) -> None:
    if crd["spec"]["names"]["kind"] == "AsyncAPI":
        assert "candidate" not in schema["properties"]["spec"]["properties"]
        return
    spec = schema["properties"]["spec"]["properties"]
    whole, patch = spec["handler"], spec["candidate"]["properties"]["handler"]
    assert patch["properties"].keys() == whole["properties"].keys()
    assert "required" in whole
    for node in (patch, patch["properties"]["models"], patch["properties"]["source"]):
        assert not {"required", "x-kubernetes-validations"} & node.keys()
    assert patch["properties"]["models"]["properties"]["path"]["nullable"]
    assert patch["properties"]["source"]["properties"]["files"]["additionalProperties"]["nullable"]
    # Lists are replaced as a whole, so their items are complete.
    assert patch["properties"]["env"]["items"]["required"] == ["name"]
