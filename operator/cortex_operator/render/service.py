"""The Service of an API."""

from typing import Any

from cortex_api import RealtimeAPI
from cortex_operator.render.names import PORT, child_name, selector


def render(api: RealtimeAPI) -> dict[str, Any]:
    """A Service in front of the API's ready pods."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": child_name(api)},
        "spec": {
            "type": "ClusterIP",
            "selector": selector(api),
            "ports": [{"name": "http", "port": PORT, "targetPort": "http", "protocol": "TCP"}],
        },
    }
