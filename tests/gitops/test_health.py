"""Health of the resources in Argo CD and Flux, with the health checks in examples/."""

import json
from pathlib import Path
from typing import Any

import lupa
import pytest
import yaml
from cel_expr_python import cel

from cortex_api import KINDS, RealtimeAPI, parse
from cortex_api.contract import TEMPLATE_LABEL
from cortex_api.situations import SITUATIONS, Situation
from cortex_operator.status.conditions import Component, Observed, Problem
from cortex_operator.status.status import compute, compute_rejected
from tests.operator.situations import SEEN

ROOT = Path(__file__).resolve().parents[2]
ARGO, FLUX = ROOT / "examples" / "argocd", ROOT / "examples" / "flux"
Object = dict[str, Any]
STAMP = "2026-01-01T00:00:00Z"


def condition(kind: str, holds: bool | None, reason: str) -> Object:
    return {
        "type": kind,
        "status": {True: "True", False: "False", None: "Unknown"}[holds],
        "reason": reason,
        "message": "words",
        "lastTransitionTime": STAMP,
    }


def status(ready: bool | None, reason: str, *, progressing: bool = False, degraded: bool = False) -> Object:
    return {
        "observedGeneration": 2,
        "conditions": [
            condition("Ready", ready, reason),
            condition("Progressing", progressing, reason if progressing else "NotProgressing"),
            condition("Degraded", degraded, reason if degraded else "NotDegraded"),
        ],
    }


def resource(status: Object | None, **metadata: Any) -> Object:
    found: Object = {
        "apiVersion": "cortex.dev/v1alpha1",
        "kind": "RealtimeAPI",
        "metadata": {"name": "a", "namespace": "n", "generation": 2, **metadata},
        "spec": {"handler": {"type": "python", "path": "h.py"}},
    }
    return found if status is None else {**found, "status": status}


READY = status(True, "Ready")
FIXTURES: dict[str, tuple[Object, str, str]] = {
    "no status": (resource(None), "Progressing", "InProgress"),
    "empty status": (resource({}), "Progressing", "InProgress"),
    "no conditions yet": (resource({"observedGeneration": 2, "conditions": []}), "Progressing", "InProgress"),
    "stale generation": (resource({**READY, "observedGeneration": 1}), "Progressing", "InProgress"),
    "starting": (resource(status(False, "Starting", progressing=True)), "Progressing", "InProgress"),
    "unknown": (resource(status(None, "Unknown")), "Progressing", "InProgress"),
    "ready": (resource(READY), "Healthy", "Current"),
    "ready, rollout in progress": (resource(status(True, "Ready", progressing=True)), "Healthy", "Current"),
    "ready but degraded": (resource(status(True, "Ready", degraded=True)), "Healthy", "Current"),
    "degraded": (resource(status(False, "ModelNotFound", degraded=True)), "Degraded", "Failed"),
    "paused": (resource(status(False, "Paused")), "Suspended", "Current"),
    "scaled to zero": (resource(status(False, "ScaledToZero")), "Suspended", "Current"),
    "unknown condition": (
        resource({**READY, "conditions": [condition("Melted", True, "Heat"), *READY["conditions"]]}),
        "Healthy",
        "Current",
    ),
    "being deleted": (resource(READY, deletionTimestamp=STAMP), "Progressing", "Current"),
}


def lua_of(kind: str) -> str:
    data = yaml.safe_load((ARGO / "argocd-cm.yaml").read_text())["data"]
    return str(data[f"resource.customizations.health.{kind}"])


def argo(kind: str, live: Object) -> tuple[str, str]:
    """Return status and message in Argo CD, which disables the standard libraries of Lua."""
    runtime = lupa.LuaRuntime()
    compute_health = runtime.eval(f"function(obj) local os, io, require, string = nil; {lua_of(kind)} end")
    found = compute_health(runtime.table_from(json.loads(json.dumps(live)), recursive=True))
    return str(found["status"]), str(found["message"])


def flux(kind: str, live: Object) -> str:
    """Return the status in Flux, which checks the generation, then `failed`, then `current` (Flux RFC 0009)."""
    documents = yaml.safe_load_all((FLUX / "cluster.yaml").read_text())
    (expressions,) = (
        each
        for document in documents
        for each in document["spec"].get("healthCheckExprs", ())
        if each["kind"] == kind
    )
    if live.get("status", {}).get("observedGeneration", 2) != live["metadata"]["generation"]:
        return "InProgress"
    environment = cel.NewEnv(
        variables={"metadata": cel.Type.DYN, "spec": cel.Type.DYN, "status": cel.Type.DYN}
    )
    for outcome in ("failed", "current"):
        compiled = environment.compile(expressions[outcome])
        found = compiled.eval(data={name: live.get(name, {}) for name in ("metadata", "spec", "status")})
        if found.value() is True:
            return outcome.capitalize()
    return "InProgress"


@pytest.mark.parametrize("kind", sorted(KINDS))
@pytest.mark.parametrize("name", FIXTURES)
def test_argo_cd(kind: str, name: str) -> None:
    live, expected, _ = FIXTURES[name]
    actual, message = argo(f"cortex.dev_{kind}", {**live, "kind": kind})
    assert actual == expected
    assert message
    if actual in ("Healthy", "Degraded", "Suspended"):
        assert message.endswith(": words")


@pytest.mark.parametrize("kind", sorted(KINDS))
@pytest.mark.parametrize("name", FIXTURES)
def test_flux(kind: str, name: str) -> None:
    live, _, expected = FIXTURES[name]
    assert flux(kind, {**live, "kind": kind}) == expected


def test_both_kinds_have_the_documented_health_check() -> None:
    text = (ARGO / "health.lua").read_text()
    for kind in KINDS:
        assert lua_of(f"cortex.dev_{kind}") == text
    assert f"```lua\n{text}```" in (ROOT / "docs" / "gitops.md").read_text()


@pytest.mark.parametrize("path", [*ARGO.rglob("*.yaml"), *FLUX.rglob("*.yaml")], ids=lambda path: path.name)
def test_documentation_links_every_example(path: Path) -> None:
    assert f"../{path.relative_to(ROOT)}" in (ROOT / "docs" / "gitops.md").read_text()


@pytest.mark.parametrize(
    ("health", "expected"),
    [
        (None, "Progressing"),
        ({"status": "Degraded", "message": "m"}, "Degraded"),
        ({"status": "Healthy"}, "Healthy"),
    ],
)
def test_health_of_an_application(health: Object | None, expected: str) -> None:
    live = {"metadata": {}, **({} if health is None else {"status": {"health": health}})}
    assert argo("argoproj.io_Application", live)[0] == expected


def test_health_of_statuses_that_the_operator_computes() -> None:
    live = resource(None)
    api = parse(
        {**live, "spec": {"handler": {"type": "python", "path": "h.py", "source": {"files": {"h.py": "x"}}}}}
    )
    assert isinstance(api, RealtimeAPI)
    api = api.model_copy(update={"metadata": api.metadata.model_copy(update={"generation": 2})})
    paused = api.model_copy(update={"spec": api.spec.model_copy(update={"paused": True})})
    pod = {
        "metadata": {"name": "p", "labels": {TEMPLATE_LABEL: "t"}},
        "status": {"conditions": [{"type": "Ready", "status": "True"}]},
    }
    deployment = {"spec": {"replicas": 1, "template": {"metadata": {"labels": {TEMPLATE_LABEL: "t"}}}}}
    statuses = {
        "starting": compute(api, live, Observed(main=Component(deployment))),
        "ready": compute(api, live, Observed(main=Component(deployment, [pod]))),
        "paused": compute(paused, live, Observed(main=Component(deployment))),
        "refused": compute_rejected(live, Problem("CodeNotFound", "words")),
    }
    found = {
        name: argo("cortex.dev_RealtimeAPI", {**live, "status": status})[0]
        for name, status in statuses.items()
    }
    assert found == {
        "starting": "Progressing",
        "ready": "Healthy",
        "paused": "Suspended",
        "refused": "Degraded",
    }


@pytest.mark.parametrize("case", SITUATIONS, ids=lambda case: case.name)
def test_argo_cd_and_flux_agree_with_the_conditions(case: Situation) -> None:
    """Ready APIs are healthy, degraded APIs have failed, and all others are in progress."""
    live = {**resource(None), "status": SEEN[case.name]()}
    if case.ready:
        expected = ("Healthy", "Current")
    elif case.reason in ("Paused", "ScaledToZero"):
        expected = ("Suspended", "Current")
    else:
        expected = ("Degraded", "Failed") if case.degraded else ("Progressing", "InProgress")
    assert (argo("cortex.dev_RealtimeAPI", live)[0], flux("RealtimeAPI", live)) == expected


def test_examples_install_the_chart_before_the_apis() -> None:
    chart, apis = (yaml.safe_load((ARGO / name).read_text()) for name in ("platform.yaml", "apis.yaml"))
    waves = [int(each["metadata"]["annotations"]["argocd.argoproj.io/sync-wave"]) for each in (chart, apis)]
    assert waves[0] < waves[1]
    (release,) = yaml.safe_load_all((FLUX / "platform" / "cortex.yaml").read_text())
    paths = [chart["spec"]["source"]["path"], release["spec"]["chart"]["spec"]["chart"]]
    assert {(ROOT / path).resolve() for path in paths} == {ROOT / "charts" / "cortex"}
    for path in (*ARGO.glob("*.yaml"), *FLUX.rglob("*.yaml")):
        assert "helm.sh/hook" not in path.read_text()
