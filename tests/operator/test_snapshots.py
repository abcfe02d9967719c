"""Snapshots of rendered objects, so that reviews show every change, such as one that would restart all pods.

`make snapshots` writes tests/operator/snapshots/; read the diff before you commit it.
"""

import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from cortex_api import AsyncAPI, RealtimeAPI, parse
from cortex_api.candidate import candidate_api
from cortex_operator.capabilities import Capabilities
from cortex_operator.platform import Platform
from cortex_operator.render import candidate, queue_deletion, render

from .situations import SEEN

SNAPSHOTS = Path(__file__).parent / "snapshots"
STATUSES = SNAPSHOTS / "statuses.yaml"

HANDLER = {"type": "python", "path": "handler.py", "source": {"files": {"handler.py": "x", "lib/a.py": "y"}}}
RUNTIME_IMAGE = "cortex-runtime:0.0.0"
"""Not that of the current version, so that a release does not change the snapshots."""
QUEUE = {"url": "nats://nats:4222", "secretName": "queue-credentials"}
SOURCE = {"metadata": {"name": "code"}, "data": {"handler.py": "x"}, "binaryData": {"model.onnx": "AAAA"}}

CASES: dict[str, dict[str, Any]] = {
    "minimal": {},
    "grpc": {
        "handler": {"protocols": {"grpc": True, "repository": True}},
        "platform": {"networkPolicy": {"allowFrom": [], "adminFrom": []}},
    },
    "cpu-autoscaling": {
        "spec": {
            "autoscaling": {
                "minReplicas": 2,
                "maxReplicas": 9,
                "initReplicas": 3,
                "targetCpuUtilization": 65,
                "downscaleStabilizationPeriod": "2h",
                "upscaleStabilizationPeriod": "30s",
                "maxDownscaleFactor": 0.5,
                "maxUpscaleFactor": 2,
                "upscaleTolerance": 0.1,
            }
        },
        "capabilities": Capabilities(hpa_tolerance=True),
    },
    "in-flight-autoscaling": {"spec": {"autoscaling": {"targetInFlight": 4, "initReplicas": 2}}},
    "paused": {"spec": {"paused": True, "autoscaling": {"targetCpuUtilization": 50}}},
    "paused-with-replicas": {"spec": {"paused": True, "replicas": 3}},
    "gpu": {
        "spec": {
            "compute": {
                "cpu": "1500m",
                "mem": "4Gi",
                "gpu": 2,
                "gpuResource": "nvidia.com/mig-1g.10gb",
                "nodeSelector": {"pool": "gpu"},
                "tolerations": [{"key": "team", "operator": "Equal", "value": "a", "effect": "NoExecute"}],
            },
            "replicas": 3,
            "updateStrategy": {"maxSurge": 0, "maxUnavailable": "50%"},
        }
    },
    "candidate": {
        "handler": {"protocols": {"grpc": True}},
        "spec": {
            "replicas": 10,
            "candidate": {
                "handler": {"source": {"files": {"handler.py": "z"}}},
                "compute": {"mem": "2Gi"},
                "weight": 25,
                "key": "x-user-id",
            },
        },
        "platform": {"networkPolicy": {"allowFrom": [{"namespaceSelector": {}}], "adminFrom": []}},
    },
    "inferentia": {"spec": {"compute": {"inf": 1, "cpu": None}}},
    "tensorflow": {
        "handler": {
            "type": "tensorflow",
            "models": {"paths": [{"name": "a", "path": "pvc://c/a"}, {"name": "b", "path": "pvc://d/b"}]},
            "serverSideBatching": {"maxBatchSize": 8, "batchInterval": "5ms"},
            "processesPerReplica": 2,
            "threadsPerProcess": 3,
            "maxReplicaConcurrency": 100,
        },
        "spec": {"compute": {"cpu": 3, "mem": "3Gi", "gpu": 1}},
    },
    "tensorflow-without-gpu": {
        "handler": {"type": "tensorflow", "models": {"dir": "s3://bucket/models/"}},
        "platform": {
            "tensorflowServingImage": "mirror/serving:1",
            "tensorflowServingGpuImage": "mirror/gpu:1",
        },
    },
    "tensorflow-gpu-image": {
        "handler": {"type": "tensorflow", "models": {"path": "s3://bucket/model/"}},
        "spec": {"compute": {"gpu": 1}},
        "platform": {
            "tensorflowServingImage": "mirror/serving:1",
            "tensorflowServingGpuImage": "mirror/gpu:1",
        },
    },
    "tensorflow-own-image": {
        "handler": {
            "type": "tensorflow",
            "models": {"path": "s3://bucket/model/"},
            "tensorflowServingImage": "registry/own:2",
        },
        "spec": {"compute": {"gpu": 1}},
    },
    "tensorflow-in-process": {
        "handler": {"type": "tensorflow", "models": {"path": "s3://bucket/model/"}},
        "platform": {
            "tensorflowServingImage": None,
            "runtimeTensorflowImage": "registry/runtime-tensorflow:1",
        },
    },
    "configured-handler": {
        "handler": {
            "source": {"uri": "s3://bucket/project.zip"},
            "image": "registry/own:1",
            "env": [{"name": "A", "value": "1"}],
            "envFrom": [{"secretRef": {"name": "many"}}],
            "shmSize": "64Mi",
            "apiKeys": {"secret": {"name": "keys", "key": "a"}},
            "requestTimeout": "90500ms",
            "models": {"path": "pvc://claim/iris/"},
        },
        "platform": {
            "runtimeImage": "registry/runtime:3",
            "imagePullPolicy": "Always",
            "imagePullSecrets": ["registry"],
        },
    },
    "config-map-source": {"handler": {"source": {"configMap": {"name": "code"}}}, "source": SOURCE},
    "pod-overlay": {
        "spec": {
            "pod": {
                "labels": {"team": "a"},
                "annotations": {"note": "b"},
                "serviceAccountName": "own",
                "containers": [
                    {"name": "api", "env": [{"name": "B", "value": "2"}]},
                    {"name": "side", "image": "s"},
                ],
                "volumes": [{"name": "tmp", "emptyDir": {"sizeLimit": "1Gi"}}],
            }
        }
    },
    "gateway-api": {
        "spec": {"networking": {"endpoint": "/a/b/"}},
        "platform": {
            "gateway": {
                "name": "g",
                "namespace": "n",
                "sectionName": "s",
                "hostname": "h",
                "scheme": "https",
            },
            "networkPolicy": {"adminFrom": [{"namespaceSelector": {}}]},
        },
    },
    "gateway-api-grpc": {
        "handler": {"protocols": {"grpc": True}},
        "platform": {
            "gateway": {
                "name": "g",
                "namespace": "n",
                "grpcHostname": "{name}.{namespace}.h",
                "grpcSectionName": "t",
            }
        },
    },
    "gateway-api-minimal": {"platform": {"gateway": {"name": "g", "namespace": "n"}}},
    "gateway-api-of-another": {"platform": {"gateway": {"name": "g", "namespace": "n"}}, "routed": False},
    "ingress": {
        "spec": {"networking": {"endpoint": "/a/b"}},
        "platform": {"ingress": {"className": "nginx", "hostname": "h", "tlsSecretName": "t"}},
    },
    "ingress-without-hostname": {"platform": {"ingress": {"className": "nginx", "tlsSecretName": "t"}}},
    "async": {"kind": "AsyncAPI", "platform": {"queue": QUEUE}},
    "async-configured": {
        "kind": "AsyncAPI",
        "handler": {"apiKeys": {"secret": {"name": "keys"}}},
        "spec": {
            "autoscaling": {"minReplicas": 0, "maxReplicas": 7, "targetInFlight": 2},
            "gateway": {"minReplicas": 2, "maxReplicas": 5, "compute": {"cpu": 1, "mem": "64Mi"}},
            "webhook": {"url": "https://receiver", "secret": {"name": "signing", "key": "k"}},
        },
        "platform": {"queue": QUEUE, "networkPolicy": {"adminFrom": [{"podSelector": {}}]}},
    },
    "async-sqs": {
        "kind": "AsyncAPI",
        "spec": {"replicas": 0, "gateway": {"minReplicas": 2, "maxReplicas": 2}},
        "platform": {"queue": {"secretName": "queue-credentials"}},
    },
    "async-paused": {"kind": "AsyncAPI", "spec": {"paused": True}, "platform": {"queue": QUEUE}},
    "async-cpu-autoscaling": {
        "kind": "AsyncAPI",
        "spec": {"autoscaling": {"minReplicas": 0, "targetCpuUtilization": 70}},
        "platform": {"queue": QUEUE},
    },
}


class _Dumper(yaml.SafeDumper):
    """Return YAML with multi-line strings in block style, for readable diffs."""


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    style = "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _represent_text)


def rendered(
    kind: str = "RealtimeAPI",
    handler: dict[str, Any] | None = None,
    spec: dict[str, Any] | None = None,
    platform: dict[str, Any] | None = None,
    source: dict[str, Any] | None = None,
    capabilities: Capabilities | None = None,
    routed: bool = True,
) -> str:
    """Return all objects of an API as YAML documents, in the order in which they are applied."""
    api = parse(
        {
            "kind": kind,
            "metadata": {"name": "iris", "namespace": "default", "uid": "u-1"},
            "spec": {"handler": {**HANDLER, **(handler or {})}, **(spec or {})},
        }
    )
    settings = Platform.model_validate({"runtimeImage": RUNTIME_IMAGE} | (platform or {}))
    children = render(api, settings, source, capabilities, routed)
    if isinstance(api, RealtimeAPI) and api.spec.candidate is not None:
        merged = candidate_api(api)
        made = candidate.render(api, merged, settings, source, capabilities or Capabilities())
        split = candidate.split(api, made, "10.0.0.1", True, settings.lease_namespace)
        children += [*made.children, split]
    if isinstance(api, AsyncAPI):
        queue = "cortex-default-iris"
        children += [
            queue_deletion.in_namespace_of(api, settings, queue),
            queue_deletion.in_own_namespace("u-1", "default", settings, queue),
        ]
    return "---\n".join(yaml.dump(child, Dumper=_Dumper, sort_keys=False, width=200) for child in children)


@pytest.mark.parametrize("name", CASES)
def test_rendered_objects_match_the_snapshots(name: str) -> None:
    assert rendered(**CASES[name]) == (SNAPSHOTS / f"{name}.yaml").read_text(), "see `make snapshots`"


def test_every_snapshot_has_its_case() -> None:
    assert {path.stem for path in SNAPSHOTS.glob("*.yaml")} == {*CASES, STATUSES.stem}


def statuses() -> str:
    """Return the status in each situation of docs/troubleshooting.md."""
    found = {name: observe() for name, observe in SEEN.items()}
    return yaml.dump(found, Dumper=_Dumper, sort_keys=False, width=200)


def test_the_status_in_each_situation_matches_the_snapshot() -> None:
    expected = yaml.safe_load(STATUSES.read_text())
    for name, status in yaml.safe_load(statuses()).items():
        assert status == expected[name], "see `make snapshots`"
    assert set(expected) == set(SEEN)


def write() -> None:
    """Write all snapshots."""
    SNAPSHOTS.mkdir(exist_ok=True)
    for path in SNAPSHOTS.glob("*.yaml"):
        path.unlink()
    for name, case in CASES.items():
        (SNAPSHOTS / f"{name}.yaml").write_text(rendered(**case))
    STATUSES.write_text(statuses())


if __name__ == "__main__":
    sys.exit(write())
