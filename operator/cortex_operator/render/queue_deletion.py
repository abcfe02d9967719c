"""The pod that deletes the queue of an AsyncAPI with `queue.deletionPolicy: Delete`.

It is a pod and not a call to the gateway, so that clients of a gateway cannot delete its queue.
"""

from typing import Any

from cortex_api import AsyncAPI, contract
from cortex_api.contract import APPLIED_HASH_ANNOTATION, COMPONENT_LABEL, DESTROY, GATEWAY, KIND_LABEL
from cortex_operator.platform import Platform
from cortex_operator.render import configmap, pod
from cortex_operator.render.names import child_name, digest, finish

Object = dict[str, Any]

_OF_SERVERS = ("ports", "lifecycle", "startupProbe", "readinessProbe", "livenessProbe")
_RESOURCES = {"requests": {"cpu": "50m", "memory": "128Mi"}, "limits": {"memory": "256Mi"}}


def in_namespace_of(api: AsyncAPI, platform: Platform, queue: str) -> Object:
    """Return the pod in the namespace of the API, with the credentials of the API's pods. queue: the full name of the queue.

    It restarts until it succeeds. It needs only the Secret of the queue: others may be deleted already.
    """
    spec = api.spec
    handler = spec.handler.model_copy(update={"api_keys": None})
    webhook = spec.webhook.model_copy(update={"secret": None}) if spec.webhook is not None else None
    api = api.model_copy(update={"spec": spec.model_copy(update={"handler": handler, "webhook": webhook})})
    template = pod.template(api, platform, GATEWAY, configmap.config(api, platform), None)
    # Containers that spec.pod adds might never exit.
    container = next(c for c in template["spec"]["containers"] if c["name"] == GATEWAY)
    kept = {key: value for key, value in container.items() if key not in _OF_SERVERS}
    kept["volumeMounts"] = [mount for mount in container["volumeMounts"] if mount["name"] != "config"]
    volumes = [volume for volume in template["spec"]["volumes"] if volume["name"] != "config"]
    made = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": child_name(api, DESTROY),
            "labels": {**template["metadata"]["labels"], COMPONENT_LABEL: DESTROY},
        },
        "spec": {
            **{key: value for key, value in template["spec"].items() if key != "topologySpreadConstraints"},
            "containers": [{**kept, "name": DESTROY, **_command(queue)}],
            "volumes": volumes,
            "restartPolicy": "OnFailure",
        },
    }
    return finish(api, made)


def in_own_namespace(uid: str, namespace: str, platform: Platform, queue: str) -> Object:
    """Return the pod in the namespace of the operator, for an API (with this UID) whose namespace is terminating.

    It has nothing of the API's spec: users who may write APIs must not control pods next to the operator. The credentials are
    those of the Secret of the queue, NAME, in the namespace of the operator, and of a Secret for the API's namespace,
    NAME.NAMESPACE.
    """
    assert platform.queue is not None
    container: Object = {
        "name": DESTROY,
        "image": platform.runtime_image,
        "imagePullPolicy": platform.image_pull_policy,
        **_command(queue),
        "resources": _RESOURCES,
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
        "terminationMessagePath": contract.TERMINATION_LOG,
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "securityContext": pod.CONTAINER_SECURITY,
    }
    if platform.queue.url:
        container["env"] = [{"name": contract.QUEUE_URL_VARIABLE, "value": platform.queue.url}]
    if secret := platform.queue.secret_name:
        names = (secret, f"{secret}.{namespace}")
        container["envFrom"] = [{"secretRef": {"name": name, "optional": True}} for name in names]
    made: Object = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": f"cortex-remove-queue-{uid}",
            "namespace": platform.own_namespace,
            # Without the label that selects the watched pods of APIs.
            "labels": {
                KIND_LABEL: "AsyncAPI",
                COMPONENT_LABEL: DESTROY,
                "app.kubernetes.io/managed-by": "cortex",
            },
        },
        "spec": {
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "securityContext": pod.POD_SECURITY,
            "containers": [container],
            "volumes": [{"name": "tmp", "emptyDir": {}}],
            "restartPolicy": "OnFailure",
            **pod.pull_secrets(platform),
        },
    }
    made["metadata"]["annotations"] = {APPLIED_HASH_ANNOTATION: digest(made)}
    return made


def _command(queue: str) -> Object:
    return {
        "command": ["python", "-m", "cortex_runtime", contract.DESTROY_COMMAND],
        "args": ["--queue", queue, "--termination-log", contract.TERMINATION_LOG],
    }
