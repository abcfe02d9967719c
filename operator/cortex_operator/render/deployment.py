"""The Deployment of an API: its pods, under Pod Security "restricted", and how they are replaced."""

import math
from typing import Any

from cortex_api import RealtimeAPI
from cortex_api.units import seconds
from cortex_operator.platform import Platform
from cortex_operator.render.configmap import code_items
from cortex_operator.render.names import (
    ADMIN_PORT,
    PORT,
    TEMPLATE_LABEL,
    child_name,
    digest,
    labels,
    selector,
)
from cortex_operator.render.overlay import merge

PRE_STOP = 5
"""Seconds that a pod goes on serving after its deletion, until every proxy has taken it off its list."""
USER = 10001
"""The user that the images run as."""


def render(
    api: RealtimeAPI, platform: Platform, config: dict[str, Any], code: dict[str, Any] | None
) -> dict[str, Any]:
    """The Deployment. `spec.replicas` stands in it only while no autoscaler owns it.

    config, code: the ConfigMaps whose content the pods run; a change of it replaces the pods.
    """
    template = _template(api, platform, config, code)
    template["metadata"]["labels"][TEMPLATE_LABEL] = digest(template)
    spec: dict[str, Any] = {
        "selector": {"matchLabels": selector(api)},
        "strategy": _strategy(api),
        "progressDeadlineSeconds": 600,
        "revisionHistoryLimit": 3,
        "template": template,
    }
    if (replicas := fixed_replicas(api)) is not None:
        spec["replicas"] = replicas
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": child_name(api)},
        "spec": spec,
    }


def fixed_replicas(api: RealtimeAPI) -> int | None:
    """The number of replicas that the resource itself says; None while an autoscaler owns it."""
    if api.spec.paused:
        return 0
    if api.spec.autoscaling is not None:
        return None
    return 1 if api.spec.replicas is None else api.spec.replicas


def birth_replicas(api: RealtimeAPI) -> int:
    """The number of replicas that an autoscaled API starts with."""
    scaling = api.spec.autoscaling
    if scaling is None:
        return fixed_replicas(api) or 0
    return scaling.min_replicas if scaling.init_replicas is None else scaling.init_replicas


def _strategy(api: RealtimeAPI) -> dict[str, Any]:
    update = api.spec.update_strategy
    if str(update.max_surge) in ("0", "0%") and str(update.max_unavailable) == "100%":
        return {"type": "Recreate"}
    return {
        "type": "RollingUpdate",
        "rollingUpdate": {"maxSurge": update.max_surge, "maxUnavailable": update.max_unavailable},
    }


def _template(
    api: RealtimeAPI, platform: Platform, config: dict[str, Any], code: dict[str, Any] | None
) -> dict[str, Any]:
    annotations = {"cortex.dev/config-hash": digest(config["data"])}
    if code is not None:
        annotations["cortex.dev/code-hash"] = digest([code.get("data"), code.get("binaryData")])
    pod = {
        "metadata": {"labels": labels(api), "annotations": annotations},
        "spec": _pod(api, platform, code),
    }
    return _overlaid(pod, api.spec.pod)


def _overlaid(pod: dict[str, Any], overlay: dict[str, Any]) -> dict[str, Any]:
    """The overlay is a pod template (metadata, spec), or a pod's spec with labels and annotations beside its fields."""
    if not overlay:
        return pod
    if "spec" in overlay or "metadata" in overlay:
        return merge(pod, overlay)
    metadata = {key: overlay[key] for key in ("labels", "annotations") if key in overlay}
    spec = {key: value for key, value in overlay.items() if key not in metadata}
    return merge(pod, {"metadata": metadata, "spec": spec})


def _pod(api: RealtimeAPI, platform: Platform, code: dict[str, Any] | None) -> dict[str, Any]:
    compute, handler = api.spec.compute, api.spec.handler
    tolerations = [t.model_dump(by_alias=True, exclude_none=True) for t in compute.tolerations]
    if compute.gpu:
        tolerations.append({"key": compute.gpu_resource, "operator": "Exists", "effect": "NoSchedule"})
    if compute.inf:
        tolerations.append({"key": "aws.amazon.com/neuron", "operator": "Exists", "effect": "NoSchedule"})
    pod: dict[str, Any] = {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": PRE_STOP + math.ceil(seconds(handler.request_timeout)) + 5,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [_container(api, platform, code)],
        "volumes": _volumes(api, code),
    }
    if compute.node_selector:
        pod["nodeSelector"] = compute.node_selector
    if tolerations:
        pod["tolerations"] = tolerations
    if platform.image_pull_secrets:
        pod["imagePullSecrets"] = [{"name": name} for name in platform.image_pull_secrets]
    return pod


def _container(api: RealtimeAPI, platform: Platform, code: dict[str, Any] | None) -> dict[str, Any]:
    handler = api.spec.handler
    mounts = [
        {"name": "config", "mountPath": "/etc/cortex", "readOnly": True},
        {"name": "models", "mountPath": "/mnt/models"},
        {"name": "tmp", "mountPath": "/tmp"},
    ]
    if code is not None:
        mounts.append({"name": "code", "mountPath": "/mnt/project", "readOnly": True})
    if handler.shm_size is not None:
        mounts.append({"name": "shm", "mountPath": "/dev/shm"})
    container: dict[str, Any] = {
        "name": "api",
        "image": handler.image or platform.runtime_image,
        "imagePullPolicy": platform.image_pull_policy,
        "command": ["python", "-m", "cortex_runtime", "serve"],
        "args": [
            *("--config", "/etc/cortex/api.json"),
            *("--project", "/mnt/project"),
            *("--models", "/mnt/models"),
            *("--termination-log", "/dev/termination-log"),
        ],
        "ports": [{"name": "http", "containerPort": PORT}, {"name": "admin", "containerPort": ADMIN_PORT}],
        "resources": _resources(api),
        "volumeMounts": mounts,
        "startupProbe": {**_probe("/readyz"), "periodSeconds": 1, "failureThreshold": 1800},
        "readinessProbe": {**_probe("/readyz"), "periodSeconds": 2, "failureThreshold": 1},
        "livenessProbe": {**_probe("/healthz"), "periodSeconds": 10, "failureThreshold": 3},
        "lifecycle": {"preStop": {"sleep": {"seconds": PRE_STOP}}},
        "terminationMessagePath": "/dev/termination-log",
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
    }
    if handler.env:
        container["env"] = [variable.model_dump(by_alias=True, exclude_none=True) for variable in handler.env]
    if handler.env_from:
        container["envFrom"] = handler.env_from
    return container


def _probe(path: str) -> dict[str, Any]:
    return {"httpGet": {"path": path, "port": "admin"}, "timeoutSeconds": 2}


def _resources(api: RealtimeAPI) -> dict[str, Any]:
    """Memory and devices are bounded by what is asked for; processor time is not, so that idle CPUs serve."""
    compute = api.spec.compute
    devices = {}
    if compute.gpu:
        devices[compute.gpu_resource] = str(compute.gpu)
    if compute.inf:
        devices["aws.amazon.com/neuron"] = str(compute.inf)
    memory = {"memory": compute.mem} if compute.mem is not None else {}
    cpu = {"cpu": compute.cpu} if compute.cpu is not None else {}
    resources = {"requests": {**cpu, **memory, **devices}}
    if memory or devices:
        resources["limits"] = {**memory, **devices}
    return resources


def _volumes(api: RealtimeAPI, code: dict[str, Any] | None) -> list[dict[str, Any]]:
    volumes: list[dict[str, Any]] = [
        {"name": "config", "configMap": {"name": child_name(api)}},
        {"name": "models", "emptyDir": {}},
        {"name": "tmp", "emptyDir": {}},
    ]
    if code is not None:
        volume: dict[str, Any] = {"name": code["metadata"]["name"]}
        if items := code_items(api):
            volume["items"] = items
        volumes.append({"name": "code", "configMap": volume})
    if api.spec.handler.shm_size is not None:
        volumes.append(
            {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": api.spec.handler.shm_size}}
        )
    return volumes
