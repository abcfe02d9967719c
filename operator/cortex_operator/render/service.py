"""The Service of an API."""

from typing import Any

from cortex_api import AsyncAPI, RealtimeAPI
from cortex_api.contract import GRPC_PORT, PORT
from cortex_operator.render.names import child_name, front_component, selector


def render(api: RealtimeAPI | AsyncAPI) -> dict[str, Any]:
    """Return the Service of the pods that receive requests from clients."""
    return of_component(api, child_name(api), front_component(api))


def of_component(api: RealtimeAPI | AsyncAPI, name: str, component: str) -> dict[str, Any]:
    """Return the Service of the pods of one component."""
    ports: list[dict[str, Any]] = [{"name": "http", "port": PORT, "targetPort": "http", "protocol": "TCP"}]
    if api.spec.handler.serves_grpc:
        grpc = {"name": "grpc", "port": GRPC_PORT, "targetPort": "grpc", "protocol": "TCP"}
        # For proxies: the port uses HTTP/2 without TLS.
        ports.append({**grpc, "appProtocol": "kubernetes.io/h2c"})
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name},
        "spec": {
            "type": "ClusterIP",
            "selector": selector(api, component),
            "ports": ports,
        },
    }
