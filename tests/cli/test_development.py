"""The parts of `cortex dev`: the manifest of the copy, the files of the project, permissions, and who uses a copy."""

import json
import os
import socket
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from cortex_api import parse
from cortex_cli.commands import dev as dev_command
from cortex_cli.connection import Response
from cortex_cli.development import local_project
from cortex_cli.development.copy_client import is_left_behind, own_holder
from cortex_cli.development.copy_manifest import copy_name, development_copy, notes
from cortex_cli.development.local_project import LocalProject, changed_names

from .conftest import ROOT, Workplace

EXPIRES = datetime(2026, 1, 1, tzinfo=UTC)
HANDLER = {"type": "python", "path": "handler.py"}


def copied(spec: dict[str, Any], kind: str = "RealtimeAPI", **metadata: Any) -> dict[str, Any]:
    manifest = {
        "apiVersion": "cortex.dev/v1alpha1",
        "kind": kind,
        "metadata": {"name": "iris", **metadata},
        "spec": spec,
    }
    before = json.dumps(manifest)
    copy = development_copy(manifest, copy_name("iris"), "ann@laptop (process 1)", EXPIRES)
    assert json.dumps(manifest) == before
    parse(copy)
    return copy


def test_a_copy_has_one_replica_its_own_endpoint_and_no_code():
    spec = {
        "handler": HANDLER | {"source": {"configMap": {"name": "code"}}, "config": {"a": 1}},
        "autoscaling": {"minReplicas": 3, "targetInFlight": 2},
        "networking": {"endpoint": "/flowers"},
        "updateStrategy": {"maxSurge": 0, "maxUnavailable": "100%"},
        "compute": {"cpu": 2},
    }
    copy = copied(spec, labels={"argocd.argoproj.io/instance": "x"}, annotations={"a": "b"}, namespace="n")
    assert copy["spec"] == {
        "handler": HANDLER | {"config": {"a": 1}},
        "networking": {},
        "compute": {"cpu": 2},
        "replicas": 1,
    }
    assert copy["metadata"] == {
        "name": "iris-dev",
        "labels": {"cortex.dev/development": "iris"},
        "annotations": {
            "cortex.dev/development-expires": "2026-01-01T00:00:00+00:00",
            "cortex.dev/development-holder": "ann@laptop (process 1)",
        },
    }


def test_the_copy_of_an_asyncapi_has_its_own_queue_and_calls_no_webhook():
    spec = {
        "handler": HANDLER,
        "queue": {"name": "shared", "maxAttempts": 2},
        "webhook": {"url": "https://example.com"},
        "gateway": {"minReplicas": 2},
    }
    copy = copied(spec, "AsyncAPI")
    assert copy["spec"]["queue"] == {"maxAttempts": 2, "deletionPolicy": "Delete"}
    assert copy["spec"]["gateway"] == {"minReplicas": 1, "maxReplicas": 1}
    assert "webhook" not in copy["spec"]
    assert list(notes({"spec": spec})) == [
        "the copy calls no webhook, so that the receiver gets no results of it"
    ]


def test_a_scan_reads_changed_files_only_and_leaves_out_ignored_ones(tmp_path, monkeypatch):
    read: list[str] = []
    real = local_project._sha256

    def record(path: Path) -> str:
        read.append(path.name)
        return real(path)

    monkeypatch.setattr(local_project, "_sha256", record)
    for name, text in (("handler.py", "1"), ("notes.txt", "2"), (".cortexignore", "*.txt\n")):
        (tmp_path / name).write_text(text)
    project = LocalProject(tmp_path)
    first = project.scan()
    assert list(first) == ["handler.py"]
    assert read == ["handler.py"]
    assert project.scan() == first
    assert read == ["handler.py"]
    (tmp_path / "handler.py").chmod(0o755)
    (tmp_path / "lib.py").write_text("3")
    assert changed_names(first, project.scan()) == ["handler.py", "lib.py"]


def test_only_the_copy_of_an_ended_process_of_this_user_and_machine_is_left_behind():
    owner = own_holder().partition(" (process ")[0]
    # No process has this number: it is larger than the maximum of the system.
    assert is_left_behind(f"{owner} (process 99999999)")
    assert not is_left_behind(f"{owner} (process {os.getppid()})")
    assert not is_left_behind("ann@laptop (process 99999999)")
    assert not is_left_behind("")
    assert socket.gethostname() in own_holder()


def test_missing_permissions_are_reported_before_anything_is_created(
    workplace: Workplace, tmp_path, monkeypatch
):
    def request(
        cluster: Any, method: str, url_path: str, *rest: Any, body: bytes = b"", **more: Any
    ) -> Response:
        assert url_path.endswith("/selfsubjectaccessreviews"), url_path
        attributes = json.loads(body)["spec"]["resourceAttributes"]
        allowed = attributes.get("subresource") != "portforward"
        return Response(201, {}, json.dumps({"status": {"allowed": allowed}}).encode())

    monkeypatch.setattr(dev_command.Cluster, "request", request)
    (tmp_path / "api.yaml").write_text(
        "apiVersion: cortex.dev/v1alpha1\nkind: RealtimeAPI\nmetadata: {name: iris}\n"
        "spec: {handler: {type: python, path: handler.py}}\n"
    )
    result = workplace.cortex("dev", str(tmp_path / "api.yaml"), "--port", "0")
    assert (result.exit_code, "get pods/portforward, create pods/portforward" in result.stderr) == (4, True)


@pytest.mark.parametrize(("name", "words"), [("iris", "must end in -dev"), ("x" * 50 + "-dev", "at most 50")])
def test_an_invalid_name_of_a_copy_is_rejected(workplace: Workplace, tmp_path, name, words):
    (tmp_path / "api.yaml").write_text(
        "apiVersion: cortex.dev/v1alpha1\nkind: RealtimeAPI\nmetadata: {name: iris}\n"
        "spec: {handler: {type: python, path: handler.py}}\n"
    )
    result = workplace.cortex("dev", str(tmp_path / "api.yaml"), "--as", name)
    assert (result.exit_code, words in result.stderr) == (2, True)


def test_the_documented_role_has_the_permissions_that_the_command_checks():
    text = (ROOT / "docs/development.md").read_text()
    role = yaml.safe_load(text.partition("`developer.yaml`:")[2].split("```")[1].removeprefix("yaml"))
    granted = {
        (verb, resource) for rule in role["rules"] for resource in rule["resources"] for verb in rule["verbs"]
    }
    for verb, _, resource, sub, _ in dev_command.permissions("realtimeapis"):
        assert (verb, f"{resource}/{sub}" if sub else resource) in granted
