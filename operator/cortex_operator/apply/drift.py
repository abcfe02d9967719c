"""Find what other writers changed in an object, by its managedFields and by comparison with the rendered object.

Server-side apply restores the fields that it applies but keeps what others add, such as a container, a variable or a key of a
ConfigMap. Pure; the applier removes the additions that are found here.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from cortex_operator.cluster import MANAGER, REPLICAS_MANAGER
from cortex_operator.render.overlay import KEYS

Object = dict[str, Any]
Pointer = tuple[str | int, ...]

_LIST_KEYS = {**KEYS, "ports": "containerPort", "ownerReferences": "uid"}
_IDENTIFYING = ("name", "mountPath", "containerPort", "port", "topologyKey", "ip", "uid")
_ABSENT = object()


@dataclass(frozen=True)
class Change:
    """One field that differs from the rendered object.

    path: for messages. manager: the field manager in managedFields; empty where no other manager owns it (an admission webhook,
    the API server itself, or a removed field). value: the live value as JSON. pointer: the place of an addition, which must be
    removed; None for a field that an apply restores. item: whether it is an item of a list.
    """

    path: str
    manager: str
    value: str
    pointer: Pointer | None = None
    item: bool = False


def changes(live: Object, wanted: Object) -> list[Change]:
    """Return where `live` differs from `wanted`, fields of other managers first. Defaults of the API server do not count, nor
    what others may change: labels, annotations, status, and the replicas of an autoscaled Deployment.
    """
    found: dict[str, Change] = {}
    for entry in live["metadata"].get("managedFields", ()):
        if is_foreign(entry):
            fields, manager = entry.get("fieldsV1", {}), entry.get("manager", "")
            for change in _owned(fields, live, wanted, (), "", manager):
                found.setdefault(change.path, change)
    for change in (*_items(live, wanted, (), ""), *_differences(live, wanted, "")):
        found.setdefault(change.path, change)
    return list(found.values())


def is_foreign(entry: Object) -> bool:
    """Return whether an entry of managedFields is of another writer. Subresources are those of controllers and autoscalers."""
    return not entry.get("subresource") and entry.get("manager") != REPLICAS_MANAGER and not _is_ours(entry)


def owns_replicas(entry: Object) -> bool:
    """Return whether an entry of managedFields is our own and has spec.replicas."""
    return _is_ours(entry) and "f:replicas" in entry.get("fieldsV1", {}).get("f:spec", {})


def removal(live: Object, additions: list[Change]) -> list[Object]:
    """Return the JSON patch (RFC 6902) that removes additions. It fails if the lists that contain them have changed since; other
    changes, such as the frequent ones of controllers, do not matter.
    """
    pointers = sorted((change.pointer for change in additions if change.pointer), key=_from_the_end)
    outermost = [
        p for p in pointers if not any(p != other and p[: len(other)] == other for other in pointers)
    ]
    tests: dict[str, Any] = {}
    for pointer in outermost:
        node: Any = live
        for depth, part in enumerate(pointer, 1):
            node = node[part]
            if isinstance(part, int):
                key = next((k for k in _IDENTIFYING if isinstance(node, dict) and k in node), None)
                at = _path(pointer[:depth]) + (f"/{key}" if key else "")
                tests[at] = node[key] if key else node
    return [
        *({"op": "test", "path": path, "value": value} for path, value in tests.items()),
        *({"op": "remove", "path": _path(pointer)} for pointer in outermost),
    ]


def _differences(live: Any, wanted: Any, path: str) -> Iterator[Change]:
    """Yield the fields of `wanted` that have another value in `live`, or none."""
    if isinstance(wanted, dict) and isinstance(live, dict):
        for name, value in wanted.items():
            yield from _differences(live.get(name, _ABSENT), value, f"{path}.{name}" if path else name)
    elif isinstance(wanted, list) and isinstance(live, list) and (key := _key_of(path, wanted)):
        items = {item.get(key): item for item in live}
        for item in wanted:
            there = items.get(item[key], _ABSENT)
            yield from _differences(there, item, f"{path}[{key}={item[key]}]")
    elif isinstance(wanted, list) and isinstance(live, list) and len(live) == len(wanted):
        for index, (there, item) in enumerate(zip(live, wanted, strict=True)):
            yield from _differences(there, item, f"{path}[{index}]")
    elif live != wanted:
        yield Change(path, "", "" if live is _ABSENT else _json(live))


def _is_ours(entry: Object) -> bool:
    return entry.get("manager") == MANAGER and entry.get("operation") == "Apply"


def _owned(
    fields: Object, live: Any, wanted: Any, pointer: Pointer, path: str, manager: str
) -> Iterator[Change]:
    """Walk the fields of another manager (FieldsV1)."""
    for step, below in fields.items():
        kind, _, text = step.partition(":")
        if kind == "f":
            place = f"{path}.{text}" if path else text
            if not isinstance(live, dict) or text not in live or _may_differ(place, wanted):
                continue
            part: str | int = text
            mine = wanted.get(text, _ABSENT) if isinstance(wanted, dict) else _ABSENT
        elif kind in ("k", "v") and isinstance(live, list):
            sought = json.loads(text)
            index = _index(live, sought)
            if index is None:
                continue
            part, place = index, f"{path}[{_selector_text(sought)}]"
            at = _index(wanted, sought) if isinstance(wanted, list) else None
            mine = _ABSENT if at is None else wanted[at]
        else:
            continue
        there = live[part]
        if mine is _ABSENT:
            yield Change(place, manager, _json(there), (*pointer, part), item=isinstance(part, int))
        elif isinstance(mine, dict | list) and below:
            yield from _owned(below, there, mine, (*pointer, part), place, manager)
        elif there != mine and step != ".":
            yield Change(place, manager, _json(there))


def _items(live: Any, wanted: Any, pointer: Pointer, path: str) -> Iterator[Change]:
    """Yield list items of `live` that `wanted` does not have; they may have no owner in managedFields."""
    if isinstance(wanted, dict) and isinstance(live, dict):
        for name, value in wanted.items():
            place = f"{path}.{name}" if path else name
            if name in live and place != "metadata":
                yield from _items(live[name], value, (*pointer, name), place)
    elif isinstance(wanted, list) and isinstance(live, list) and (key := _key_of(path, wanted)):
        mine = {item[key]: item for item in wanted}
        for index, item in enumerate(live):
            if not isinstance(item, dict) or key not in item:
                continue
            place = f"{path}[{key}={item[key]}]"
            if item[key] in mine:
                yield from _items(item, mine[item[key]], (*pointer, index), place)
            else:
                yield Change(place, "", _json(item), (*pointer, index), item=True)


def _may_differ(path: str, wanted: Any) -> bool:
    if path in ("apiVersion", "kind", "metadata", "status"):
        return True
    if path == "spec.replicas":
        return not (isinstance(wanted, dict) and "replicas" in wanted)
    # Annotations and labels of the pods: `kubectl rollout restart` sets one.
    return path == "spec.template.metadata"


def _key_of(path: str, wanted: list[Any]) -> str | None:
    key = _LIST_KEYS.get(path.rpartition(".")[2])
    if key == "containerPort" and path == "spec.ports":
        key = "port"  # A Service's.
    return key if key and wanted and all(isinstance(i, dict) and key in i for i in wanted) else None


def _index(items: list[Any], sought: Any) -> int | None:
    """Return the index of an item by its keys, or of a value in a set."""
    for index, item in enumerate(items):
        if item == sought:
            return index
        if (
            isinstance(sought, dict)
            and isinstance(item, dict)
            and sought.items() <= {"protocol": "TCP", **item}.items()
        ):
            return index
    return None


def _selector_text(sought: Any) -> str:
    if isinstance(sought, dict):
        return ",".join(f"{key}={value}" for key, value in sought.items() if key != "protocol")
    return str(sought)


def _from_the_end(pointer: Pointer) -> list[tuple[int, str]]:
    """Return a sort key that orders later items first, so that a removal does not shift the others."""
    return [(-part, "") if isinstance(part, int) else (0, part) for part in pointer]


def _path(pointer: Pointer) -> str:
    return "".join(f"/{str(part).replace('~', '~0').replace('/', '~1')}" for part in pointer)


def _json(value: Any) -> str:
    return json.dumps(value, sort_keys=True)
