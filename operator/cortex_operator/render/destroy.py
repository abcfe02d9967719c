"""The pod that removes the queue of an AsyncAPI which is being deleted with `queue.deletionPolicy: Delete`.

It is a pod and no call to the gateway, so that nobody who reaches a gateway can remove what waits there.
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
    """The pod in the API's namespace, with the credentials that the API's own pods have; `queue` is the queue's full name.

    It is started again until it succeeds. It serves nobody, so it needs no Secrets but the queue's: others may be gone already.
    """
    spec = api.spec
    handler = spec.handler.model_copy(update={"api_keys": None})
    webhook = spec.webhook.model_copy(update={"secret": None}) if spec.webhook is not None else None
    api = api.model_copy(update={"spec": spec.model_copy(update={"handler": handler, "webhook": webhook})})
    template = pod.template(api, platform, GATEWAY, configmap.config(api), None)
    # Containers of the overlay would keep the pod from its end.
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
    """The pod in the operator's namespace, for an API (of this UID) whose namespace takes no pods any more.

    Nothing of the API's spec is in it: whoever may write APIs must not choose what runs beside the operator. Credentials are
    those of the Secret of the queue's name in the operator's namespace, and of one for the API's namespace, NAME.NAMESPACE.
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
            # Without the label by which an API's own pods are watched.
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
