"""The pod that removes the queue of an AsyncAPI which is being deleted with `queue.deletionPolicy: Delete`.

It is a pod and no call to the gateway, so that nobody who reaches a gateway can remove what waits there.
"""

from typing import Any

from cortex_api import AsyncAPI
from cortex_operator.platform import Platform
from cortex_operator.render import configmap, pod
from cortex_operator.render.names import COMPONENT_LABEL, DESTROY, GATEWAY, child_name

Object = dict[str, Any]

_OF_SERVERS = ("ports", "lifecycle", "startupProbe", "readinessProbe", "livenessProbe")


def render(api: AsyncAPI, platform: Platform) -> Object:
    """The pod; it is started again until it succeeds. It serves nobody, so it needs no API keys, which may be gone already."""
    handler = api.spec.handler.model_copy(update={"api_keys": None})
    api = api.model_copy(update={"spec": api.spec.model_copy(update={"handler": handler})})
    template = pod.template(api, platform, GATEWAY, configmap.config(api), None)
    (container,) = template["spec"]["containers"]
    kept = {key: value for key, value in container.items() if key not in _OF_SERVERS}
    kept |= {"name": DESTROY, "command": ["python", "-m", "cortex_runtime", "destroy"]}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": child_name(api, DESTROY),
            "labels": {**template["metadata"]["labels"], COMPONENT_LABEL: DESTROY},
        },
        "spec": {
            **{key: value for key, value in template["spec"].items() if key != "topologySpreadConstraints"},
            "containers": [kept],
            "restartPolicy": "OnFailure",
        },
    }
