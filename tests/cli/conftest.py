"""A dev cluster with APIs as the operator creates them: resource, Service, and pods that respond like replicas."""

import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from click.testing import CliRunner, Result

from cortex_api import KINDS, __version__
from cortex_cli import connection
from cortex_cli.__main__ import main
from cortex_cli.commands import predict
from cortex_devcluster import DevCluster

ROOT = Path(__file__).parents[2]
KUBECTL = Path(sys.executable).with_name("kubectl")
CORE = "/api/v1/namespaces/default"
GROUP = "/apis/cortex.dev/v1alpha1/namespaces/default"
REPLICA = """
import http.server, json, os, sys, threading
metrics, info = os.environ['METRICS'], os.environ['INFO']
host = os.environ['CORTEX_HOST']
def log(message, second, **more):
    entry = {'time': f'2026-01-01T00:00:{second:02}.000000+00:00', 'level': 'info', 'message': message, **more}
    print(json.dumps(entry), flush=True)
class Handler(http.server.BaseHTTPRequestHandler):
    def is_authorized(self):
        key = os.environ.get('KEY')
        if key and self.headers['x-api-key'] != key:
            return self.answer(401, 'an API key is required')
        return True
    def do_GET(self):
        if self.path != '/metrics' and not self.is_authorized():
            return
        known = {'/metrics': metrics, '/info': info}
        if 'CANDIDATE' in os.environ:
            known |= {'/candidate': os.environ['CANDIDATE'], '/candidate/differences': os.environ['DIFFERENCES']}
        for job, status in (('good', 'completed'), ('bad', 'failed')):
            known[f'/{job}?wait=20s'] = known[f'/{job}'] = json.dumps({'id': job, 'status': status, 'result': 7})
        self.answer(200 if self.path in known else 404, known.get(self.path, 'nothing here'))
    def do_POST(self):
        body = self.rfile.read(int(self.headers['content-length']))
        if not self.is_authorized():
            return
        log('received', 40, requestId=self.headers['x-request-id'])
        if 'job' in self.path:
            return self.answer(202, json.dumps({'id': 'bad' if body == b'"bad"' else 'good'}))
        echo = {'path': self.path, 'type': self.headers['content-type'], 'got': body.decode(), 'key': self.headers['x-key']}
        echo['secret'] = self.headers['x-api-key']
        self.answer(400 if body == b'"bad"' else 200, json.dumps(echo))
    def answer(self, status, text):
        self.send_response(status); self.end_headers(); self.wfile.write(text.encode())
    def log_message(self, *words): pass
first = int(os.environ['FIRST'])
log('hello from ' + os.environ['HOSTNAME'], first)
print('a plain line', flush=True)
log('bye from ' + os.environ['HOSTNAME'], first + 10, level='warning')
# The pod is ready from now on, so its log is complete before.
for port in (8080, 8081):
    server = http.server.ThreadingHTTPServer((host, port), Handler)
    threading.Thread(target=server.serve_forever).start()
"""
METRICS = """\
cortex_requests_total{method="POST",status="200"} 30
cortex_requests_total{method="POST",status="404"} 2
cortex_request_duration_seconds_bucket{le="0.004"} 0
cortex_request_duration_seconds_bucket{le="0.006"} 32
cortex_request_duration_seconds_bucket{le="+Inf"} 32
cortex_requests_in_flight 1
"""


@dataclass
class Workplace:
    """A dev cluster with kubectl and the `cortex` command."""

    kubeconfig: Path
    server: httpx.Client

    def kubectl(self, *words: str) -> str:
        done = subprocess.run(
            [str(KUBECTL), f"--kubeconfig={self.kubeconfig}", *words],
            env={**os.environ, "HOME": str(self.kubeconfig.parent)},
            capture_output=True,
            text=True,
            timeout=180,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def cortex(self, *words: str, stdin: str | None = None) -> Result:
        return CliRunner().invoke(
            main, [*words[:1], "--kubeconfig", str(self.kubeconfig), *words[1:]], input=stdin
        )

    def api(
        self, name: str, *, ready: bool = True, status: dict[str, Any] | None = None, **spec: Any
    ) -> None:
        """Create an API with the status that the operator would write."""
        kind = spec.pop("kind", "RealtimeAPI")
        where = f"{GROUP}/{KINDS[kind].plural}"
        self.create(where, {**resource(name, **spec), "kind": kind})
        reason, message = (
            ("Ready", "1 of 1 replicas are ready") if ready else ("HandlerNotFound", "x.py does not exist")
        )
        condition = {
            "type": "Ready",
            "status": str(ready),
            "reason": reason,
            "message": message,
            "lastTransitionTime": "2026-01-01T00:00:00Z",
        }
        full = {
            "observedGeneration": 1,
            "url": f"http://api-{name}.default.svc:8080",
            "readyReplicas": int(ready),
            "conditions": [condition],
            **(status or {}),
        }
        merge = {"content-type": "application/merge-patch+json"}
        self.server.patch(f"{where}/{name}/status", json={"status": full}, headers=merge).raise_for_status()

    def replicas(self, name: str, *pods: dict[str, str]) -> None:
        """Create a Service and pods of an API.

        pods: the environment of each pod: METRICS, INFO, FIRST (the second of its first log line), CANDIDATE and DIFFERENCES.
        """
        self.create(f"{CORE}/services", service(name))
        for number, environment in enumerate(pods):
            self.create(f"{CORE}/pods", pod(name, number, environment))

    def until_ready(self) -> None:
        """Wait until all pods are ready."""
        self.kubectl("wait", "--for=condition=Ready", "pods", "--all", "--timeout=150s")

    def create(self, where: str, manifest: dict[str, Any]) -> None:
        self.server.post(where, json=manifest).raise_for_status()

    def delete(self, where: str) -> None:
        self.server.delete(where).raise_for_status()


def resource(name: str, **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "cortex.dev/v1alpha1",
        "kind": "RealtimeAPI",
        "metadata": {"name": name},
        "spec": {"handler": {"type": "python", "path": "handler.py"}, **spec},
    }


def service(name: str) -> dict[str, Any]:
    spec = {"selector": {"cortex.dev/api": name}, "ports": [{"port": 8080, "targetPort": 8080}]}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": f"api-{name}"}, "spec": spec}


def pod(name: str, number: int, environment: dict[str, str]) -> dict[str, Any]:
    values = {"METRICS": METRICS, "INFO": "{}", "FIRST": "1", **environment}
    container = {
        "name": "api",
        "image": f"cortex-runtime:{__version__}",
        "command": ["python", "-c", textwrap.dedent(REPLICA)],
        "env": [{"name": key, "value": value} for key, value in values.items()],
        "readinessProbe": {"httpGet": {"port": 8081, "path": "/metrics"}, "periodSeconds": 1},
    }
    labels = {
        "cortex.dev/api": name,
        "cortex.dev/kind": environment.get("KIND", "RealtimeAPI"),
        "cortex.dev/component": environment.get("COMPONENT", "api"),
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": f"api-{name}-{number}", "labels": labels},
        "spec": {"containers": [container], "terminationGracePeriodSeconds": 1},
    }


@pytest.fixture(autouse=True)
def slow_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let commands in this process wait for a slow cluster: without a line on stderr, and longer for the log of a request."""
    monkeypatch.setattr(connection, "_QUIET", 600.0)
    monkeypatch.setattr(predict, "_LOG_SECONDS", 60.0)


@pytest.fixture(scope="session")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workplace]:
    with DevCluster(tmp_path_factory.mktemp("cluster")) as cluster:
        url = yaml.safe_load(cluster.kubeconfig.read_text())["clusters"][0]["cluster"]["server"]
        with httpx.Client(base_url=url, trust_env=False, timeout=60) as server:
            place = Workplace(cluster.kubeconfig, server)
            place.kubectl("apply", "-f", str(ROOT / "crds"))
            yield place
