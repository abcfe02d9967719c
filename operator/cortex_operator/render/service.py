"""The Service of an API."""

from typing import Any

from cortex_api import AsyncAPI, RealtimeAPI
from cortex_api.contract import PORT
from cortex_operator.render.names import child_name, front_component, selector


def render(api: RealtimeAPI | AsyncAPI) -> dict[str, Any]:
    """Return the Service of the pods that receive requests."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": child_name(api)},
        "spec": {
            "type": "ClusterIP",
            "selector": selector(api, front_component(api)),
            "ports": [{"name": "http", "port": PORT, "targetPort": "http", "protocol": "TCP"}],
        },
    }
