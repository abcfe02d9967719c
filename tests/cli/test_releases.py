"""The commands of a release: diff, promote, abort, retry, history and rollback."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from cortex_cli.apis import find
from cortex_cli.commands.diff import diff
from cortex_cli.connection import Cluster, ClusterError
from cortex_cli.releases import change, changes

from .conftest import GROUP, Workplace

APIS = f"{GROUP}/realtimeapis"
REVISIONS = "/apis/apps/v1/namespaces/default/controllerrevisions"
HANDLER = {"type": "onnx", "models": {"path": "s3://bucket/iris/1/"}, "env": [{"name": "A", "value": "1"}]}
CANDIDATE = {"handler": {"models": {"dir": "s3://bucket/all/"}}, "weight": 5}
PROMOTED = {**HANDLER, "models": {"dir": "s3://bucket/all/"}}


def candidate_status(phase: str, message: str) -> dict[str, Any]:
    known = {"reason": phase, "message": message, "version": "v", "weight": 5, "mirror": 0}
    return {"candidate": {"phase": phase, **known}}


SERVING = candidate_status("Serving", "")


@pytest.fixture(scope="module", autouse=True)
def removed_afterwards(workplace: Workplace) -> Iterator[None]:
    """Delete the APIs and pods of this module: other tests use the same cluster."""

    def existing(kind: str) -> set[str]:
        return set(workplace.kubectl("get", kind, "-o", "name").split())

    kinds = ("realtimeapis", "pods", "services", "controllerrevisions")
    before = set.union(*map(existing, kinds))
    yield
    made = set.union(*map(existing, kinds)) - before
    workplace.kubectl("delete", *made)


def spec_of(place: Workplace, name: str) -> dict[str, Any]:
    found = place.server.get(f"{APIS}/{name}")
    found.raise_for_status()
    return found.json()["spec"]


def record(place: Workplace, name: str, number: int, spec: dict[str, Any]) -> None:
    labels = {"cortex.dev/api": name, "cortex.dev/kind": "RealtimeAPI"}
    changed = {"cortex.dev/changed-at": f"2026-01-0{number}T00:00:00Z"}
    metadata = {"name": f"api-{name}-{number}", "labels": labels, "annotations": changed}
    revision = {"apiVersion": "apps/v1", "kind": "ControllerRevision", "metadata": metadata}
    place.create(REVISIONS, {**revision, "revision": number, "data": {"spec": spec}})


def test_promote_makes_the_candidate_the_stable_version(workplace: Workplace):
    workplace.api("p1", handler=HANDLER, candidate=CANDIDATE, replicas=3, status=SERVING)
    printed = workplace.cortex("promote", "p1", "--print")
    assert yaml.safe_load(printed.stdout) == {
        "apiVersion": "cortex.dev/v1alpha1",
        "kind": "RealtimeAPI",
        "metadata": {"name": "p1", "namespace": "default"},
        "spec": {"handler": PROMOTED, "replicas": 3},
    }
    assert spec_of(workplace, "p1")["candidate"]["weight"] == 5
    done = workplace.cortex("promote", "p1")
    assert (done.exit_code, "cortex rollback p1" in done.stdout) == (0, True), done.output
    assert spec_of(workplace, "p1") == {"handler": PROMOTED, "replicas": 3}
    assert "p1 has no candidate" in workplace.cortex("promote", "p1").stderr


@pytest.mark.parametrize(
    ("number", "status", "message"),
    [
        (
            1,
            candidate_status("RolledBack", "2% of 500 requests failed"),
            "RolledBack, not Serving: 2%",
        ),
        (2, {}, "Starting, not Serving"),
    ],
)
def test_a_candidate_that_does_not_serve_is_promoted_only_by_force(
    workplace: Workplace, number: int, status: dict[str, Any], message: str
):
    name = f"bad{number}"
    workplace.api(name, handler=HANDLER, candidate=CANDIDATE, status=status)
    refused = workplace.cortex("promote", name)
    assert (refused.exit_code, message in refused.stderr) == (1, True), refused.stderr
    assert "candidate" in spec_of(workplace, name)
    assert workplace.cortex("promote", name, "--force").exit_code == 0
    assert spec_of(workplace, name)["handler"] == PROMOTED


def test_abort_removes_only_the_candidate(workplace: Workplace):
    workplace.api("a1", handler=HANDLER, candidate=CANDIDATE, replicas=2)
    assert "candidate" not in yaml.safe_load(workplace.cortex("abort", "a1", "--print").stdout)["spec"]
    assert "candidate" in spec_of(workplace, "a1")
    assert workplace.cortex("abort", "a1").exit_code == 0
    assert spec_of(workplace, "a1") == {"handler": HANDLER, "replicas": 2}
    assert "a1 has no candidate" in workplace.cortex("abort", "a1").stderr


@pytest.mark.parametrize("phase", ["RolledBack", "Failed"])
def test_retry_changes_only_an_annotation(workplace: Workplace, phase: str):
    name = f"again-{phase.lower()}"
    workplace.api(name, handler=HANDLER, candidate=CANDIDATE, status=candidate_status(phase, ""))
    before = spec_of(workplace, name)
    values = set()
    for _ in range(2):
        done = workplace.cortex("retry", name)
        assert done.exit_code == 0, done.output
        live = workplace.server.get(f"{APIS}/{name}").json()
        values.add(live["metadata"]["annotations"]["cortex.dev/retry"])
    assert len(values) == 2
    assert (live["spec"], live["metadata"]["generation"]) == (before, 1)
    printed = yaml.safe_load(workplace.cortex("abort", name, "--print").stdout)
    assert "annotations" not in printed["metadata"]


def test_retry_refuses_a_candidate_that_serves(workplace: Workplace):
    workplace.api("again", handler=HANDLER, candidate=CANDIDATE, status=SERVING)
    refused = workplace.cortex("retry", "again")
    assert "the candidate of again is Serving; only one that is RolledBack or Failed" in refused.stderr
    workplace.api("alone", handler=HANDLER)
    assert "alone has no candidate" in workplace.cortex("retry", "alone").stderr


@pytest.mark.parametrize(
    ("tool", "metadata"),
    [
        (
            "Argo CD",
            {"annotations": {"argocd.argoproj.io/tracking-id": "x:cortex.dev/RealtimeAPI:default/y"}},
        ),
        ("Flux", {"labels": {"kustomize.toolkit.fluxcd.io/name": "apps", "team": "ml"}}),
    ],
)
def test_a_resource_of_git_is_changed_only_by_force(
    workplace: Workplace, tool: str, metadata: dict[str, Any]
):
    name = f"git-{tool.lower().replace(' ', '-')}"
    workplace.api(name, handler=HANDLER, candidate=CANDIDATE, status=SERVING)
    merge = {"content-type": "application/merge-patch+json"}
    workplace.server.patch(f"{APIS}/{name}", json={"metadata": metadata}, headers=merge).raise_for_status()
    refused = workplace.cortex("promote", name)
    assert f"{tool} manages" in refused.stderr
    assert f"cortex promote {name} --print" in refused.stderr
    printed = yaml.safe_load(workplace.cortex("promote", name, "--print").stdout)
    # The marks of the tool do not belong into Git.
    assert printed["metadata"].get("labels", {}) == ({"team": "ml"} if tool == "Flux" else {})
    assert "annotations" not in printed["metadata"]
    assert workplace.cortex("abort", name, "--force").exit_code == 0
    assert "candidate" not in spec_of(workplace, name)


def test_a_change_of_another_writer_is_not_overwritten(workplace: Workplace):
    workplace.api("busy", handler=HANDLER, candidate=CANDIDATE, status=SERVING)
    cluster = Cluster.open(str(workplace.kubeconfig), None, None)
    api = find(cluster, "busy")
    merge = {"content-type": "application/merge-patch+json"}
    # A write of the status is no conflict.
    status = {"status": {"readyReplicas": 7}}
    workplace.server.patch(f"{APIS}/busy/status", json=status, headers=merge).raise_for_status()
    assert change(cluster, api, {**api.live["spec"], "replicas": 4}, "x", False, False) == 2
    with pytest.raises(ClusterError, match="changed by another writer"):
        change(cluster, api, {**api.live["spec"], "replicas": 5}, "x", False, False)
    assert spec_of(workplace, "busy")["replicas"] == 4


def test_an_invalid_promotion_changes_nothing(workplace: Workplace):
    # An older operator may have accepted a spec that is refused now; the cluster itself refuses such a candidate.
    workplace.api("odd", handler=HANDLER, status=SERVING)
    cluster = Cluster.open(str(workplace.kubeconfig), None, None)
    api = find(cluster, "odd")
    with pytest.raises(ClusterError, match=r"spec\.handler\.type"):
        change(cluster, api, {"handler": {"type": "cobol"}}, "x", False, False)


def test_history_lists_what_each_revision_changed(workplace: Workplace):
    specs = [{"handler": HANDLER}, {"handler": HANDLER, "compute": {"cpu": "1"}}]
    workplace.api("h1", handler=HANDLER, compute={"cpu": "1"}, replicas=2)
    assert "no revision yet" in workplace.cortex("history", "h1").stdout
    for number, spec in enumerate(specs, 1):
        record(workplace, "h1", number, spec)
    lines = [line.split() for line in workplace.cortex("history", "h1").stdout.splitlines()]
    assert lines[0] == ["REVISION", "CHANGED", "CURRENT", "CHANGES"]
    assert lines[1][0] == "2"
    assert lines[1][2:] == ["yes", "compute:", "(absent)", "->", '{"cpu":', '"1"}']
    assert lines[2][0] == "1"
    assert lines[2][2:] == ["the", "first", "revision"]
    as_json = json.loads(workplace.cortex("history", "h1", "-o", "json").stdout)
    assert [(each["number"], each["current"]) for each in as_json] == [(2, True), (1, False)]
    assert yaml.safe_load(workplace.cortex("history", "h1", "--revision", "1").stdout) == specs[0]
    assert "has no revision 7" in workplace.cortex("history", "h1", "--revision", "7").stderr


def test_rollback_returns_to_a_revision(workplace: Workplace):
    workplace.api("r1", handler=HANDLER, compute={"cpu": "3"}, replicas=2, candidate=CANDIDATE)
    assert "no earlier revision" in workplace.cortex("rollback", "r1").stderr
    for number in (1, 2, 3):
        record(workplace, "r1", number, {"handler": HANDLER, "compute": {"cpu": str(number)}})
    done = workplace.cortex("rollback", "r1")
    assert "revision 2" in done.stdout
    assert "cortex abort r1" in done.stdout
    after = spec_of(workplace, "r1")
    assert (after["compute"], after["replicas"], after["candidate"]) == ({"cpu": "2"}, 2, CANDIDATE)
    assert workplace.cortex("rollback", "r1", "--to", "1").exit_code == 0
    assert spec_of(workplace, "r1")["compute"] == {"cpu": "1"}
    assert "has the spec of revision 1 already" in workplace.cortex("rollback", "r1", "--to", "1").stderr
    assert "no revision 9 (existing: 3, 2, 1)" in workplace.cortex("rollback", "r1", "--to", "9").stderr
    printed = workplace.cortex("rollback", "r1", "--to", "3", "--print").stdout
    assert yaml.safe_load(printed)["spec"]["compute"] == {"cpu": "3"}
    assert spec_of(workplace, "r1")["compute"] == {"cpu": "1"}


def test_a_spec_that_was_never_ready_is_rolled_back_to_the_last_that_was(workplace: Workplace):
    workplace.api("r2", handler=HANDLER, compute={"cpu": "9"}, ready=False)
    record(workplace, "r2", 1, {"handler": HANDLER})
    assert "has not been Ready yet" in workplace.cortex("history", "r2").stdout
    assert workplace.cortex("rollback", "r2").exit_code == 0
    assert spec_of(workplace, "r2") == {"handler": HANDLER}


def pair(second: int, request: str, differences: list[dict[str, Any]]) -> dict[str, Any]:
    known = {"time": 1767225600.0 + second, "requestId": request, "path": "/", "request": '{"x": 1}'}
    return {
        **known,
        "stable": '{"label": "cat"}',
        "candidate": '{"label": "dog"}',
        "differences": differences,
    }


@pytest.fixture(scope="module")
def compared(workplace: Workplace) -> Workplace:
    label = {"path": "/label", "stable": "cat", "candidate": "dog"}
    attack = {"path": "/text", "stable": "[red]x", "candidate": "\x1b[31m\nx"}
    missing = {"path": "/score", "candidate": 0.5}
    reports: list[dict[str, Any]] = [
        {"compared": 90, "differing": 2, "classes": {"cat": {"cat": 60, "dog": 3}}},
        {"compared": 110, "differing": 4, "classes": {"cat": {"dog": 1}, "dog": {"dog": 9}}},
    ]
    pairs = [[pair(3, "r3", [label, missing]), pair(1, "r1", [label])], [pair(2, "r2", [attack])]]
    workplace.api("pets", handler=HANDLER, candidate=CANDIDATE, status=SERVING)
    workplace.replicas(
        "pets",
        *(
            {"CANDIDATE": json.dumps(report), "DIFFERENCES": json.dumps(kept)}
            for report, kept in zip(reports, pairs, strict=True)
        ),
        {"COMPONENT": "candidate"},
    )
    workplace.until_ready()
    return workplace


def test_diff_shows_the_differing_pairs_of_all_stable_replicas(compared: Workplace):
    done = compared.cortex("diff", "pets")
    lines = [" ".join(line.split()) for line in done.stdout.splitlines()]
    assert lines[0] == "200 responses compared, 6 differ (3.00%)"
    assert lines[2:7] == [
        "TIME REQUEST PATH AT STABLE CANDIDATE",
        "00:00:03 r3 / /label cat dog",
        "/score (absent) 0.5",
        "00:00:02 r2 / /text [red]x \N{REPLACEMENT CHARACTER}[31m x",
        "00:00:01 r1 / /label cat dog",
    ]
    assert lines[-3:] == ["cat dog", "cat 60 4", "dog 0 9"]
    assert "1 older pairs" in compared.cortex("diff", "pets", "--limit", "2").stdout


def test_diff_prints_a_pair_in_full(compared: Workplace):
    one = json.loads(compared.cortex("diff", "pets", "--request", "r2").stdout)
    assert (one["request"], one["pod"]) == ('{"x": 1}', "api-pets-1")
    assert len(json.loads(compared.cortex("diff", "pets", "-o", "json").stdout)) == 3
    assert "no replica has" in compared.cortex("diff", "pets", "--request", "r9").stderr


def test_get_shows_the_candidate_and_counts_forwarded_requests_once(compared: Workplace):
    words = " ".join(compared.cortex("get", "pets").stdout.split())
    assert "candidate Serving, weight 5%, mirror 0%" in words
    # 32 of each of the two stable replicas, none of the candidate.
    assert "requests 60 2XX, 4 4XX" in words
    assert "api-pets-2 yes 0" in words


def test_diff_states_why_nothing_is_compared(workplace: Workplace):
    workplace.api("none", handler=HANDLER)
    assert "none has no candidate" in workplace.cortex("diff", "none").stderr
    failed = candidate_status("Failed", "handler.py does not exist")
    workplace.api("failed", handler=HANDLER, candidate=CANDIDATE, status=failed)
    assert "it is Failed: handler.py does not exist" in workplace.cortex("diff", "failed").stderr
    assert diff.help is not None


def test_changes_name_each_field():
    before = {
        "handler": {"path": "a.py", "env": [1], "source": {"files": {"a.py": "x\ny"}}},
        "compute": {"cpu": 1},
    }
    after = {"handler": {"path": "b.py", "env": [1], "source": {"files": {"a.py": "x\nz" * 99}}}}
    assert list(changes(before, after)) == [
        'compute: {"cpu": 1} -> (absent)',
        "handler.path: a.py -> b.py",
        "handler.source.files.a.py: x -> x…",
    ]
