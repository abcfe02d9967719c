"""Render the chart with the helm library. Results are cached."""

import functools
import json
from pathlib import Path
from typing import Any

import helm_python
import yaml

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "charts" / "cortex"
Object = dict[str, Any]

EVERYTHING: list[Object] = [
    {},
    {"crds": {"enabled": False}},
    {"crds": {"keep": False}},
    {"watchNamespaces": ["a", "b"], "imagePullSecrets": ["registry"], "logLevel": "debug"},
    {
        "operator": {
            "image": {"repository": "r/o", "tag": "2", "pullPolicy": "Always"},
            "resources": {"requests": {"cpu": 1}, "limits": {"memory": "1Gi"}},
            "nodeSelector": {"pool": "system"},
            "tolerations": [{"key": "system", "operator": "Exists", "effect": "NoSchedule"}],
        },
        "runtime": {"image": {"repository": "r/r", "tag": "3", "pullPolicy": "Always"}},
        "serviceAccount": {"annotations": {"role": "arn:x"}},
    },
    {
        "operator": {"image": {"digest": f"sha256:{'a' * 64}"}},
        "runtime": {"image": {"digest": f"sha256:{'b' * 64}"}},
        "nats": {"enabled": True, "image": {"digest": f"sha256:{'c' * 64}"}},
    },
    {
        "operator": {"replicas": 1},
        "runtime": {"tensorflowImage": "t:1"},
        "tensorflowServing": {"image": None, "gpuImage": "g:1"},
    },
    {
        "gateway": {
            "name": "g",
            "namespace": "n",
            "sectionName": "s",
            "hostname": "h",
            "scheme": "https",
            "grpcHostname": "{name}.{namespace}.h",
            "grpcSectionName": "t",
        },
        "queue": {"url": "nats://nats:4222", "secretName": "q"},
        "tracing": {"endpoint": "http://collector:4318", "sampling": 0.5},
        "networkPolicy": {
            "enabled": True,
            "allowFrom": [{"podSelector": {}}, {"ipBlock": {"cidr": "10.0.0.0/8"}}],
            "monitoringFrom": [{"namespaceSelector": {"matchLabels": {"name": "monitoring"}}}],
        },
    },
    {
        "ingress": {
            "className": "nginx",
            "hostname": "h",
            "scheme": "https",
            "tlsSecretName": "t",
            "path": "/x{endpoint}",
            "pathType": "Prefix",
            "annotations": {"a": "b"},
        }
    },
    {"nats": {"enabled": True}},
    {
        "nats": {
            "enabled": True,
            "replicas": 3,
            "image": {"repository": "r/n", "tag": "2.12", "pullPolicy": "Always"},
            "storage": {"size": "1Ti", "className": "fast"},
            "tokenSecretName": "token",
            "resources": {"requests": {"cpu": "1"}, "limits": {"memory": "4Gi"}},
            "nodeSelector": {"pool": "system"},
            "tolerations": [{"key": "system", "operator": "Exists"}],
        },
        "queue": {"secretName": "queue"},
        "networkPolicy": {"monitoringFrom": [{"podSelector": {}}]},
        "watchNamespaces": ["a", "b"],
        "imagePullSecrets": ["registry"],
    },
    {
        "metrics": {
            "serviceMonitor": {"enabled": True, "labels": {"release": "p"}, "interval": "1m"},
            "podMonitor": {"enabled": True, "labels": {"release": "p"}, "interval": "5s"},
            "rules": {
                "enabled": True,
                "labels": {"release": "p"},
                "errorRatio": 0.01,
                "oldestJobSeconds": 60,
                "notReadyFor": "1h",
            },
            "dashboard": {"enabled": True, "label": "board", "annotations": {"folder": "Models"}},
        }
    },
    {
        "karpenter": {"enabled": True, "nodeClass": {"group": "g.io", "kind": "Class", "name": "c"}},
        "nodePools": [
            {"name": "cpu", "max": 5, "instanceTypes": ["m5.large", "m6i.large"], "spot": True},
            {"name": "gpu", "min": 1, "max": 3, "instanceTypes": ["g5.xlarge"], "gpu": True},
            {"name": "fixed", "min": 2, "max": 2, "instanceTypes": ["m5.large"]},
        ],
    },
    {
        "extraObjects": [
            {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {"name": "{{ .Release.Name }}-x"},
                "data": {"a": "b"},
            }
        ]
    },
]
"""Values that together set every value of the chart; a test checks this."""


def files(values: Object | None = None, name: str = "cortex") -> dict[str, str]:
    """Return the rendered files of the chart by path. Raises helm_python.HelmError for invalid values."""
    return _files(json.dumps(values or {}), name)


@functools.cache
def _files(values: str, name: str) -> dict[str, str]:
    chart = helm_python.Chart.load(str(CHART))
    try:
        chart.validate_schema(json.loads(values))
        rendered: dict[str, str] = chart.render(json.loads(values), name=name, namespace="cortex-system")
    finally:
        chart.close()
    return rendered


def render(values: Object | None = None, name: str = "cortex") -> list[Object]:
    """Return the rendered objects of the chart."""
    rendered = files(values, name).items()
    texts = (text for path, text in rendered if not path.endswith(("NOTES.txt", ".tpl")))
    return [json.loads(found) for text in texts for found in _objects(text)]


@functools.cache
def _objects(text: str) -> list[str]:
    loaded = yaml.load_all(text, yaml.CSafeLoader)
    return [json.dumps(found) for found in loaded if found]


def of(kind: str, objects: list[Object]) -> list[Object]:
    """Return the objects of a kind."""
    return [found for found in objects if found["kind"] == kind]


def pods(objects: list[Object]) -> list[Object]:
    """Return the specs of all pods and pod templates."""
    templates = [found["spec"]["template"]["spec"] for kind in WORKLOADS for found in of(kind, objects)]
    return [*templates, *(found["spec"] for found in of("Pod", objects))]


WORKLOADS = ("Deployment", "StatefulSet", "DaemonSet", "Job")
