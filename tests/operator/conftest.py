"""A dev cluster with the real operator on it, shared by all tests of this folder; each test has a namespace of its own."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from cortex_cli.devcluster import DevCluster

ROOT = Path(__file__).resolve().parents[2]
KUBECTL = Path(sys.executable).parent / "kubectl"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def healthy(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/healthz", timeout=5).status_code == 200
    except httpx.TransportError:
        return False


class Operator:
    """The operator's process."""

    def __init__(self, kubeconfig: Path, log: Path) -> None:
        self._environment = {**os.environ, "KUBECONFIG": str(kubeconfig)}
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        port = free_port()
        command = [sys.executable, "-m", "cortex_operator", "--health-port", str(port)]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(command, env=self._environment, stdout=log, stderr=log)
        eventually(lambda: healthy(port), bool)

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            assert self._process.wait(15) == 0, self._log.read_text()[-2000:]
            self._process = None


class Kubectl:
    """The real kubectl, in one namespace."""

    def __init__(self, kubeconfig: Path, namespace: str) -> None:
        self._command = [str(KUBECTL), "--kubeconfig", str(kubeconfig), "--namespace", namespace]
        self.namespace = namespace

    def __call__(self, *arguments: str, stdin: str = "", ok: bool = True) -> str:
        done = subprocess.run(
            [*self._command, *arguments], input=stdin, capture_output=True, text=True, timeout=60
        )
        if ok:
            assert done.returncode == 0, done.stderr
        return done.stdout if ok else done.stdout + done.stderr

    def apply(self, *manifests: dict[str, Any]) -> None:
        self("apply", "-f", "-", stdin="\n---\n".join(map(json.dumps, manifests)))

    def get(self, kind: str, name: str) -> dict[str, Any]:
        return json.loads(self("get", kind, name, "-o", "json"))

    def list(self, kind: str) -> list[dict[str, Any]]:
        return json.loads(self("get", kind, "-o", "json"))["items"]

    def ready(self, name: str) -> dict[str, Any]:
        conditions = self.get("realtimeapi", name).get("status", {}).get("conditions", [])
        return next((c for c in conditions if c["type"] == "Ready"), {})

    def wait_reason(self, name: str, reason: str) -> dict[str, Any]:
        return eventually(lambda: self.ready(name), lambda ready: ready.get("reason") == reason)


def eventually(look: Callable[[], Any], good: Callable[[Any], bool], seconds: float = 45) -> Any:
    """What `look` gives once it is good; fails with what it gave last when that never happens."""
    deadline = time.monotonic() + seconds
    while not good(seen := look()):
        assert time.monotonic() < deadline, f"still {seen}"
        time.sleep(0.1)
    return seen


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DevCluster]:
    with DevCluster(tmp_path_factory.mktemp("cluster")) as cluster:
        Kubectl(cluster.kubeconfig, "default")("apply", "-f", str(ROOT / "crds"))
        yield cluster


@pytest.fixture(scope="session")
def operator(cluster: DevCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operator]:
    operator = Operator(cluster.kubeconfig, tmp_path_factory.mktemp("operator") / "log")
    operator.start()
    yield operator
    operator.stop()


@pytest.fixture
def kubectl(cluster: DevCluster, operator: Operator, request: pytest.FixtureRequest) -> Iterator[Kubectl]:
    name = "t" + "".join(c if c.isalnum() else "-" for c in request.node.name.lower())[:50].rstrip("-")
    kubectl = Kubectl(cluster.kubeconfig, name)
    kubectl("create", "namespace", name)
    yield kubectl
    kubectl("delete", "namespace", name, "--wait=false")
