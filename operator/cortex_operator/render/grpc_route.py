"""The route to the gRPC port of an API from outside of the cluster.

The path of a gRPC request is the name of its method, so an endpoint cannot be part of it: each API has a host name of its own.
"""

from typing import Any

from cortex_api import AsyncAPI, RealtimeAPI
from cortex_api.contract import GRPC_PORT
from cortex_operator.platform import Platform
from cortex_operator.render.names import child_name
from cortex_operator.render.route import parent_ref

Object = dict[str, Any]


def render(api: RealtimeAPI | AsyncAPI, platform: Platform) -> Object | None:
    """Return the GRPCRoute; None without gRPC, or where the Gateway has no host names for it."""
    gateway = platform.gateway
    if gateway is None or gateway.grpc_hostname is None or not api.spec.handler.serves_grpc:
        return None
    hostname = gateway.grpc_hostname.replace("{name}", api.metadata.name)
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "GRPCRoute",
        "metadata": {"name": child_name(api)},
        "spec": {
            "parentRefs": [parent_ref(gateway, gateway.grpc_section_name or gateway.section_name)],
            "hostnames": [hostname.replace("{namespace}", api.metadata.namespace)],
            "rules": [{"backendRefs": [{"kind": "Service", "name": child_name(api), "port": GRPC_PORT}]}],
        },
    }
