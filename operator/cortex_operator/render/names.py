"""Names, labels and owner references of the objects of an API."""

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
    """Return the name of the Deployment, Service and other objects of a component."""
    return object_name(api.metadata.name, component)


def main_component(api: RealtimeAPI | AsyncAPI) -> str:
    """Return the component that runs the handler, which `replicas` and `autoscaling` apply to."""
    return API if isinstance(api, RealtimeAPI) else WORKER


def front_component(api: RealtimeAPI | AsyncAPI) -> str:
    """Return the component that receives requests."""
    return API if isinstance(api, RealtimeAPI) else GATEWAY


def selector(api: RealtimeAPI | AsyncAPI, component: str) -> dict[str, str]:
    """Return the labels that select the pods of one component."""
    return {API_LABEL: api.metadata.name, KIND_LABEL: api.kind, COMPONENT_LABEL: component}


def labels(api: RealtimeAPI | AsyncAPI) -> dict[str, str]:
    """Return the labels of every object of an API."""
    return {
        API_LABEL: api.metadata.name,
        KIND_LABEL: api.kind,
        "app.kubernetes.io/name": api.metadata.name,
        "app.kubernetes.io/managed-by": "cortex",
    }


def url(api: RealtimeAPI | AsyncAPI) -> str:
    """Return the URL of an API inside the cluster."""
    return f"http://{child_name(api)}.{api.metadata.namespace}.svc:{PORT}"


def digest(value: Any) -> str:
    """Return a short hash of a JSON value: 16 hexadecimal digits of SHA-256."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def finish(api: RealtimeAPI | AsyncAPI, child: dict[str, Any], operator: str | None = None) -> dict[str, Any]:
    """Add namespace, labels, owner reference, the annotation of the operator, and the hash of everything that is applied."""
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
