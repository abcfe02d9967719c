"""Server-side apply: the fields that each manager owns, merging a configuration, and conflicts between managers.

Pure functions of objects. `registry` calls `apply` for apply patches and `update_managers` for all other writes. A set of fields
is a frozenset of paths, whose elements are those of FieldsV1: "f:name", 'k:{"name":"x"}', "v:1".
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from cortex_devcluster.apiserver.patch import MERGE_KEYS, SETS
from cortex_devcluster.objects import Object

Path = tuple[str, ...]
Fields = frozenset[Path]

UNOWNED = {
    ("f:apiVersion",), ("f:kind",), ("f:metadata",),
    *(("f:metadata", f"f:{name}") for name in (
        "name", "namespace", "creationTimestamp", "selfLink", "uid", "resourceVersion", "generation", "managedFields",
        "deletionTimestamp", "deletionGracePeriodSeconds", "generateName")),
}  # fmt: skip


@dataclass(frozen=True)
class Shape:
    """How a value is merged. schema: of a custom resource; None for built-in kinds, whose lists are recognized by field name."""

    schema: Mapping[str, Any] | None = None
    name: str = ""

    def child(self, name: str) -> Shape:
        if self.schema is None or (name == "metadata" and self.name == "$root"):
            return Shape(None, name)
        schema = self.schema.get("properties", {}).get(name) or self.schema.get("additionalProperties")
        return Shape(schema if isinstance(schema, dict) else {}, name)

    def item(self) -> Shape:
        return Shape(None if self.schema is None else self.schema.get("items", {}), "")

    def keys(self, items: list[Any]) -> tuple[str, ...]:
        """Return the keys of a list of type map, () for any other list."""
        if not all(isinstance(item, dict) for item in items):
            return ()
        if self.schema is not None:
            is_map = self.schema.get("x-kubernetes-list-type") == "map"
            return tuple(self.schema.get("x-kubernetes-list-map-keys", ())) if is_map else ()
        if self.name == "ports":
            first = "containerPort" if any("containerPort" in item for item in items) else "port"
            return (first, "protocol")
        return (MERGE_KEYS[self.name],) if self.name in MERGE_KEYS else ()

    def is_set(self) -> bool:
        if self.schema is None:
            return self.name in SETS
        return self.schema.get("x-kubernetes-list-type") == "set"

    def atomic_map(self) -> bool:
        if self.schema is None:
            return self.name in (
                "selector",
                "resourceFieldRef",
                "fieldRef",
                "configMapKeyRef",
                "secretKeyRef",
            )
        return self.schema.get("x-kubernetes-map-type") == "atomic"


@dataclass(frozen=True)
class Manager:
    """One entry of metadata.managedFields."""

    name: str
    operation: str
    api_version: str
    subresource: str
    fields: Fields
    time: str

    @property
    def identity(self) -> tuple[str, str, str]:
        return (self.name, self.operation, self.subresource)


@dataclass(frozen=True)
class Conflict:
    manager: Manager
    path: Path


def format_path(path: Path) -> str:
    """Format the path of a field, for example '.spec.containers[name="api"].image'."""
    text = ""
    for part in path:
        kind, value = part.split(":", 1)
        if kind == "f":
            text += f".{value}"
        elif kind == "k":
            text += (
                "[" + ",".join(f"{key}={json.dumps(item)}" for key, item in json.loads(value).items()) + "]"
            )
        else:
            text += f"[={value}]"
    return text


def item_key(item: Any, keys: tuple[str, ...]) -> str:
    """Return the FieldsV1 path element of an item of a list of type map."""
    named = {key: item.get(key, "TCP" if key == "protocol" else None) for key in sorted(keys)}
    return "k:" + json.dumps(named, separators=(",", ":"))


def iterate_fields(value: Any, shape: Shape, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Yield the path and value of every field that can be owned; the value of a keyed list item itself is None."""
    if isinstance(value, dict) and value and not shape.atomic_map():
        for name, child in value.items():
            yield from iterate_fields(child, shape.child(name), (*path, f"f:{name}"))
    elif isinstance(value, list) and value and shape.is_set():
        for item in value:
            yield (*path, "v:" + json.dumps(item)), item
    elif isinstance(value, list) and value and (keys := shape.keys(value)):
        for item in value:
            at = (*path, item_key(item, keys))
            yield at, None
            yield from iterate_fields(item, shape.item(), at)
    else:
        yield path, value


def owned_fields(obj: Object, shape: Shape) -> dict[Path, Any]:
    return {
        path: value
        for path, value in iterate_fields(obj, shape)
        if path[:2] not in UNOWNED and path[:1] not in UNOWNED
    }


def encode(fields: Fields) -> Object:
    """Return a set of fields as FieldsV1."""
    root: Object = {}
    for path in sorted(fields, key=len):
        node = root
        for depth, part in enumerate(path):
            node = node.setdefault(part, {})
            if path[: depth + 1] in fields and depth + 1 < len(path):
                node.setdefault(".", {})
    return root


def decode(tree: Object, path: Path = ()) -> Iterator[Path]:
    if not tree and path:
        yield path
    for part, below in tree.items():
        if part == ".":
            yield path
        else:
            yield from decode(below, (*path, part))


def managers(obj: Object) -> list[Manager]:
    return [
        Manager(
            entry.get("manager", ""),
            entry.get("operation", "Update"),
            entry.get("apiVersion", ""),
            entry.get("subresource", ""),
            frozenset(decode(entry.get("fieldsV1") or {})),
            entry.get("time", ""),
        )
        for entry in obj.get("metadata", {}).get("managedFields") or ()
        if entry.get("fieldsV1")
    ]


def write(obj: Object, entries: list[Manager]) -> None:
    """Set metadata.managedFields to the entries that own a field."""
    obj["metadata"]["managedFields"] = [
        {
            "manager": entry.name,
            "operation": entry.operation,
            "apiVersion": entry.api_version,
            "time": entry.time,
            "fieldsType": "FieldsV1",
            "fieldsV1": encode(entry.fields),
            **({"subresource": entry.subresource} if entry.subresource else {}),
        }
        for entry in entries
        if entry.fields
    ]


def update_managers(before: Object | None, after: Object, shape: Shape, writer: Manager) -> None:
    """After a write other than an apply, make its manager the only owner of the fields that it changed."""
    old = owned_fields(before, shape) if before else {}
    new = owned_fields(after, shape)
    changed = frozenset(path for path, value in new.items() if path not in old or old[path] != value)
    gone = frozenset(path for path in old if path not in new)
    entries, mine = [], Fields()
    for entry in managers(after):
        if entry.identity == writer.identity:
            mine = entry.fields
            keep = entry.fields - gone
            stamp = entry.time if not (changed - entry.fields) else writer.time
        else:
            keep, stamp = entry.fields - gone - changed, entry.time
        entries.append(_with_fields(entry, keep, stamp))
    if changed:
        entries = [entry for entry in entries if entry.identity != writer.identity]
        entries.append(_with_fields(writer, (mine - gone) | changed, writer.time))
    write(after, entries)


def _with_fields(entry: Manager, fields: Fields, time: str) -> Manager:
    return Manager(entry.name, entry.operation, entry.api_version, entry.subresource, fields, time)


def apply(
    live: Object | None, config: Object, shape: Shape, writer: Manager, force: bool
) -> tuple[Object, list[Conflict]]:
    """Return the live object with a configuration applied, managedFields included, and the conflicts.

    If there are conflicts and not `force`, nothing is applied.
    """
    applied = owned_fields(config, shape)
    fields = frozenset(applied)
    entries = managers(live) if live else []
    mine = next((entry.fields for entry in entries if entry.identity == writer.identity), Fields())
    others = [entry for entry in entries if entry.identity != writer.identity]
    present = owned_fields(live, shape) if live else {}
    conflicts = [
        Conflict(entry, path)
        for entry in others
        for path in sorted(entry.fields & fields)
        if applied[path] != present.get(path)
    ]
    if conflicts and not force:
        return live or config, conflicts
    lost = frozenset(conflict.path for conflict in conflicts)
    result = merge(live, config, shape)
    elsewhere: frozenset[Path] = frozenset().union(*(entry.fields for entry in others)) - lost
    for path in sorted(mine - fields, key=len):  # an item before its fields
        if not any(other[: len(path)] == path for other in elsewhere | fields):
            _prune(result, path, elsewhere | fields)
    kept = [_with_fields(entry, entry.fields - lost, entry.time) for entry in others]
    old_time = next(
        (e.time for e in entries if e.identity == writer.identity and e.fields == fields), writer.time
    )
    write(result, [*kept, _with_fields(writer, fields, old_time)])
    return result, []


def merge(live: Any, config: Any, shape: Shape) -> Any:
    """Merge a configuration into a live value: maps, lists of type map and sets are merged, other values replaced."""
    if isinstance(config, dict) and isinstance(live, dict) and not shape.atomic_map():
        result = dict(live)
        for name, value in config.items():
            result[name] = merge(live.get(name), value, shape.child(name))
        return result
    if isinstance(config, list) and isinstance(live, list):
        if shape.is_set():
            return live + [item for item in config if item not in live]
        if keys := shape.keys([*live, *config]):
            new = {item_key(item, keys): item for item in config}
            old = {item_key(item, keys) for item in live}
            merged = [merge(item, new.get(item_key(item, keys), item), shape.item()) for item in live]
            return merged + [copy.deepcopy(item) for key, item in new.items() if key not in old]
    return copy.deepcopy(config)


def _prune(obj: Any, path: Path, kept: frozenset[Path]) -> None:
    """Remove a field, and the parents that become empty and are not in `kept`."""
    trail: list[tuple[Any, Any]] = []
    node = obj
    for part in path:
        kind, text = part.split(":", 1)
        if kind == "f" and isinstance(node, dict) and text in node:
            key: Any = text
        elif kind == "k" and isinstance(node, list):
            named = json.loads(text)
            matches = (i for i, item in enumerate(node) if item_key(item, tuple(named)) == part)
            if (key := next(matches, None)) is None:
                return
        elif kind == "v" and isinstance(node, list) and json.loads(text) in node:
            key = node.index(json.loads(text))
        else:
            return
        if trail:
            # The store shares the live object: copy every parent.
            holder, at = trail[-1]
            node = holder[at] = copy.copy(node)
        trail.append((node, key))
        node = node[key]
    for depth in range(len(trail) - 1, -1, -1):
        holder, at = trail[depth]
        del holder[at]
        if holder or depth < 2 or path[:depth] in kept:
            return
