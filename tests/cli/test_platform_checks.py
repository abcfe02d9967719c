"""Findings of `cortex doctor` about the platform."""

from dataclasses import replace
from typing import Any

import pytest

from cortex_api import __version__
from cortex_cli.apis import API
from cortex_cli.commands.doctor import severity
from cortex_cli.diagnosis import Finding
from cortex_cli.platform_checks import PlatformState, check_platform

LABELS = {"app.kubernetes.io/version": __version__}
OPERATOR = {
    "metadata": {"name": "operator-1", "namespace": "cortex", "labels": LABELS},
    "status": {"conditions": [{"type": "Ready", "status": "True"}]},
}
HEALTHY = PlatformState(
    plurals=["realtimeapis", "realtimeapis/status", "asyncapis"],
    crds=[{"metadata": {"labels": LABELS}}],
    operators=[OPERATOR],
    settings={"queue": {"url": "nats://nats:4222"}, "gateway": {"namespace": "web", "name": "public"}},
    denied={},
    has_metrics=True,
    gateway={"status": {"conditions": [{"type": "Programmed", "status": "True"}]}},
    namespace="default",
)


def api(kind: str = "RealtimeAPI", reason: str = "Ready", name: str = "iris", **spec: Any) -> API:
    condition = {"type": "Ready", "status": str(reason in ("Ready", "Degraded")), "reason": reason}
    degraded = {"type": "Degraded", "status": str(reason == "Degraded"), "reason": reason}
    metadata = {"name": name, "namespace": "default", "generation": 1}
    return API(
        {
            "kind": kind,
            "metadata": metadata,
            "spec": spec,
            "status": {"observedGeneration": 1, "conditions": [condition, degraded]},
        }
    )


def finding(state: PlatformState, subject: str, *found: API) -> Finding:
    return next(each for each in check_platform(state, list(found)) if each.subject == subject)


def test_a_healthy_platform_has_only_good_findings():
    found = check_platform(HEALTHY, [api("AsyncAPI")])
    assert {each.level for each in found} == {"good"}
    assert [each.subject for each in found] == [
        "CustomResourceDefinitions",
        "Operator",
        "Queue",
        "Resource metrics",
        "Gateway web/public",
        "Permissions",
    ]
    assert finding(HEALTHY, "Operator").message == (
        f"1 of 1 pods are ready in namespace cortex, version {__version__}"
    )


@pytest.mark.parametrize(
    ("change", "subject", "level", "message", "remedy"),
    [
        (
            {"plurals": []},
            "CustomResourceDefinitions",
            "bad",
            "missing: asyncapis, realtimeapis",
            "helm install",
        ),
        (
            {"crds": [{"metadata": {"labels": {"app.kubernetes.io/version": "9.9"}}}]},
            "CustomResourceDefinitions",
            "note",
            "are of version 9.9; this command is of version",
            "cortex-serving==9.9",
        ),
        ({"operators": []}, "Operator", "bad", "no pod exists", "helm install"),
        (
            {"operators": [OPERATOR | {"status": {}}]},
            "Operator",
            "bad",
            "0 of 1 pods are ready in namespace cortex",
            "kubectl -n cortex describe pods",
        ),
        ({"operators": None}, "Operator", "note", "you may not list pods in all namespaces", ""),
        (
            {"settings": {"watchNamespaces": ["team"]}},
            "Operator",
            "bad",
            "does not watch namespace default, only team",
            "watchNamespaces",
        ),
        ({"settings": {}}, "Queue", "note", "not configured; only AsyncAPIs need one", ""),
        ({"has_metrics": False}, "Resource metrics", "note", "are not served; only autoscaling by CPU", ""),
        ({"gateway": {}}, "Gateway web/public", "bad", "does not exist", "create it"),
        ({"gateway": None}, "Gateway web/public", "note", "you may not read it", ""),
        (
            {
                "gateway": {
                    "status": {"conditions": [{"type": "Programmed", "status": "False", "reason": "Bad"}]}
                }
            },
            "Gateway web/public",
            "bad",
            "is not programmed: Bad",
            "GatewayClass",
        ),
        (
            {"denied": {"get pods/log": "cortex logs"}},
            "Permissions",
            "note",
            "you may not get pods/log (needed by cortex logs) in namespace default",
            "Role",
        ),
    ],
)
def test_a_problem_has_a_message_and_a_remedy(
    change: dict[str, Any], subject: str, level: str, message: str, remedy: str
) -> None:
    found = finding(replace(HEALTHY, **change), subject)
    assert (found.level, message in found.message, remedy in found.remedy) == (level, True, True), found


def test_unused_parts_are_no_failures_until_an_api_needs_them():
    state = replace(HEALTHY, settings={}, has_metrics=False)
    assert finding(state, "Queue", api("AsyncAPI")).level == "bad"
    by_cpu = api(autoscaling={"targetCpuUtilization": 80})
    assert finding(state, "Resource metrics", by_cpu).message.endswith("does not work: iris")
    assert finding(state, "Resource metrics", api(autoscaling={"targetInFlight": 4})).level == "note"


def test_an_operator_outside_of_the_cluster_is_no_problem():
    outside = replace(HEALTHY, operators=[])
    found = finding(outside, "Operator", api())
    assert (found.level, "it runs outside of this cluster" in found.message) == ("note", True)


def test_the_worst_api_comes_first():
    found = [
        api(reason="Starting", name="a"),
        api(reason="Degraded", name="b"),
        api(reason="CrashLoop", name="c"),
    ]
    assert [each.name for each in sorted(found, key=severity)] == ["c", "b", "a"]
