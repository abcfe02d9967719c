"""Custom resources: validated with the messages of the API server, and printed with their columns."""

from __future__ import annotations

import copy
from typing import Any

import pytest

SPEC = {
    "type": "object",
    "required": ["size"],
    "properties": {
        "size": {"type": "string", "enum": ["small", "large"]},
        "count": {"type": "integer", "minimum": 1, "default": 1},
        "replicas": {"type": "integer"},
        "limit": {"x-kubernetes-int-or-string": True},
        "even": {
            "type": "integer",
            "x-kubernetes-validations": [{"rule": "self % 2 == 0", "message": "must be even"}],
        },
        "parts": {
            "type": "array",
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["name"],
            "items": {
                "type": "object",
                "required": ["name"],
                "properties": {"name": {"type": "string"}, "value": {"type": "integer"}},
            },
        },
        "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
    },
    "x-kubernetes-validations": [
        {
            "rule": "self.size != 'small' || !has(self.count) || self.count < 10",
            "message": "small ones have fewer than 10",
        },
        {
            "rule": "!has(self.limit) || quantity(string(self.limit)).compareTo(quantity('1Gi')) <= 0",
            "message": "at most 1Gi",
        },
    ],
}
CRD = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "widgets.example.com"},
    "spec": {
        "group": "example.com",
        "scope": "Namespaced",
        "names": {"plural": "widgets", "kind": "Widget", "shortNames": ["wd"]},
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "subresources": {
                    "status": {},
                    "scale": {"specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas"},
                },
                "additionalPrinterColumns": [
                    {"name": "Size", "type": "string", "jsonPath": ".spec.size"},
                    {
                        "name": "Ready",
                        "type": "string",
                        "jsonPath": '.status.conditions[?(@.type=="Ready")].status',
                    },
                    {"name": "Count", "type": "integer", "jsonPath": ".spec.count", "priority": 1},
                    {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
                ],
                "schema": {
                    "openAPIV3Schema": {
                        "type": "object",
                        "properties": {
                            "spec": SPEC,
                            "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
                        },
                    }
                },
            }
        ],
    },
}


def widget(**spec: Any) -> dict[str, Any]:
    return {"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": "w"}, "spec": spec}


@pytest.fixture
def widgets(kubectl: Any) -> Any:
    kubectl("apply", "-f", "-", stdin=CRD)
    kubectl("wait", "--for=condition=Established", "crd/widgets.example.com", "--timeout=10s")
    return kubectl


def test_defaults_are_set_and_columns_printed(widgets: Any) -> None:
    widgets("apply", "-f", "-", stdin=widget(size="small", free={"any": {"thing": 1}}))
    found = widgets.get("wd", "w")
    assert found["spec"] == {"size": "small", "count": 1, "free": {"any": {"thing": 1}}}
    assert found["metadata"]["generation"] == 1
    status = '{"status":{"conditions":[{"type":"Ready","status":"True"}]},"spec":{"size":"large"}}'
    widgets("patch", "wd", "w", "--subresource=status", "--type=merge", "-p", status)
    lines = [line.split()[:-1] for line in widgets("get", "widgets", "-o", "wide").splitlines()]
    assert lines == [["NAME", "SIZE", "READY", "COUNT"], ["w", "small", "True", "1"]]
    assert widgets.get("wd", "w")["metadata"]["generation"] == 1


def test_unknown_field_is_rejected_by_name(widgets: Any) -> None:
    output = widgets.fails("apply", "-f", "-", stdin=widget(size="small", sise="x"))
    assert 'strict decoding error: unknown field "spec.sise"' in output
    output = widgets.fails("apply", "--server-side", "-f", "-", stdin=widget(size="small", sise="x"))
    assert ".spec.sise: field not declared in schema" in output
    assert "not found" in widgets.fails("get", "widget", "w")


def test_all_errors_are_reported_at_once(widgets: Any) -> None:
    output = widgets.fails(
        "apply", "-f", "-", stdin=widget(size="medium", count="many", parts=[{"value": 1}])
    )
    assert 'The Widget "w" is invalid' in output
    assert 'spec.size: Unsupported value: "medium": supported values: "small", "large"' in output
    assert (
        'spec.count: Invalid value: "string": spec.count in body must be of type integer: "string"' in output
    )
    assert "spec.parts[0].name: Required value" in output


def test_violated_rules_are_reported_with_their_path(widgets: Any) -> None:
    output = widgets.fails("apply", "-f", "-", stdin=widget(size="small", count=20, limit="2Gi"))
    assert "spec: Invalid value: small ones have fewer than 10" in output
    assert "spec: Invalid value: at most 1Gi" in output
    output = widgets.fails("apply", "-f", "-", stdin=widget(size="small", even=3, limit=5))
    assert "spec.even: Invalid value: 3: must be even" in output


def test_server_side_apply_merges_lists_by_key(widgets: Any) -> None:
    for manager in ("one", "two"):
        body = widget(size="small", parts=[{"name": manager, "value": 1}])
        widgets("apply", "--server-side", f"--field-manager={manager}", "-f", "-", stdin=body)
    assert [part["name"] for part in widgets.get("wd", "w")["spec"]["parts"]] == ["one", "two"]
    widgets("apply", "--server-side", "--field-manager=one", "-f", "-", stdin=widget(size="small"))
    assert [part["name"] for part in widgets.get("wd", "w")["spec"]["parts"]] == ["two"]


def test_scale_sets_the_replicas(widgets: Any) -> None:
    widgets("apply", "-f", "-", stdin=widget(size="small"))
    widgets("scale", "widget", "w", "--replicas=3")
    found = widgets.get("widget", "w")
    assert found["spec"]["replicas"] == 3
    assert found["metadata"]["generation"] == 2


@pytest.mark.parametrize("rule", ["self.size ==", "self == oldSelf", "isURL(self.size)"])
def test_rule_that_does_not_compile_is_rejected(kubectl: Any, rule: str) -> None:
    broken = copy.deepcopy(CRD)
    broken["metadata"]["name"] = "gadgets.example.com"
    broken["spec"]["names"] = {"plural": "gadgets", "kind": "Gadget"}
    schema = broken["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    schema["properties"]["spec"]["x-kubernetes-validations"] = [{"rule": rule}]
    output = kubectl.fails("apply", "-f", "-", stdin=broken)
    assert "x-kubernetes-validations[0].rule" in output
    assert "compilation failed" in output
