"""The Python client and kopf on the dev cluster."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import kubernetes
import pytest
from starlette.testclient import TestClient

from cortex_devcluster import DevCluster
from cortex_devcluster.apiserver.api import APIServer
from cortex_devcluster.apiserver.registry import Registry
from cortex_devcluster.apiserver.store import HISTORY


@pytest.fixture
def core(cluster: DevCluster) -> Any:
    return kubernetes.client.CoreV1Api(kubernetes.config.new_client_from_config(str(cluster.kubeconfig)))


def test_python_client_creates_objects_and_gets_conflicts(core: Any, kubectl: Any) -> None:
    space = kubectl.namespace
    made = core.create_namespaced_config_map(space, {"metadata": {"generateName": "x-"}, "data": {"a": "1"}})
    name = made.metadata.name
    assert name.startswith("x-")
    made.data = {"a": "2"}
    core.replace_namespaced_config_map(name, space, made)
    with pytest.raises(kubernetes.client.ApiException) as refused:
        core.replace_namespaced_config_map(name, space, made)
    assert refused.value.status == 409
    assert "the object has been modified" in json.loads(refused.value.body)["message"]


def test_watch_continues_from_the_version_of_a_list(core: Any, kubectl: Any) -> None:
    space = kubectl.namespace
    core.create_namespaced_config_map(space, {"metadata": {"name": "before"}})
    version = core.list_namespaced_config_map(space).metadata.resource_version
    core.create_namespaced_config_map(space, {"metadata": {"name": "a", "labels": {"in": "yes"}}})
    core.patch_namespaced_config_map("a", space, {"metadata": {"labels": {"in": "no"}}})
    stream = kubernetes.watch.Watch().stream(
        core.list_namespaced_config_map,
        space,
        resource_version=version,
        label_selector="in=yes",
        timeout_seconds=1,
    )
    assert [(event["type"], event["object"].metadata.name) for event in stream] == [
        ("ADDED", "a"),
        ("DELETED", "a"),
    ]


def test_watch_from_an_expired_version_reports_410() -> None:
    registry = Registry(lambda: "127.43.0.1")
    for number in range(HISTORY + 2):
        body = {"metadata": {"name": "busy", "namespace": "default"}, "data": {"n": str(number)}}
        registry.store.put("/configmaps", "default", "busy", body)
    query = {"watch": "1", "resourceVersion": "1", "timeoutSeconds": "1"}
    watched = TestClient(APIServer(registry).app).get("/api/v1/configmaps", params=query).text
    event = json.loads(watched.splitlines()[0])
    assert (event["type"], event["object"]["code"]) == ("ERROR", 410)
    assert "too old resource version" in event["object"]["message"]


HANDLERS = """
import kopf
@kopf.on.create('configmaps', labels={'kopf': 'yes'})
@kopf.on.delete('configmaps', labels={'kopf': 'yes'})
def seen(reason, name, patch, **_):
    print('HANDLED', reason, name, flush=True)
    if reason == 'create':
        patch.setdefault('data', {})['touched'] = 'yes'
"""


def test_kopf_handles_creation_and_deletion(
    cluster: DevCluster, kubectl: Any, make: Any, tmp_path: Path
) -> None:
    script = tmp_path / "handlers.py"
    script.write_text(HANDLERS)
    command = [sys.executable, "-m", "kopf", "run", "--standalone", "-n", kubectl.namespace, str(script)]
    env = {**os.environ, "KUBECONFIG": str(cluster.kubeconfig)}
    kopf = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        body = make.configmap("a")
        body["metadata"]["labels"] = {"kopf": "yes"}
        kubectl("create", "-f", "-", stdin=body)
        kubectl.until(lambda: (kubectl.get("configmap", "a").get("data") or {}).get("touched") == "yes")
        kubectl("delete", "configmap", "a", "--timeout=60s")
        assert "not found" in kubectl.fails("get", "configmap", "a")
    finally:
        kopf.send_signal(signal.SIGINT)
        output, _ = kopf.communicate(timeout=60)
    assert [line for line in output.splitlines() if line.startswith("HANDLED")] == [
        "HANDLED create a",
        "HANDLED delete a",
    ]
