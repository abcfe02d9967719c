"""Make objects small before they are cached: thousands of APIs fit into the memory of one small pod.

Nothing that the operator reads is removed. Equal strings are stored once, such as the code in the spec of an API and in its
ConfigMap.
"""

import sys
from collections.abc import Iterable, Iterator
from typing import Any

from cortex_operator.apply.drift import is_foreign, owns_replicas

Object = dict[str, Any]

LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
"""The annotation in which `kubectl apply` stores the whole object once more."""


def compact_api(live: Object) -> Object:
    """Return a resource without its field managers."""
    return _interned({**live, "metadata": _metadata(live["metadata"], ())})


def compact_child(child: Object) -> Object:
    """Return an object of an API: with the field managers that `drift.changes` reads, a pod with the parts of its spec that
    `status.failures` reads."""
    managers = child["metadata"].get("managedFields", ())
    if child["kind"] != "Pod":
        return _interned({**child, "metadata": _metadata(child["metadata"], _managers(managers))})
    small = {**child, "metadata": _metadata(child["metadata"], ())}
    if "spec" in child:
        small["spec"] = _pod_spec(child["spec"])
    return _interned(small)


def compact_source(config_map: Object) -> Object:
    """Return a ConfigMap with code without its field managers."""
    return compact_api(config_map)


def _metadata(metadata: Object, managers: Iterable[Object]) -> Object:
    small = {name: value for name, value in metadata.items() if name != "managedFields"}
    if kept := list(managers):
        small["managedFields"] = kept
    if LAST_APPLIED in small.get("annotations", ()):
        small["annotations"] = {k: v for k, v in small["annotations"].items() if k != LAST_APPLIED}
    return small


def _managers(managers: Iterable[Object]) -> Iterator[Object]:
    for entry in managers:
        if is_foreign(entry):
            yield entry
        elif owns_replicas(entry):
            yield {**entry, "fieldsV1": {"f:spec": {"f:replicas": {}}}}


def _pod_spec(spec: Object) -> Object:
    small: Object = {"nodeName": spec["nodeName"]} if "nodeName" in spec else {}
    for containers in ("initContainers", "containers"):
        if containers in spec:
            small[containers] = [
                {name: container[name] for name in ("name", "resources") if name in container}
                for container in spec[containers]
            ]
    return small


def _interned(value: Any) -> Any:
    """Return a copy in which equal strings are one object."""
    if isinstance(value, str):
        return sys.intern(value)
    if isinstance(value, dict):
        return {sys.intern(name): _interned(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_interned(item) for item in value]
    return value
