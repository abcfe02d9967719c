"""The pod templates of an API, one for each component, conforming to Pod Security "restricted"."""

from typing import Any

from cortex_api import AsyncAPI, RealtimeAPI, contract, development
from cortex_api.contract import (
    ADMIN_PORT,
    API,
    CANDIDATE,
    COMPONENT_LABEL,
    GATEWAY,
    GRPC_PORT,
    PORT,
    TEMPLATE_LABEL,
    WORKER,
)
from cortex_api.deployment import Compute
from cortex_operator.platform import Platform
from cortex_operator.render import compute, drain, tensorflow
from cortex_operator.render.configmap import code_items, is_packed
from cortex_operator.render.names import digest, labels, selector
from cortex_operator.render.overlay import merge

Object = dict[str, Any]

KEYS = "api-keys"
"""The volume with the keys that clients must present."""
SPLIT = "split"
"""The volume with the split between a stable version and its candidate."""
USER = 10001
"""The user of the images."""
CONTAINER_SECURITY = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}
POD_SECURITY = {
    "runAsNonRoot": True,
    "runAsUser": USER,
    "runAsGroup": USER,
    "fsGroup": USER,
    "fsGroupChangePolicy": "OnRootMismatch",
    "seccompProfile": {"type": "RuntimeDefault"},
}


def template(
    api: RealtimeAPI | AsyncAPI, platform: Platform, component: str, config: Object, code: Object | None
) -> Object:
    """Return the pod template of a component.

    config, code: the ConfigMaps that the pods read; their names change with their content, which replaces the pods. The gateway
    has no code, because it does not run the handler.
    """
    code = None if component == GATEWAY or _is_development(api) else code
    pod: Object = {
        "metadata": {"labels": {**labels(api), COMPONENT_LABEL: component}, **_annotations(api, component)},
        "spec": _spec(api, platform, component, config, code),
    }
    pod = _overlaid(pod, api.spec.pod)
    if component != WORKER:
        drain.fit_limit(pod, api, component)
    pod["metadata"]["labels"][TEMPLATE_LABEL] = digest(pod)
    return pod


def _annotations(api: RealtimeAPI | AsyncAPI, component: str) -> Object:
    """Return the field annotations of a pod. That of a retry replaces the pods of the candidate, which load its model again."""
    retry = api.metadata.annotations.get(contract.RETRY_ANNOTATION) if component == CANDIDATE else None
    return {} if retry is None else {"annotations": {contract.RETRY_ANNOTATION: retry}}


def _overlaid(pod: Object, overlay: Object) -> Object:
    """Merge the overlay: a pod template (metadata, spec), or a pod spec that may also have labels and annotations."""
    if not overlay:
        return pod
    if "spec" in overlay or "metadata" in overlay:
        return merge(pod, overlay)
    metadata = {key: overlay[key] for key in ("labels", "annotations") if key in overlay}
    spec = {key: value for key, value in overlay.items() if key not in metadata}
    return merge(pod, {"metadata": metadata, "spec": spec})


def _spec(
    api: RealtimeAPI | AsyncAPI, platform: Platform, component: str, config: Object, code: Object | None
) -> Object:
    compute_spec = api.spec.compute
    if isinstance(api, AsyncAPI) and component == GATEWAY:
        compute_spec = api.spec.gateway.compute
    claims = [] if component == GATEWAY else claims_of(api)
    pod: Object = {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": drain.grace(api, component),
        "securityContext": POD_SECURITY,
        "containers": [_container(api, platform, component, compute_spec, code, claims)],
        "volumes": _volumes(api, component, config, code, claims),
        "topologySpreadConstraints": [
            {
                "maxSkew": 1,
                "topologyKey": "kubernetes.io/hostname",
                "whenUnsatisfiable": "ScheduleAnyway",
                "labelSelector": {"matchLabels": selector(api, component)},
            }
        ],
    }
    if component != GATEWAY and tensorflow.has_server(api, platform):
        server = tensorflow.server(api, platform, models_mounts(claims))
        pod["initContainers"] = [{**server, "securityContext": CONTAINER_SECURITY}]
    if compute_spec.node_selector:
        pod["nodeSelector"] = compute_spec.node_selector
    if tolerations := compute.tolerations(compute_spec):
        pod["tolerations"] = tolerations
    return {**pod, **pull_secrets(platform)}


def pull_secrets(platform: Platform) -> Object:
    """Return the field imagePullSecrets of a pod; empty where the platform has none."""
    if not platform.image_pull_secrets:
        return {}
    return {"imagePullSecrets": [{"name": name} for name in platform.image_pull_secrets]}


def _container(
    api: RealtimeAPI | AsyncAPI,
    platform: Platform,
    component: str,
    compute_spec: Compute,
    code: Object | None,
    claims: list[str],
) -> Object:
    handler = api.spec.handler
    mounts = [
        {"name": "config", "mountPath": contract.CONFIG_FOLDER, "readOnly": True},
        {"name": "tmp", "mountPath": "/tmp"},
    ]
    args = ["--config", contract.DOCUMENT_PATH, "--termination-log", contract.TERMINATION_LOG]
    if _requires_keys(api, component):
        mounts.append({"name": KEYS, "mountPath": contract.API_KEYS_FOLDER, "readOnly": True})
    if component == API:
        mounts.append({"name": SPLIT, "mountPath": contract.SPLIT_DIRECTORY, "readOnly": True})
    if component != GATEWAY:
        mounts += models_mounts(claims)
        args += ["--project", contract.PROJECT_FOLDER, "--models", contract.MODELS_FOLDER]
        if _is_development(api):
            mounts.append({"name": "project", "mountPath": contract.PROJECT_FOLDER})
            args.append("--development")
        elif is_packed(code):
            mounts.append({"name": "code", "mountPath": contract.ARCHIVE_FOLDER, "readOnly": True})
            mounts.append({"name": "project", "mountPath": contract.PROJECT_FOLDER})
            args += ["--packed", contract.ARCHIVE_FOLDER]
        elif code is not None:
            mounts.append({"name": "code", "mountPath": contract.PROJECT_FOLDER, "readOnly": True})
        elif handler.source is not None and handler.source.uri is not None:
            mounts.append({"name": "project", "mountPath": contract.PROJECT_FOLDER})
        if handler.shm_size is not None:
            mounts.append({"name": "shm", "mountPath": contract.SHARED_MEMORY_FOLDER})
    container: Object = {
        "name": contract.CONTAINERS[component],
        "image": platform.runtime_image if component == GATEWAY else _image(api, platform),
        "imagePullPolicy": platform.image_pull_policy,
        "command": ["python", "-m", "cortex_runtime", contract.COMMANDS[component]],
        "args": args,
        "ports": [{"name": "admin", "containerPort": ADMIN_PORT, "protocol": "TCP"}],
        "resources": _resources(api, platform, component, compute_spec),
        "volumeMounts": mounts,
        "startupProbe": {**_probe(contract.READINESS_PATH), "periodSeconds": 1, "failureThreshold": 1800},
        # While a worker process restarts, requests wait for it; a Service without ready pods would refuse them.
        "readinessProbe": {**_probe(contract.READINESS_PATH), "periodSeconds": 2, "failureThreshold": 3},
        "livenessProbe": {**_probe(contract.HEALTH_PATH), "periodSeconds": 10, "failureThreshold": 3},
        "terminationMessagePath": contract.TERMINATION_LOG,
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "securityContext": CONTAINER_SECURITY,
    }
    if component != WORKER:
        container["ports"].insert(0, {"name": "http", "containerPort": PORT, "protocol": "TCP"})
        if handler.serves_grpc:
            container["ports"].insert(1, {"name": "grpc", "containerPort": GRPC_PORT, "protocol": "TCP"})
        container["lifecycle"] = drain.lifecycle()
    _add_environment(container, api, platform, component)
    return container


def _is_development(api: RealtimeAPI | AsyncAPI) -> bool:
    """Return whether the pods receive the project from `cortex dev`. A renewal of the expiry changes no pod."""
    return development.expires(api.metadata.name, api.metadata.annotations) is not None


def _image(api: RealtimeAPI | AsyncAPI, platform: Platform) -> str:
    """Return the image that runs the handler: that of the API or of the platform, with TensorFlow if it runs in the process."""
    handler = api.spec.handler
    if handler.image is not None:
        return handler.image
    if handler.type == "tensorflow" and not tensorflow.has_server(api, platform):
        return platform.runtime_tensorflow_image or platform.runtime_image
    return platform.runtime_image


def _add_environment(
    container: Object, api: RealtimeAPI | AsyncAPI, platform: Platform, component: str
) -> None:
    handler = api.spec.handler
    variables: list[Object] = []
    sources: list[Object] = []
    if component != GATEWAY:
        variables = [variable.model_dump(by_alias=True, exclude_none=True) for variable in handler.env]
        sources = list(handler.env_from)
        if tensorflow.has_server(api, platform):
            variables.append({"name": contract.TENSORFLOW_SERVING_VARIABLE, "value": tensorflow.ADDRESS})
    if _requires_keys(api, component):
        variables.append({"name": contract.API_KEYS_VARIABLE, "value": contract.API_KEYS_FOLDER})
    if component == API:
        split = f"{contract.SPLIT_DIRECTORY}/{contract.SPLIT_FILE}"
        variables.append({"name": contract.SPLIT_VARIABLE, "value": split})
    if isinstance(api, AsyncAPI):
        assert platform.queue is not None
        if platform.queue.url:
            variables.append({"name": contract.QUEUE_URL_VARIABLE, "value": platform.queue.url})
        if platform.queue.secret_name:
            sources.append({"secretRef": {"name": platform.queue.secret_name}})
        if component == GATEWAY:
            variables.append({"name": contract.MAX_REPLICAS_VARIABLE, "value": str(_max_workers(api))})
        if api.spec.webhook is not None and (secret := api.spec.webhook.secret):
            reference = {"secretKeyRef": {"name": secret.name, "key": secret.key}}
            variables.append({"name": contract.WEBHOOK_SECRET_VARIABLE, "valueFrom": reference})
    if variables:
        container["env"] = variables
    if sources:
        container["envFrom"] = sources


def _max_workers(api: AsyncAPI) -> int:
    """Return the largest number of workers, which bounds the length of the queue."""
    if api.spec.autoscaling is not None:
        return api.spec.autoscaling.max_replicas
    return max(1, 1 if api.spec.replicas is None else api.spec.replicas)


def _probe(path: str) -> Object:
    return {"httpGet": {"path": path, "port": "admin"}, "timeoutSeconds": 2}


def _resources(
    api: RealtimeAPI | AsyncAPI, platform: Platform, component: str, compute_spec: Compute
) -> Object:
    if component != GATEWAY and tensorflow.has_server(api, platform):
        return compute.shared(compute_spec)[0]
    return compute.whole(compute_spec)


def claims_of(api: RealtimeAPI | AsyncAPI) -> list[str]:
    """Return the PersistentVolumeClaims of the models' locations, in order."""
    models = api.spec.handler.models
    if models is None:
        return []
    locations = [models.path, models.dir, *(model.path for model in models.paths or ())]
    claims = (
        location.removeprefix("pvc://").split("/")[0]
        for location in locations
        if location and location.startswith("pvc://")
    )
    return list(dict.fromkeys(claims))


def models_mounts(claims: list[str]) -> list[Object]:
    """Return the mounts of downloaded models, and of claims, which are read-only."""
    mounts: list[Object] = [{"name": "models", "mountPath": contract.MODELS_FOLDER}]
    mounts += [
        {"name": f"claim-{i}", "mountPath": f"{contract.CLAIMS_FOLDER}/{claim}", "readOnly": True}
        for i, claim in enumerate(claims)
    ]
    return mounts


def _requires_keys(api: RealtimeAPI | AsyncAPI, component: str) -> bool:
    return api.spec.handler.api_keys is not None and component != WORKER


def _keys_secret(api: RealtimeAPI | AsyncAPI) -> Object:
    assert api.spec.handler.api_keys is not None
    secret = api.spec.handler.api_keys.secret
    # Readable by the group that fsGroup sets. Optional, because without the Secret the runtime fails to start and reports the
    # reason in the status of the API; a pod that waits for the volume would not.
    source: Object = {"secretName": secret.name, "defaultMode": 0o440, "optional": True}
    if secret.key is not None:
        source["items"] = [{"key": secret.key, "path": secret.key}]
    return source


def _volumes(
    api: RealtimeAPI | AsyncAPI, component: str, config: Object, code: Object | None, claims: list[str]
) -> list[Object]:
    volumes: list[Object] = [
        {"name": "config", "configMap": {"name": config["metadata"]["name"]}},
        {"name": "tmp", "emptyDir": {}},
    ]
    if _requires_keys(api, component):
        volumes.append({"name": KEYS, "secret": _keys_secret(api)})
    if component == API:
        # Optional, so that a candidate is added and removed without a change of the pods.
        split = {"name": contract.split_name(api.metadata.name), "optional": True}
        volumes.append({"name": SPLIT, "configMap": split})
    if component == GATEWAY:
        return volumes
    volumes.append({"name": "models", "emptyDir": {}})
    volumes += [
        {"name": f"claim-{i}", "persistentVolumeClaim": {"claimName": claim, "readOnly": True}}
        for i, claim in enumerate(claims)
    ]
    handler = api.spec.handler
    if code is not None:
        volume: Object = {"name": code["metadata"]["name"]}
        if items := code_items(api):
            volume["items"] = items
        volumes.append({"name": "code", "configMap": volume})
    has_uri = handler.source is not None and handler.source.uri is not None
    if _is_development(api) or is_packed(code) or has_uri:
        volumes.append({"name": "project", "emptyDir": {}})
    if handler.shm_size is not None:
        volumes.append({"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": str(handler.shm_size)}})
    return volumes
