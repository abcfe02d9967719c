"""Names, labels and owner references of everything that belongs to an API."""

import hashlib
import json
from typing import Any

from cortex_api.contract import (
    API,
    API_LABEL,
    APPLIED_HASH_ANNOTATION,
    COMPONENT_LABEL,
    GATEWAY,
    KIND_LABEL,
    OPERATOR_ANNOTATION,
    PORT,
    WORKER,
    object_name,
)
from cortex_api.kinds import API_VERSION, AsyncAPI, RealtimeAPI


def child_name(api: RealtimeAPI | AsyncAPI, component: str = API) -> str:
    """Name of the API's Deployment, Service and the rest."""
    return object_name(api.metadata.name, component)


def main_component(api: RealtimeAPI | AsyncAPI) -> str:
    """The component that runs the user's code, which `replicas` and `autoscaling` are about."""
    return API if isinstance(api, RealtimeAPI) else WORKER


def front_component(api: RealtimeAPI | AsyncAPI) -> str:
    """The component that requests go to."""
    return API if isinstance(api, RealtimeAPI) else GATEWAY


def selector(api: RealtimeAPI | AsyncAPI, component: str) -> dict[str, str]:
    """The labels that tell one component's pods from all others."""
    return {API_LABEL: api.metadata.name, KIND_LABEL: api.kind, COMPONENT_LABEL: component}


def labels(api: RealtimeAPI | AsyncAPI) -> dict[str, str]:
    """The labels of everything that belongs to an API."""
    return {
        API_LABEL: api.metadata.name,
        KIND_LABEL: api.kind,
        "app.kubernetes.io/name": api.metadata.name,
        "app.kubernetes.io/managed-by": "cortex",
    }


def url(api: RealtimeAPI | AsyncAPI) -> str:
    """Where the API is reached inside the cluster."""
    return f"http://{child_name(api)}.{api.metadata.namespace}.svc:{PORT}"


def digest(value: Any) -> str:
    """A short fingerprint of a JSON value: 16 hexadecimal digits of SHA-256."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def finish(api: RealtimeAPI | AsyncAPI, child: dict[str, Any], operator: str | None = None) -> dict[str, Any]:
    """A child with namespace, labels, owner, the mark of its operator, and the fingerprint of all that is applied."""
    metadata = child["metadata"]
    metadata["namespace"] = api.metadata.namespace
    metadata["labels"] = {**metadata.get("labels", {}), **labels(api)}
    metadata["ownerReferences"] = [
        {
            "apiVersion": API_VERSION,
            "kind": api.kind,
            "name": api.metadata.name,
            "uid": api.metadata.uid,
            "controller": True,
            "blockOwnerDeletion": False,
        }
    ]
    if operator is not None:
        metadata["annotations"] = {**metadata.get("annotations", {}), OPERATOR_ANNOTATION: operator}
    metadata["annotations"] = {**metadata.get("annotations", {}), APPLIED_HASH_ANNOTATION: digest(child)}
    return child
