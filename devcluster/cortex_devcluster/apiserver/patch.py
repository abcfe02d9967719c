"""JSON merge patch and strategic merge patch: pure functions of JSON values."""

from __future__ import annotations

import copy
from typing import Any

MERGE_KEYS = {
    "containers": "name", "initContainers": "name", "ephemeralContainers": "name", "env": "name",
    "volumes": "name", "volumeMounts": "mountPath", "imagePullSecrets": "name", "conditions": "type",
    "hostAliases": "ip", "ownerReferences": "uid", "topologySpreadConstraints": "topologyKey",
    "secrets": "name", "taints": "key", "addresses": "type",
}  # fmt: skip
"""patchMergeKey of the lists of built-in kinds by field name. That of `ports` depends on its parent (`merge_key`)."""

SETS = {"finalizers"}


class PatchError(ValueError):
    """The patch cannot be applied to the object."""


def merge(target: Any, patch: Any) -> Any:
    """Apply a JSON merge patch (RFC 7396)."""
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merge(result.get(key), value)
    return result


def merge_key(field: str, items: list[Any]) -> str | None:
    """Return the key of the items of a list in a built-in kind, or None if the list is replaced as a whole."""
    if field == "ports":
        return "containerPort" if any("containerPort" in item for item in items) else "port"
    return MERGE_KEYS.get(field)


def strategic(target: Any, patch: Any, field: str = "") -> Any:
    """Apply a strategic merge patch with `$patch`, `$setElementOrder`, `$deleteFromPrimitiveList` and `$retainKeys`.

    Raises PatchError.
    """
    if isinstance(patch, list):
        return _strategic_list(target if isinstance(target, list) else [], patch, field)
    if not isinstance(patch, dict):
        return patch
    if patch.get("$patch") == "replace":
        return {key: value for key, value in patch.items() if key != "$patch"}
    result = dict(target) if isinstance(target, dict) else {}
    if "$retainKeys" in patch:
        result = {key: value for key, value in result.items() if key in patch["$retainKeys"]}
    if patch.get("$patch") == "delete":
        return {}
    orders = {
        key.split("/", 1)[1]: value for key, value in patch.items() if key.startswith("$setElementOrder/")
    }
    for key, value in patch.items():
        if key.startswith("$deleteFromPrimitiveList/"):
            name = key.split("/", 1)[1]
            result[name] = [item for item in result.get(name, []) if item not in value]
        elif key.startswith("$"):
            continue
        elif value is None:
            result.pop(key, None)
        else:
            result[key] = strategic(result.get(key), value, key)
    for name, order in orders.items():
        if isinstance(result.get(name), list):
            result[name] = _ordered(result[name], order, name)
    return result


def _strategic_list(target: list[Any], patch: list[Any], field: str) -> list[Any]:
    if any(isinstance(item, dict) and item.get("$patch") == "replace" for item in patch):
        return [item for item in patch if not (isinstance(item, dict) and item.get("$patch") == "replace")]
    if field in SETS:
        return target + [item for item in patch if item not in target]
    key = merge_key(field, [item for item in [*patch, *target] if isinstance(item, dict)])
    if key is None:
        return copy.deepcopy(patch)
    result = list(target)
    for item in patch:
        if not isinstance(item, dict) or key not in item:
            raise PatchError(f"{field}: map does not contain declared merge key: {key}")
        at = next((index for index, old in enumerate(result) if old.get(key) == item[key]), None)
        if item.get("$patch") == "delete":
            if at is not None:
                del result[at]
        elif at is None:
            result.append(strategic({}, item))
        else:
            result[at] = strategic(result[at], item)
    return result


def _ordered(items: list[Any], order: list[Any], field: str) -> list[Any]:
    """Return the items in an order; items that it does not name come last."""
    if field in SETS or not all(isinstance(item, dict) for item in items):
        rank = {repr(value): index for index, value in enumerate(order)}
        return sorted(items, key=lambda item: rank.get(repr(item), len(order)))
    key = merge_key(field, items)
    if key is None:
        return items
    rank = {repr(entry.get(key)): index for index, entry in enumerate(order)}
    return sorted(items, key=lambda item: rank.get(repr(item.get(key)), len(order)))
