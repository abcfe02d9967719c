"""Merge `spec.pod` into the rendered pod, as a strategic merge patch."""

from typing import Any

KEYS = {
    "containers": "name",
    "initContainers": "name",
    "env": "name",
    "volumes": "name",
    "volumeMounts": "mountPath",
    "imagePullSecrets": "name",
    "topologySpreadConstraints": "topologyKey",
    "hostAliases": "ip",
}
"""Lists that are merged by a key (patchMergeKey in the Kubernetes API); other lists are replaced."""

_APPENDED = {"tolerations"}
_REPLACED = {"volumes"}
"""Lists whose items are replaced, not merged: a volume has a single source."""


def merge(base: Any, patch: Any, field: str = "") -> Any:
    """Return `base` merged with `patch`; null removes a field. Neither argument is modified."""
    if isinstance(base, dict) and isinstance(patch, dict):
        merged = dict(base)
        for name, value in patch.items():
            if value is None:
                merged.pop(name, None)
            else:
                merged[name] = merge(merged.get(name), value, name)
        return merged
    if isinstance(base, list) and isinstance(patch, list):
        if field in _APPENDED:
            return base + [item for item in patch if item not in base]
        if key := KEYS.get(field):
            return _merge_by(key, base, patch, whole=field in _REPLACED)
    return patch


def _merge_by(key: str, base: list[Any], patch: list[Any], whole: bool) -> list[Any]:
    merged = {item[key]: item for item in base}
    for item in patch:
        merged[item.get(key)] = item if whole else merge(merged.get(item.get(key)), item)
    return list(merged.values())
