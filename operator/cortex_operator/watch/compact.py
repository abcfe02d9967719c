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


def compact_api(live: Object, known: Object | None = None) -> Object:
    """Return a resource without its field managers. known: its cached version."""
    return _compact(live, (), known)


def compact_child(child: Object, known: Object | None = None) -> Object:
    """Return an object of an API: with the field managers that `drift.changes` reads, a pod with the parts of its spec that
    `status.failures` reads. known: its cached version."""
    if child["kind"] == "Pod":
        spec = {"spec": _pod_spec(child["spec"])} if "spec" in child else {}
        return _compact({**child, **spec}, (), None)
    return _compact(child, _managers(child["metadata"].get("managedFields", ())), known)


def compact_source(config_map: Object) -> Object:
    """Return a ConfigMap with code without its field managers."""
    return compact_api(config_map)


def _compact(thing: Object, managers: Iterable[Object], known: Object | None) -> Object:
    small = {**thing, "metadata": _metadata(thing["metadata"], managers)}
    if known is not None and _has_same_spec(thing, known):
        # Most events report only another status.
        del small["spec"]
        return {**_interned(small), "spec": known["spec"]}
    return _interned(small)


def _has_same_spec(thing: Object, known: Object) -> bool:
    before, after = known["metadata"], thing["metadata"]
    return (
        "spec" in thing
        and "generation" in after
        and (before.get("uid"), before.get("generation")) == (after.get("uid"), after["generation"])
    )


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
