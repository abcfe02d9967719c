"""NATS, node pools and NetworkPolicies of the chart."""

import asyncio
import os
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import nats
import pytest
import yaml

from cortex_api import parse
from cortex_operator.platform import NetworkPolicyRef, Platform
from cortex_operator.render import names, queue_deletion
from tests.chart.rendering import Object, of, render
from tests.ports import free_port

SERVER = Path(sys.executable).parent / "nats-server"
TOKEN = {"tokenSecretName": "token"}


def platform(values: Object) -> Platform:
    (text,) = (
        found["data"]["platform.yaml"]
        for found in of("ConfigMap", render(values))
        if "platform.yaml" in found["data"]
    )
    return Platform.model_validate(yaml.safe_load(text))


def config(values: Object) -> str:
    (text,) = (
        found["data"]["nats.conf"]
        for found in of("ConfigMap", render(values))
        if "nats.conf" in found["data"]
    )
    return str(text)


def test_nats_is_disabled_by_default() -> None:
    assert of("StatefulSet", render()) == []
    assert platform({}).queue is None


@pytest.mark.parametrize(
    ("values", "url"),
    [
        ({"nats": {"enabled": True}}, "nats://cortex-nats.cortex-system.svc:4222"),
        ({"nats": {"enabled": True, "replicas": 3}}, "nats://cortex-nats.cortex-system.svc:4222?replicas=3"),
        ({"nats": {"enabled": True, **TOKEN}, "queue": {"secretName": "q"}}, None),
    ],
)
def test_platform_file_contains_the_url_of_nats(values: Object, url: str | None) -> None:
    queue = platform(values).queue
    assert queue is not None
    assert queue.url == url
    services = [service["metadata"]["name"] for service in of("Service", render(values))]
    assert "cortex-nats" in services


@pytest.mark.parametrize("replicas", [1, 3])
def test_nats_accepts_its_configuration(replicas: int, tmp_path: Path) -> None:
    text = config({"nats": {"enabled": True, "replicas": replicas, "storage": {"size": "20Gi"}}})
    assert "max_file_store: 18432MiB" in text
    (tmp_path / "nats.conf").write_text(text.replace('"/data"', f'"{tmp_path}"'))
    done = subprocess.run(
        [SERVER, "-t", "-c", tmp_path / "nats.conf"],
        env={**os.environ, "POD_NAME": "cortex-nats-0"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    (workload,) = of("StatefulSet", render({"nats": {"enabled": True, "replicas": replicas}}))
    assert workload["spec"]["replicas"] == replicas
    assert text.count("nats://cortex-nats-") == (0 if replicas == 1 else replicas)


def test_nats_passes_its_probes_and_requires_the_token(tmp_path: Path) -> None:
    values = {"nats": {"enabled": True, **TOKEN}, "queue": {"secretName": "q"}}
    (workload,) = of("StatefulSet", render(values))
    (container,) = workload["spec"]["template"]["spec"]["containers"]
    port, monitor = free_port(), free_port()
    text = config(values).replace("port: 4222", f"host: 127.0.0.1\nport: {port}", 1)
    for written, here in (
        ("http_port: 8222", f"http: 127.0.0.1:{monitor}"),
        ("/data", str(tmp_path / "data")),
        ("/run/nats", str(tmp_path)),
    ):
        assert written in text
        text = text.replace(written, here)
    (tmp_path / "nats.conf").write_text(text)
    arguments = [
        {"/etc/nats/nats.conf": str(tmp_path / "nats.conf"), "$(NATS_TOKEN)": "0e1secret"}.get(word, word)
        for word in container["args"]
    ]
    with (tmp_path / "log").open("wb") as log:
        server = subprocess.Popen(
            [SERVER, *arguments], env={**os.environ, "POD_NAME": "cortex-nats-0"}, stdout=log, stderr=log
        )
    try:
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            path = container[probe]["httpGet"]["path"]
            assert _succeeds(f"http://127.0.0.1:{monitor}{path}", server), (tmp_path / "log").read_text()
        asyncio.run(_check_token(port))
        stop = [
            word.replace("/run/nats", str(tmp_path))
            for word in container["lifecycle"]["preStop"]["exec"]["command"]
        ]
        assert subprocess.run([SERVER, *stop[1:]], timeout=120, capture_output=True).returncode == 0
    finally:
        server.terminate()
        server.wait(120)


async def _check_token(port: int) -> None:
    patient: dict[str, Any] = {"allow_reconnect": False, "connect_timeout": 60}
    with pytest.raises(nats.errors.Error, match="Authorization"):
        await nats.connect(f"nats://127.0.0.1:{port}", **patient, error_cb=_ignore)
    connection = await nats.connect(f"nats://0e1secret@127.0.0.1:{port}", **patient)
    await connection.jetstream(timeout=60).add_stream(name="s", subjects=["s"])
    await connection.close()


async def _ignore(_: Exception) -> None: ...


def _succeeds(url: str, server: subprocess.Popen[bytes]) -> bool:
    """Return whether a probe succeeds within a minute: the server responds with an error while JetStream starts."""
    end = time.monotonic() + 60
    while time.monotonic() < end and server.poll() is None:
        with suppress(httpx.TransportError):
            if httpx.get(url).status_code == 200:
                return True
        time.sleep(0.05)
    return False


def test_only_pods_of_async_apis_can_connect_to_nats() -> None:
    values = {"nats": {"enabled": True}, "watchNamespaces": ["a", "b"]}
    (policy,) = of("NetworkPolicy", render(values))
    queue, routes = policy["spec"]["ingress"]
    (peer,) = queue["from"]
    manifest = {
        "kind": "AsyncAPI",
        "metadata": {"name": "x", "namespace": "a"},
        "spec": {"handler": {"type": "python", "path": "h.py", "source": {"files": {"h.py": "x"}}}},
    }
    assert peer["podSelector"]["matchLabels"].items() <= names.labels(parse(manifest)).items()
    (expression,) = peer["namespaceSelector"]["matchExpressions"]
    assert expression["values"] == [
        "a",
        "b",
        "cortex-system",
    ]  # Pods in the last namespace delete the queues of deleted namespaces.
    pod = queue_deletion.in_own_namespace(
        "uid", "a", Platform.model_validate({"queue": {"url": "nats://n"}}), "q"
    )
    assert peer["podSelector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()
    assert [port["port"] for port in queue["ports"]] == ["nats"]
    assert routes["from"][0]["podSelector"]["matchLabels"] == policy["spec"]["podSelector"]["matchLabels"]
    everywhere = of("NetworkPolicy", render({"nats": {"enabled": True}}))[0]
    assert everywhere["spec"]["ingress"][0]["from"][0]["namespaceSelector"] == {}


def test_only_monitoring_and_helm_test_can_connect_to_the_operator() -> None:
    peers = [{"namespaceSelector": {"matchLabels": {"name": "monitoring"}}}]
    rendered = render({"networkPolicy": {"enabled": True, "monitoringFrom": peers}})
    (policy,) = of("NetworkPolicy", rendered)
    (rule,) = policy["spec"]["ingress"]
    (test,) = of("Pod", rendered)
    (deployment,) = of("Deployment", rendered)
    assert policy["spec"]["podSelector"]["matchLabels"].items() <= (
        deployment["spec"]["template"]["metadata"]["labels"].items()
    )
    assert rule["from"][0]["podSelector"]["matchLabels"].items() <= test["metadata"]["labels"].items()
    assert rule["from"][1:] == peers
    reference = platform({"networkPolicy": {"enabled": True, "monitoringFrom": peers}}).network_policy
    assert isinstance(reference, NetworkPolicyRef)
    assert list(reference.admin_from[1:]) == peers


def pools(*given: Object) -> dict[str, Any]:
    values = {"karpenter": {"enabled": True, "nodeClass": {"name": "c"}}, "nodePools": list(given)}
    return {pool["metadata"]["name"]: pool["spec"] for pool in of("NodePool", render(values))}


def test_static_and_dynamic_pools_together_have_the_limits() -> None:
    one = {"name": "a", "instanceTypes": ["m5.large"]}
    assert set(pools({**one, "max": 4})) == {"a"}
    assert pools({**one, "max": 4})["a"]["limits"] == {"nodes": 4}
    split = pools({**one, "min": 1, "max": 4})
    assert split["a-min"]["replicas"] == 1
    assert split["a"]["limits"] == {"nodes": 3}
    assert "replicas" not in split["a"]
    assert split["a"]["template"] == split["a-min"]["template"]
    assert set(pools({**one, "min": 4, "max": 4})) == {"a-min"}


def test_nodes_have_the_label_of_their_pool_and_gpu_nodes_have_a_taint() -> None:
    found = pools(
        {"name": "gpu", "max": 1, "instanceTypes": ["g5.xlarge"], "gpu": True},
        {"name": "cpu", "max": 1, "instanceTypes": ["m5.large"], "spot": True},
    )
    gpu, cpu = (found[name]["template"]["spec"] for name in ("gpu", "cpu"))
    assert [(taint["key"], taint["effect"]) for taint in gpu["taints"]] == [("nvidia.com/gpu", "NoSchedule")]
    assert "taints" not in cpu
    offers = {r["key"]: r["values"] for r in cpu["requirements"]}
    assert offers["karpenter.sh/capacity-type"] == ["spot", "on-demand"]
    assert offers["node.kubernetes.io/instance-type"] == ["m5.large"]
    assert found["gpu"]["template"]["metadata"]["labels"] == {"cortex.dev/node-pool": "gpu"}


def test_templates_in_extra_objects_are_rendered() -> None:
    extra = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "{{ .Release.Name }}-models"}}
    (namespace,) = of("Namespace", render({"extraObjects": [extra]}))
    assert namespace["metadata"]["name"] == "cortex-models"
