"""The manifest of a development copy. Pure functions."""

import copy
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from cortex_api.contract import (
    DEVELOPMENT_EXPIRES_ANNOTATION,
    DEVELOPMENT_HOLDER_ANNOTATION,
    DEVELOPMENT_LABEL,
    DEVELOPMENT_SUFFIX,
)

Object = dict[str, Any]
_REMOVED = ("autoscaling", "paused", "updateStrategy", "candidate", "webhook")
_NOTED = {
    "candidate": "the copy has no candidate",
    "webhook": "the copy calls no webhook, so that the receiver gets no results of it",
}


def copy_name(name: str) -> str:
    """Return the name of the development copy of an API."""
    return name + DEVELOPMENT_SUFFIX


def development_copy(manifest: Object, name: str, holder: str, expires: datetime) -> Object:
    """Return the manifest of the development copy of an API.

    It has one replica, its own endpoint and queue, and no code: that is sent to the pod. Labels and annotations are not copied,
    because they may make other tools, such as Argo CD, adopt or delete the copy.
    """
    spec = {field: value for field, value in copy.deepcopy(manifest["spec"]).items() if field not in _REMOVED}
    spec["replicas"] = 1
    spec["handler"].pop("source", None)
    if isinstance(spec.get("networking"), dict):
        spec["networking"].pop("endpoint", None)
    if manifest["kind"] == "AsyncAPI":
        queue = {field: value for field, value in (spec.get("queue") or {}).items() if field != "name"}
        spec["queue"] = queue | {"deletionPolicy": "Delete"}
        spec["gateway"] = (spec.get("gateway") or {}) | {"minReplicas": 1, "maxReplicas": 1}
    metadata = {
        "name": name,
        "labels": {DEVELOPMENT_LABEL: manifest["metadata"]["name"]},
        "annotations": annotations(holder, expires),
    }
    return {
        "apiVersion": manifest["apiVersion"],
        "kind": manifest["kind"],
        "metadata": metadata,
        "spec": spec,
    }


def annotations(holder: str, expires: datetime) -> dict[str, str]:
    """Return the annotations that are renewed."""
    return {
        DEVELOPMENT_EXPIRES_ANNOTATION: expires.isoformat(timespec="seconds"),
        DEVELOPMENT_HOLDER_ANNOTATION: holder,
    }


def notes(manifest: Object) -> Iterator[str]:
    """Yield what a development copy does differently, as far as it may surprise."""
    for field, text in _NOTED.items():
        if manifest["spec"].get(field):
            yield text
