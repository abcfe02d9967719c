"""A dev cluster with 30 APIs in many states, as the operator and the replicas would report them.

`python -m tests.cli.ui.landscape` keeps it running, with its page.
"""

import hashlib
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from cortex_api import KINDS, __version__
from cortex_cli.connection import Cluster
from cortex_cli.ui import server
from cortex_devcluster import DevCluster

ROOT = Path(__file__).parents[3]
REPLICA = Path(__file__).with_name("replica.py").read_text()
MERGE = {"content-type": "application/merge-patch+json"}
TRACEBACK = """ModuleNotFoundError: No module named 'torchvision'
  handler.py, line 4
    from torchvision.transforms import Resize
"""
MODELS = {
    "models": [
        {
            "name": "resnet50",
            "versions": ["1", "2", "3"],
            "loaded": ["2", "3"],
            "memory": {"2": 102760448, "3": 103809024},
        },
        {"name": "mobilenet", "versions": ["7"], "loaded": []},
    ]
}
CANDIDATE = {
    "phase": "Serving",
    "reason": "Serving",
    "message": "1 of 1 replicas are ready; no threshold is exceeded",
    "version": "5f0c2a91",
    "weight": 10,
    "mirror": 50,
    "replicas": 1,
    "readyReplicas": 1,
    "requests": 1840,
    "errorRate": "0.05%",
    "latencyP95": "74ms",
    "stableLatencyP95": "81ms",
    "compared": 8203,
    "disagreement": "2.4%",
}
ROLLED_BACK = {
    **CANDIDATE,
    "phase": "RolledBack",
    "reason": "ErrorRate",
    "message": "the stable version had to answer 31 of 204 requests (15.2%) of the last minute; rollback.errorRate is 5%."
    " The stable version answers all requests. A changed candidate starts anew; `cortex retry headlines` starts this one anew",
    "weight": 0,
    "mirror": 0,
    "replicas": 0,
    "readyReplicas": 0,
    "requests": 204,
    "errorRate": "15.2%",
}
DIFFERENCES = [
    {
        "time": 1795000000 + number,
        "requestId": f"r-{number}",
        "path": "/",
        "request": {"text": text},
        "stable": {"label": before, "score": 0.5 + number / 8},
        "candidate": {"label": after, "score": 0.75 + number / 16},
        "differences": [
            {"path": "/label", "stable": before, "candidate": after},
            {"path": "/score", "stable": 0.5 + number / 8, "candidate": 0.75 + number / 16},
        ],
    }
    for number, (text, before, after) in enumerate(
        (
            ("the delivery was late but the support was kind", "negative", "positive"),
            ("not bad at all", "negative", "positive"),
            ("it works, I guess", "positive", "neutral"),
        )
    )
]
QUEUE = {"queued": 128, "inFlight": 4, "oldest": "2026-11-26T08:00:00Z"}
JOBS = {
    "done": {
        "id": "done",
        "status": "completed",
        "result": {"letters": 5},
        "timestamp": "2026-11-26T08:00:00.000Z",
    },
    "broken": {
        "id": "broken",
        "status": "failed",
        "attempts": 3,
        "reason": "HandlerError",
        "error": "ValueError: no text",
        "timestamp": "2026-11-26T08:00:00.000Z",
    },
}
FAILED = (
    "failed after 3 attempts, the limit of maxAttempts: the handler raised ValueError;"
    " the log of the worker has the traceback with this job's id"
)
OPENAPI = {
    "paths": {
        "/": {
            "post": {
                "summary": "Classify a text",
                "requestBody": {
                    "content": {
                        "application/json": {
                            "schema": {
                                "type": "object",
                                "required": ["text"],
                                "properties": {
                                    "text": {"type": "string", "description": "at most 2,000 characters"},
                                    "language": {"enum": ["en", "de", "fr"], "default": "en"},
                                    "threshold": {"type": "number", "default": 0.5},
                                    "explain": {"type": "boolean"},
                                },
                            },
                            "example": {"text": "not bad at all"},
                        }
                    }
                },
            }
        },
        "/labels": {"get": {"summary": "List the labels"}},
    }
}
CRASH = """Traceback (most recent call last):
  File "/project/handler.py", line 21, in __init__
    self.index = faiss.read_index(path)
RuntimeError: could not open index.bin"""
LINES = [
    {"level": "info", "message": "model iris, version 3 loaded in 41 ms"},
    {"level": "info", "message": "ready"},
    {"level": "warning", "message": "payload has an unknown field 'petal_colour'", "requestId": "r-4711"},
    {
        "level": "error",
        "message": "POST / failed",
        "requestId": "r-4712",
        "traceback": "ValueError: could not convert string to float: 'n/a'\n  handler.py, line 12\n    float(payload['x'])",
    },
]


@dataclass
class Landscape:
    """The cluster."""

    kubeconfig: Path
    client: httpx.Client
    expected: int = 0

    def connect(self) -> Cluster:
        return Cluster.open(str(self.kubeconfig), None, None)

    def create(self, where: str, manifest: dict[str, Any]) -> None:
        self.client.post(where, json=manifest).raise_for_status()

    def api(
        self,
        name: str,
        reason: str = "Ready",
        message: str = "",
        *,
        namespace: str = "shop",
        kind: str = "RealtimeAPI",
        ready: bool | None = None,
        replicas: int = 1,
        desired: int | None = None,
        conditions: list[dict[str, Any]] | None = None,
        status: dict[str, Any] | None = None,
        spec: dict[str, Any] | None = None,
    ) -> None:
        """Create an API, with a status unless `reason` is empty."""
        where = f"/apis/cortex.dev/v1alpha1/namespaces/{namespace}/{KINDS[kind].plural}"
        base = {"handler": {"type": "python", "path": "handler.py"}}
        wanted = replicas if desired is None else desired
        count = {} if "autoscaling" in (spec or {}) else {"replicas": wanted}
        manifest = {"apiVersion": "cortex.dev/v1alpha1", "kind": kind, "metadata": {"name": name}}
        self.create(where, {**manifest, "spec": {**base, **count, **(spec or {})}})
        if not reason:
            return
        holds = reason == "Ready" if ready is None else ready
        text = message or f"{replicas} of {wanted} replicas are ready"
        found = [condition("Ready", holds, reason, text), *(conditions or [])]
        full = {
            "observedGeneration": 1,
            "url": f"http://api-{name}.{namespace}.svc:8080",
            "replicas": wanted,
            "readyReplicas": replicas if holds else 0,
            "conditions": found,
            **(status or {}),
        }
        self.client.patch(f"{where}/{name}/status", json={"status": full}, headers=MERGE).raise_for_status()

    def update(
        self, name: str, status: dict[str, Any], namespace: str = "shop", kind: str = "RealtimeAPI"
    ) -> None:
        """Change the status of an API."""
        where = f"/apis/cortex.dev/v1alpha1/namespaces/{namespace}/{KINDS[kind].plural}/{name}/status"
        self.client.patch(where, json={"status": status}, headers=MERGE).raise_for_status()

    def replicas(
        self,
        name: str,
        count: int = 1,
        *,
        namespace: str = "shop",
        kind: str = "RealtimeAPI",
        component: str = "api",
        **profile: Any,
    ) -> None:
        """Create pods that report the traffic of a profile, and a Service unless they are workers of an AsyncAPI."""
        labels = {
            "cortex.dev/api": name,
            "cortex.dev/kind": kind,
            "cortex.dev/component": component,
        }
        if component != "worker":
            spec: dict[str, Any] = {"selector": labels, "ports": [{"port": 8080, "targetPort": 8080}]}
            service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": f"api-{name}"}}
            self.create(f"/api/v1/namespaces/{namespace}/services", {**service, "spec": spec})
        suffix = "-gateway" if component == "gateway" else ""
        container = {
            "name": "api",
            "image": f"cortex-runtime:{__version__}",
            "command": ["python", "-c", REPLICA],
            "env": [{"name": "PROFILE", "value": json.dumps(profile)}],
            "readinessProbe": {"httpGet": {"port": 8081, "path": "/metrics"}, "periodSeconds": 1},
        }
        template = {
            "metadata": {"labels": labels},
            "spec": {"containers": [container], "terminationGracePeriodSeconds": 1},
        }
        deployment = {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": f"api-{name}{suffix}", "labels": labels},
            "spec": {"replicas": count, "selector": {"matchLabels": labels}, "template": template},
        }
        self.create(f"/apis/apps/v1/namespaces/{namespace}/deployments", deployment)
        self.expected += 0 if "crash" in profile else count

    def until_ready(self, seconds: float = 150) -> None:
        """Wait until all pods are ready."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            pods = self.client.get("/api/v1/pods").json()["items"]
            ready = [
                pod
                for pod in pods
                if any(
                    c["type"] == "Ready" and c["status"] == "True"
                    for c in pod["status"].get("conditions", ())
                )
            ]
            if len(ready) >= self.expected:
                return
            time.sleep(0.2)
        raise TimeoutError("pods are not ready")


def condition(kind: str, holds: bool, reason: str, message: str) -> dict[str, Any]:
    stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    return {
        "type": kind,
        "status": str(holds),
        "reason": reason,
        "message": message,
        "lastTransitionTime": stamp,
    }


def job_id(number: int) -> str:
    """Return the id of a job, which has the length of a real one."""
    return hashlib.sha256(bytes([number])).hexdigest()[:32]


def job_list() -> dict[str, Any]:
    """Return what a gateway lists: jobs that wait, run, or have failed."""

    def job(number: int, age: float, status: str, **more: Any) -> dict[str, Any]:
        return {"id": job_id(number), "status": status, "submitted": stamp(age), **more}

    failed = {"attempts": 3, "reason": "HandlerError", "error": FAILED}
    lost = {
        **failed,
        "reason": "WorkerCrashed",
        "error": FAILED.replace("the handler raised ValueError", "the worker exited"),
    }
    return {
        "open": [
            job(100, 340, "in_queue", attempts=2, lastError="the handler raised TimeoutError"),
            job(101, 95, "in_progress", attempts=1, progress=0.4, note="page 12 of 30"),
            job(102, 40, "in_progress", attempts=1),
            *(job(103 + number, 30 - number, "in_queue") for number in range(3)),
        ],
        "failed": [
            job(
                n,
                900 + 400 * n,
                "failed",
                timestamp=stamp(600 + 400 * n),
                **(lost if n == 2 else failed),
            )
            for n in range(5)
        ],
        "failed_total": 14,
    }


def stamp(age: float) -> str:
    """Return the time `age` seconds ago."""
    return time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime(time.time() - age))


def populate(place: Landscape) -> None:
    """Create the APIs."""
    for namespace in ("shop", "vision", "sandbox"):
        place.create(
            "/api/v1/namespaces", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}
        )
    scaling = {"minReplicas": 1, "maxReplicas": 10, "targetInFlight": 4}
    decision = {
        "provider": "builtin",
        "current": 3,
        "desired": 3,
        "metric": "in-flight",
        "reason": "11.4 requests in flight, target 4 for each replica: 3 replicas",
    }
    place.api(
        "fraud-score",
        replicas=3,
        desired=3,
        spec={"autoscaling": scaling, "tracker": {"key": "label", "modelType": "classification"}},
        status={"autoscaling": decision},
    )
    place.replicas(
        "fraud-score",
        3,
        rate=42,
        seconds=0.011,
        in_flight=4,
        classes={"legitimate": 0.93, "review": 0.05, "fraud": 0.02},
        lines=LINES,
    )
    tracker = {"key": "label", "modelType": "classification"}
    files = {
        "handler.py": "class Handler:\n    def handle_post(self, payload):\n        ...\n",
        "sample.json": '{"sepal_length": 5.1, "petal_length": 1.4}',
    }
    place.api(
        "iris",
        spec={
            "handler": {"type": "python", "path": "handler.py", "source": {"files": files}},
            "tracker": tracker,
        },
    )
    place.replicas(
        "iris",
        rate=6,
        seconds=0.004,
        in_flight=1,
        classes={"setosa": 0.5, "versicolor": 0.3, "virginica": 0.2},
        lines=LINES,
    )
    place.api("price-forecast", spec={"tracker": {"modelType": "regression"}})
    place.replicas("price-forecast", rate=2.5, seconds=0.09, in_flight=1, value=129.0)
    place.api("recommender", replicas=2)
    place.replicas("recommender", 2, rate=180, seconds=0.023, errors=0.004, in_flight=6, waiting=2)
    models = {"handler": {"type": "onnx", "models": {"dir": "s3://models/vision/"}}}
    place.api("image-tagger", namespace="vision", spec=models)
    place.replicas(
        "image-tagger", namespace="vision", rate=9, seconds=0.17, in_flight=2, answers={"info": MODELS}
    )
    place.api(
        "letters",
        kind="AsyncAPI",
        namespace="default",
        status={"queue": QUEUE},
    )
    place.replicas(
        "letters",
        namespace="default",
        kind="AsyncAPI",
        component="worker",
        rate=0.8,
        jobs={"completed": 0.97, "failed": 0.03},
        dead_letters={"HandlerError": 14},
    )
    place.replicas(
        "letters",
        namespace="default",
        kind="AsyncAPI",
        component="gateway",
        answers={**JOBS, "jobs": job_list()},
    )
    place.api(
        "sentiment",
        replicas=2,
        spec={"candidate": {"handler": {"path": "handler_v2.py"}, "weight": 10, "mirror": 50}},
        status={"candidate": CANDIDATE},
    )
    answers = {"candidate/differences": DIFFERENCES, "openapi.json": OPENAPI}
    place.replicas("sentiment", 2, rate=22, seconds=0.031, in_flight=1, answers=answers)
    place.api(
        "headlines",
        spec={"candidate": {"handler": {"path": "handler_v2.py"}, "weight": 20}},
        status={"candidate": ROLLED_BACK},
    )
    place.replicas("headlines", rate=31, seconds=0.019, in_flight=1)
    place.api("churn", replicas=1)
    place.replicas("churn")
    for name in ("basket-size", "coupon", "dedupe", "eta", "size-guide", "stock"):
        place.api(
            name,
            replicas=0 if name == "eta" else 1,
            desired=1,
            namespace="shop" if name != "eta" else "sandbox",
        )
    place.api("ranker", "HandlerImportError", TRACEBACK)
    place.api(
        "ocr",
        "ImagePullFailed",
        "image registry.example.com/ocr:2.1 cannot be pulled: manifest unknown",
        namespace="vision",
    )
    place.api(
        "depth",
        "Unschedulable",
        "0/4 nodes are available: 4 Insufficient nvidia.com/gpu",
        namespace="vision",
        spec={"compute": {"gpu": 1}},
    )
    place.api(
        "segment",
        "OutOfMemory",
        "the container was killed: it needed more than compute.mem (1Gi)",
        namespace="vision",
    )
    place.api(
        "search-intent",
        "ModelNotFound",
        "s3://models/intent/ contains no model; expected a folder for each version",
        ready=False,
    )
    place.api("geo", "InvalidSpec", "spec.autoscaling.maxReplicas must be at least minReplicas (4); got 2")
    place.api(
        "returns",
        "CrashLoop",
        "container api of pod api-returns-5d9-x restarts again and again: exit code 139",
        ready=False,
    )
    place.replicas("returns", crash=CRASH, lines=LINES[:1])
    degraded = [
        condition(
            "Degraded",
            True,
            "HandlerImportError",
            "the new version does not start, the previous one serves: NameError: name 'np' is not defined (handler.py, line 9)",
        )
    ]
    place.api(
        "pricing",
        "HandlerImportError",
        "the new version does not start, the previous one serves",
        ready=True,
        replicas=2,
        conditions=degraded,
    )
    place.replicas("pricing", 1, rate=14, seconds=0.016, in_flight=1)
    place.api(
        "bids",
        "Ready",
        ready=True,
        conditions=[
            condition(
                "Degraded",
                True,
                "FieldsOverwritten",
                "vpa-updater overwrites spec.template.spec.containers[0].resources of Deployment api-bids",
            )
        ],
    )
    place.api(
        "embeddings",
        "Starting",
        "replica api-embeddings-7b-4 loads model bge-large (2 of 3 replicas are ready)",
        replicas=2,
        desired=3,
        namespace="vision",
    )
    place.api(
        "translate",
        "Updating",
        "1 of 3 pods of the new generation are ready; 2 old pods serve",
        replicas=3,
        ready=False,
        spec={"replicas": 3},
    )
    place.api("new-model", "", namespace="sandbox")
    place.api("old-ranker", "Paused", "spec.paused is true", replicas=0, ready=False, spec={"paused": True})
    place.api(
        "weekly-report", "ScaledToZero", "spec.replicas is 0", replicas=0, ready=False, namespace="default"
    )
    place.api(
        "thumbnails",
        kind="AsyncAPI",
        namespace="vision",
        replicas=0,
        desired=0,
        status={"queue": {"queued": 0, "inFlight": 0}},
    )
    place.until_ready()


@contextmanager
def landscape(folder: Path) -> Iterator[Landscape]:
    """Start the cluster, and create the APIs."""
    with (
        DevCluster(folder) as cluster,
        httpx.Client(base_url=cluster.url, trust_env=False, timeout=60) as client,
    ):
        place = Landscape(cluster.kubeconfig, client)
        for file in sorted((ROOT / "crds").glob("*.yaml")):
            place.create(
                "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", parse_yaml(file.read_text())
            )
        end = time.monotonic() + 60
        while client.get("/apis/cortex.dev/v1alpha1/asyncapis").status_code != 200 and time.monotonic() < end:
            time.sleep(0.1)
        populate(place)
        yield place


@contextmanager
def serving(page: server.Page) -> Iterator[str]:
    """Serve a page, and provide its URL with the token. At the end, wait until the server has ended."""
    thread = page.start()
    try:
        yield page.url
    finally:
        page.stop()
        thread.join(30)
    assert not thread.is_alive()


def parse_yaml(text: str) -> Any:
    import yaml

    return yaml.safe_load(text)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder, landscape(Path(folder)) as place:
        page = server.prepare(place.connect, "", int(sys.argv[1]) if len(sys.argv) > 1 else 0)
        print(page.url, place.kubeconfig, flush=True)
        page.run()
