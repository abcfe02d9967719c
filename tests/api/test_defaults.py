"""Every field that may be absent, and the value that it then has: a change of one is a change for the users of all APIs."""

from collections.abc import Callable
from typing import Any

from cortex_api import parse

Make = Callable[..., dict[str, Any]]

COMPUTE = {
    "cpu": "200m",
    "mem": None,
    "gpu": 0,
    "gpuResource": "nvidia.com/gpu",
    "inf": 0,
    "nodeSelector": {},
    "tolerations": [],
}
HANDLER = {
    "type": "python",
    "path": "handler.py",
    "source": None,
    "config": {},
    "env": [],
    "envFrom": [],
    "dependencies": None,
    "pythonPath": None,
    "models": None,
    "processesPerReplica": 1,
    "threadsPerProcess": 1,
    "maxReplicaConcurrency": 1024,
    "maxBodySize": "100Mi",
    "image": None,
    "tensorflowServingImage": None,
    "logLevel": "info",
    "shmSize": None,
    "debug": False,
    "docs": True,
    "apiKeys": None,
}
SPEC = {
    "tracker": None,
    "tracing": None,
    "payloadLogging": None,
    "compute": COMPUTE,
    "replicas": None,
    "updateStrategy": {"maxSurge": "25%", "maxUnavailable": "25%"},
    "networking": {"endpoint": None},
    "pod": {},
    "paused": False,
    "autoscaling": None,
}
AUTOSCALING = {
    "minReplicas": 1,
    "maxReplicas": 100,
    "initReplicas": None,
    "targetCpuUtilization": None,
    "targetInFlight": None,
    "window": "60s",
    "downscaleStabilizationPeriod": "5m",
    "upscaleStabilizationPeriod": "1m",
    "maxDownscaleFactor": 0.75,
    "maxUpscaleFactor": 1.5,
    "downscaleTolerance": 0.05,
    "upscaleTolerance": 0.05,
}


def parsed(manifest: dict[str, Any]) -> dict[str, Any]:
    return parse(manifest).model_dump(by_alias=True)


def test_a_realtime_api() -> None:
    handler = {"type": "python", "path": "handler.py"}
    assert parsed({"kind": "RealtimeAPI", "metadata": {"name": "a"}, "spec": {"handler": handler}}) == {
        "apiVersion": "cortex.dev/v1alpha1",
        "kind": "RealtimeAPI",
        "metadata": {
            "name": "a",
            "namespace": "default",
            "uid": "",
            "generation": 0,
            "labels": {},
            "annotations": {},
        },
        "status": None,
        "spec": {
            **SPEC,
            "handler": {**HANDLER, "serverSideBatching": None, "protocols": None, "requestTimeout": "60s"},
            "candidate": None,
        },
    }


def test_an_async_api(manifest: Make) -> None:
    queue = {"maxAttempts": 3, "lease": "60s", "retention": "168h", "deletionPolicy": "Retain", "name": None}
    assert parsed(manifest("AsyncAPI"))["spec"] == {
        **SPEC,
        "handler": {**HANDLER, "maxConcurrency": 1},
        "queue": queue,
        "gateway": {"minReplicas": 1, "maxReplicas": 10, "compute": COMPUTE},
        "webhook": None,
    }


def test_autoscaling(manifest: Make) -> None:
    def autoscaling(kind: str, **fields: Any) -> Any:
        return parsed(manifest(kind, autoscaling=fields))["spec"]["autoscaling"]

    assert autoscaling("RealtimeAPI") == {**AUTOSCALING, "targetCpuUtilization": 80}
    assert autoscaling("AsyncAPI") == {**AUTOSCALING, "targetInFlight": 1.0}
    for kind in ("RealtimeAPI", "AsyncAPI"):
        for target in ({"targetCpuUtilization": 50}, {"targetInFlight": 2.5}):
            assert autoscaling(kind, **target) == {**AUTOSCALING, **target}


def test_the_parts_of_a_spec(manifest: Make) -> None:
    handler = {
        "type": "tensorflow",
        "models": {"paths": [{"name": "a", "path": "b"}]},
        "source": {"uri": "s3://b/c.zip"},
        "dependencies": {},
        "env": [{"name": "A"}],
        "apiKeys": {"secret": {"name": "s"}},
    }
    tracker, tolerations = {"modelType": "regression"}, [{"operator": "Exists"}]
    spec = parsed(manifest(handler=handler, tracker=tracker, compute={"tolerations": tolerations}))["spec"]
    assert spec["handler"]["models"] == {
        "path": None,
        "paths": [{"name": "a", "path": "b", "signatureKey": None}],
        "dir": None,
        "signatureKey": None,
        "cacheSize": None,
        "cacheBytes": None,
        "diskCacheSize": None,
        "pollInterval": "10s",
    }
    assert spec["handler"]["source"] == {"files": None, "configMap": None, "uri": "s3://b/c.zip"}
    assert spec["handler"]["dependencies"] == {"pip": None, "shell": None}
    assert spec["handler"]["env"] == [{"name": "A", "value": None, "valueFrom": None}]
    assert spec["handler"]["apiKeys"] == {"secret": {"name": "s", "key": None}}
    assert spec["tracker"] == {"key": None, "modelType": "regression"}
    absent = ("key", "operator", "value", "effect", "tolerationSeconds")
    assert spec["compute"]["tolerations"] == [dict.fromkeys(absent) | {"operator": "Exists"}]


def test_a_candidate(manifest: Make) -> None:
    assert parsed(manifest(candidate={}))["spec"]["candidate"] == {
        "handler": {},
        "compute": {},
        "replicas": None,
        "autoscaling": None,
        "weight": 0,
        "mirror": 0,
        "key": None,
        "compare": {"tolerance": 0.0, "ignore": [], "keep": 50},
        "rollback": {"minRequests": 100, "errorRate": "5%", "latencyRatio": None, "disagreement": None},
    }


def test_a_webhook(manifest: Make) -> None:
    assert parsed(manifest("AsyncAPI", webhook={}))["spec"]["webhook"] == {
        "url": None,
        "secret": None,
        "timeout": "10s",
    }
