"""A cluster with the real operator on it, shared by all tests of this folder; each test has a namespace of its own.

The cluster is a dev cluster, or the one that CORTEX_TEST_KUBECONFIG names; then CORTEX_TEST_RUNTIME_IMAGE is the runtime's
image there, and addresses of its Services and pods are to be reachable from here.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from cortex_devcluster import DevCluster
from tests.ports import free_port

from .gateway_api import DEFINITIONS

ROOT = Path(__file__).resolve().parents[2]
KUBECTL = Path(sys.executable).parent / "kubectl"
ECHO = "class Handler:\n    def handle_post(self, payload):\n        return {'got': payload}\n"


def answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=5).status_code == 200
    except httpx.TransportError:
        return False


class Operator:
    """An operator process, which is started again when it exits without its Lease, as by its Deployment."""

    def __init__(self, kubeconfig: Path, config: Path, log: Path) -> None:
        self._environment = {**os.environ, "KUBECONFIG": str(kubeconfig)}
        self._config = config
        self.log = log
        self._process: subprocess.Popen[bytes] | None = None
        self._port = 0
        self._lock = threading.Lock()
        self._is_stopping = False
        self._keeper: threading.Thread | None = None

    def start(self) -> None:
        self._port = free_port()
        self._is_stopping = False
        self._run()
        self._keeper = threading.Thread(target=self._keep, daemon=True)
        self._keeper.start()
        eventually(lambda: answers(f"http://127.0.0.1:{self._port}/healthz"), bool, seconds=150)

    def _run(self) -> None:
        command = [sys.executable, "-m", "cortex_operator", "--config", str(self._config)]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [*command, "--health-port", str(self._port)], env=self._environment, stdout=log, stderr=log
            )

    def _keep(self) -> None:
        while (process := self._process) is not None:
            process.wait()
            with self._lock:
                if self._is_stopping or not self._lost_its_lease(process):
                    return
                self._run()

    def _lost_its_lease(self, process: subprocess.Popen[bytes]) -> bool:
        return process.returncode == 1 and "is no longer the leader" in self.log.read_text()

    def stop(self) -> None:
        if (process := self._end(signal.SIGTERM)) is not None:
            assert process.returncode == 0 or self._lost_its_lease(process), self.log.read_text()[-2000:]

    def kill(self) -> None:
        self._end(signal.SIGKILL)

    def _end(self, number: signal.Signals) -> subprocess.Popen[bytes] | None:
        with self._lock:
            process, self._process, self._is_stopping = self._process, None, True
        if process is not None:
            process.send_signal(number)
            process.wait(60)
            assert self._keeper is not None
            self._keeper.join()
        return process

    def metric(self, name: str) -> float:
        text = httpx.get(f"http://127.0.0.1:{self._port}/metrics").text
        return sum(float(line.split()[-1]) for line in text.splitlines() if line.startswith(name))

    def leads(self) -> bool:
        return self.metric("cortex_operator_leads") == 1


class Kubectl:
    """The real kubectl, in one namespace."""

    def __init__(self, kubeconfig: Path, namespace: str) -> None:
        self._command = [str(KUBECTL), "--kubeconfig", str(kubeconfig), "--namespace", namespace]
        self.namespace = namespace

    def __call__(self, *arguments: str, stdin: str = "", ok: bool = True) -> str:
        done = subprocess.run(
            [*self._command, *arguments], input=stdin, capture_output=True, text=True, timeout=120
        )
        if ok:
            assert done.returncode == 0, done.stderr
        return done.stdout if ok else done.stdout + done.stderr

    def apply(self, *manifests: dict[str, Any]) -> None:
        self("apply", "-f", "-", stdin="\n---\n".join(map(json.dumps, manifests)))

    def patch(self, kind: str, name: str, change: dict[str, Any]) -> None:
        self("patch", kind, name, "--type=merge", "-p", json.dumps(change))

    def get(self, kind: str, name: str) -> dict[str, Any]:
        return json.loads(self("get", kind, name, "-o", "json"))

    def list(self, kind: str, *arguments: str) -> list[dict[str, Any]]:
        return json.loads(self("get", kind, "-o", "json", *arguments))["items"]

    def ready(self, name: str, kind: str = "realtimeapi") -> dict[str, Any]:
        conditions = self.get(kind, name).get("status", {}).get("conditions", [])
        return next((c for c in conditions if c["type"] == "Ready"), {})

    def wait_reason(self, name: str, reason: str, kind: str = "realtimeapi") -> dict[str, Any]:
        return eventually(lambda: self.ready(name, kind), lambda ready: ready.get("reason") == reason)

    def wait_message(self, name: str, message: str) -> None:
        eventually(lambda: self.ready(name).get("message"), lambda found: found == message)

    def address(self, name: str) -> str:
        """Return the URL of an API, once its address accepts connections: kube-proxy learns of a ready pod later than the
        operator."""
        host = self.get("service", f"api-{name}")["spec"]["clusterIP"]
        eventually(lambda: accepts(host), bool)
        return f"http://{host}:8080"


def accepts(host: str) -> bool:
    try:
        socket.create_connection((host, 8080), timeout=5).close()
    except OSError:
        return False
    return True


def eventually(look: Callable[[], Any], good: Callable[[Any], bool], seconds: float = 60) -> Any:
    """Return the result of `look` once it is good; fail with its last result after a timeout."""
    deadline = time.monotonic() + seconds
    while not good(seen := look()):
        assert time.monotonic() < deadline, f"still {seen}"
        time.sleep(0.1)
    return seen


def api(
    name: str = "echo", code: str = ECHO, handler: dict[str, Any] | None = None, **spec: Any
) -> dict[str, Any]:
    source = {"type": "python", "path": "handler.py", "source": {"files": {"handler.py": code}}}
    return {
        "apiVersion": "cortex.dev/v1alpha1",
        "kind": "RealtimeAPI",
        "metadata": {"name": name},
        "spec": {"handler": {**source, **(handler or {})}, **spec},
    }


def code(text: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "code"},
        "data": {"handler.py": text},
    }


def post(kubectl: Kubectl, name: str, payload: Any) -> httpx.Response:
    return httpx.post(f"{kubectl.address(name)}/", json=payload)


@pytest.fixture(scope="session")
def kubeconfig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    if given := os.environ.get("CORTEX_TEST_KUBECONFIG"):
        if running := installed_operator(Kubectl(Path(given), "default")):
            pytest.exit(running, returncode=2)
        install(Path(given))
        yield Path(given)
        return
    with DevCluster(tmp_path_factory.mktemp("cluster")) as cluster:
        install(cluster.kubeconfig)
        yield cluster.kubeconfig


def installed_operator(kubectl: Kubectl) -> str | None:
    """Return an error if the cluster runs an operator, which would also manage the APIs of the tests; otherwise None."""
    found = kubectl.list(
        "deployments", "--all-namespaces", "--selector=app.kubernetes.io/name=cortex-operator"
    )
    for deployment in found:
        namespace, name = deployment["metadata"]["namespace"], deployment["metadata"]["name"]
        replicas = deployment["spec"].get("replicas", 1)
        if replicas or deployment.get("status", {}).get("replicas"):
            scale = f"kubectl scale deployment {name} --namespace {namespace} --replicas"
            return (
                f"an operator is installed on this cluster and would work against the one of the tests:"
                f" `{scale}=0` before them, `{scale}={replicas or 1}` after them"
            )
    return None


def install(kubeconfig: Path) -> None:
    kubectl = Kubectl(kubeconfig, "default")
    kubectl(
        "apply", "--server-side", "--force-conflicts", "-f", str(ROOT / "crds")
    )  # The chart may have them.
    existing = kubectl("get", "crd", "-o", "name")
    if missing := [crd for crd in DEFINITIONS if crd["metadata"]["name"] not in existing]:
        kubectl.apply(*missing)


@pytest.fixture(scope="session")
def nats(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a NATS server with JetStream, where the cluster's pods reach it."""
    host = os.environ.get("CORTEX_TEST_HOST", "127.0.0.1")
    port, store = free_port(), tmp_path_factory.mktemp("nats")
    with (store / "log").open("wb") as log:
        command = [str(KUBECTL.parent / "nats-server"), "-a", host, "-p", str(port), "-js", "-sd", str(store)]
        server = subprocess.Popen(command, stdout=log, stderr=log)
    yield f"nats://{host}:{port}"
    server.terminate()
    server.wait(60)


@pytest.fixture(scope="session")
def platform(nats: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The platform file of the operator: with a Gateway, a queue, NetworkPolicies and a Lease."""
    settings: dict[str, Any] = {
        "gateway": {
            "name": "outside",
            "namespace": "default",
            "hostname": "apis.example.com",
            "grpcHostname": "{name}.{namespace}.example.com",
        },
        "queue": {"url": nats},
        "networkPolicy": {"adminFrom": [{"namespaceSelector": {}}]},
        "leaseNamespace": "default",
        "tensorflowServingImage": None,
    }
    if image := os.environ.get("CORTEX_TEST_RUNTIME_IMAGE"):
        settings["runtimeImage"] = image
    path = tmp_path_factory.mktemp("platform") / "platform.yaml"
    path.write_text(json.dumps(settings))
    return path


@pytest.fixture(scope="session")
def operator(
    kubeconfig: Path, platform: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Operator]:
    operator = Operator(kubeconfig, platform, tmp_path_factory.mktemp("operator") / "log")
    operator.start()
    eventually(operator.leads, bool)
    yield operator
    operator.stop()


@pytest.fixture
def kubectl(kubeconfig: Path, operator: Operator, request: pytest.FixtureRequest) -> Iterator[Kubectl]:
    words = "".join(c if c.isalnum() else "-" for c in request.node.name.removeprefix("test_").lower())
    name = f"{words[:40].strip('-')}-{uuid.uuid4().hex[:6]}"
    kubectl = Kubectl(kubeconfig, name)
    kubectl("create", "namespace", name)
    yield kubectl
    # A namespace lets its pods end before it deletes the rest, and an API that is still there keeps its endpoint.
    kubectl("delete", "realtimeapis,asyncapis", "--all")
    kubectl("delete", "namespace", name, "--wait=false")
