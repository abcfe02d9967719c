"""JSON patch, JSON merge patch and strategic merge patch, as pure functions on JSON values."""

from __future__ import annotations

import copy
from typing import Any

MERGE_KEYS = {
    "containers": "name", "initContainers": "name", "ephemeralContainers": "name", "env": "name",
    "volumes": "name", "volumeMounts": "mountPath", "imagePullSecrets": "name", "conditions": "type",
    "hostAliases": "ip", "ownerReferences": "uid", "topologySpreadConstraints": "topologyKey",
    "secrets": "name", "taints": "key", "addresses": "type",
}  # fmt: skip
"""patchMergeKey of the core kinds' lists by field name; `ports` depends on where it stands."""

SETS = {"finalizers"}


class PatchError(ValueError):
    """The patch doesn't fit the object."""


def merge(target: Any, patch: Any) -> Any:
    """RFC 7396: maps merge, null deletes, anything else replaces."""
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
    """The key that identifies the items of a core kind's list, None for lists that are replaced as a whole."""
    if field == "ports":
        return "containerPort" if any("containerPort" in item for item in items) else "port"
    return MERGE_KEYS.get(field)


def strategic(target: Any, patch: Any, field: str = "") -> Any:
    """Strategic merge patch with `$patch`, `$setElementOrder`, `$deleteFromPrimitiveList` and `$retainKeys`."""
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
    """Items in the order asked for; those it doesn't name stay behind."""
    if field in SETS or not all(isinstance(item, dict) for item in items):
        rank = {repr(value): index for index, value in enumerate(order)}
        return sorted(items, key=lambda item: rank.get(repr(item), len(order)))
    key = merge_key(field, items)
    if key is None:
        return items
    rank = {repr(entry.get(key)): index for index, entry in enumerate(order)}
    return sorted(items, key=lambda item: rank.get(repr(item.get(key)), len(order)))


def json_patch(target: Any, operations: Any) -> Any:
    """RFC 6902. Raises PatchError when a path is missing or a test fails."""
    if not isinstance(operations, list):
        raise PatchError("a JSON patch is a list of operations")
    document = copy.deepcopy(target)
    for operation in operations:
        kind, path = operation.get("op"), _pointer(operation.get("path", ""))
        if kind in ("add", "replace"):
            document = _set(document, path, copy.deepcopy(operation.get("value")), insert=kind == "add")
        elif kind == "remove":
            document = _remove(document, path)
        elif kind == "test":
            if _get(document, path) != operation.get("value"):
                raise PatchError(f"testing value {operation['path']} failed: test failed")
        elif kind in ("copy", "move"):
            source = _pointer(operation.get("from", ""))
            value = copy.deepcopy(_get(document, source))
            if kind == "move":
                document = _remove(document, source)
            document = _set(document, path, value, insert=True)
        else:
            raise PatchError(f"unexpected kind: {kind}")
    return document


def _pointer(path: str) -> list[str]:
    if path and not path.startswith("/"):
        raise PatchError(f"a JSON pointer starts with '/': {path!r}")
    return [part.replace("~1", "/").replace("~0", "~") for part in path.split("/")[1:]]


def _index(container: list[Any], part: str, *, end: bool = False) -> int:
    if part == "-" and end:
        return len(container)
    if not part.isdigit() or int(part) >= len(container) + end:
        raise PatchError(f"index {part} is out of bounds")
    return int(part)


def _get(document: Any, path: list[str]) -> Any:
    for part in path:
        if isinstance(document, list):
            document = document[_index(document, part)]
        elif isinstance(document, dict) and part in document:
            document = document[part]
        else:
            raise PatchError(f"doc is missing path: /{'/'.join(path)}: missing value")
    return document


def _set(document: Any, path: list[str], value: Any, *, insert: bool) -> Any:
    if not path:
        return value
    parent, last = _get(document, path[:-1]), path[-1]
    if isinstance(parent, list):
        if insert:
            parent.insert(_index(parent, last, end=True), value)
        else:
            parent[_index(parent, last)] = value
    elif isinstance(parent, dict) and (insert or last in parent):
        parent[last] = value
    else:
        raise PatchError(f"replace operation does not apply: doc is missing key: /{'/'.join(path)}")
    return document


def _remove(document: Any, path: list[str]) -> Any:
    if not path:
        raise PatchError("the whole document can't be removed")
    parent, last = _get(document, path[:-1]), path[-1]
    if isinstance(parent, list):
        del parent[_index(parent, last)]
    elif isinstance(parent, dict) and last in parent:
        del parent[last]
    else:
        raise PatchError(f"remove operation does not apply: doc is missing path: /{'/'.join(path)}")
    return document
