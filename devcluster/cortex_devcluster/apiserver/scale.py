"""The scale subresource: an object as autoscaling/v1 Scale, and a Scale written to an object."""

from __future__ import annotations

import copy

from cortex_devcluster.apiserver.resources import Resource
from cortex_devcluster.objects import Object, nested


def scale_from_object(obj: Object, resource: Resource) -> Object:
    paths = resource.scale or {}
    names = ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")
    selector = nested(obj, paths["labelSelectorPath"]) if "labelSelectorPath" in paths else _selector(obj)
    return {
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": {name: obj["metadata"][name] for name in names if name in obj["metadata"]},
        "spec": {"replicas": nested(obj, paths["specReplicasPath"]) or 0},
        "status": {
            "replicas": nested(obj, paths["statusReplicasPath"]) or 0,
            **({"selector": selector} if selector else {}),
        },
    }


def _selector(obj: Object) -> str:
    labels = nested(obj, "spec.selector.matchLabels") or {}
    return ",".join(f"{key}={value}" for key, value in sorted(labels.items()))


def object_with_scale(obj: Object, scale: Object, resource: Resource) -> Object:
    """Return the object with the replicas of a Scale, and with its resourceVersion if it has one."""
    new = copy.deepcopy(obj)
    path = (resource.scale or {})["specReplicasPath"].strip(".").split(".")
    holder = new
    for name in path[:-1]:
        holder = holder.setdefault(name, {})
    holder[path[-1]] = nested(scale, "spec.replicas") or 0
    version = nested(scale, "metadata.resourceVersion")
    new["metadata"]["resourceVersion"] = version or obj["metadata"]["resourceVersion"]
    return new
