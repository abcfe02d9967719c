"""The NetworkPolicy of an API: peers that may send requests, and peers that may reach the admin port."""

from typing import Any

from cortex_api import AsyncAPI, RealtimeAPI
from cortex_api.contract import ADMIN_PORT, API, GRPC_PORT, PORT, PREFIX
from cortex_operator.platform import Platform
from cortex_operator.render.names import child_name, labels, selector

Object = dict[str, Any]


def render(api: RealtimeAPI | AsyncAPI, platform: Platform) -> Object | None:
    """Return the NetworkPolicy; None where the platform has none."""
    policy = platform.network_policy
    if policy is None:
        return None
    ports = [PORT, GRPC_PORT] if api.spec.handler.serves_grpc else [PORT]
    requests: Object = {"ports": [{"port": port, "protocol": "TCP"} for port in ports]}
    if policy.allow_from:
        requests["from"] = [*policy.allow_from, *_stable_replicas(api)]
    admin = {"ports": [{"port": ADMIN_PORT, "protocol": "TCP"}], "from": list(policy.admin_from)}
    kept = {key: value for key, value in labels(api).items() if key.startswith(PREFIX)}
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": child_name(api)},
        "spec": {
            "podSelector": {"matchLabels": kept},
            "policyTypes": ["Ingress"],
            "ingress": [requests, *([admin] if policy.admin_from else [])],
        },
    }


def _stable_replicas(api: RealtimeAPI | AsyncAPI) -> list[Object]:
    """Return the peers that send requests to a candidate: the stable replicas of the same API."""
    if not isinstance(api, RealtimeAPI) or api.spec.candidate is None:
        return []
    return [{"podSelector": {"matchLabels": selector(api, API)}}]
