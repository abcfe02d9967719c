"""What the watches have told so far: the resources, their children and pods, and the ConfigMaps that hold their code."""

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

from cortex_operator.render.names import API_LABEL, KIND_LABEL

Object = dict[str, Any]


@dataclass(frozen=True)
class Key:
    """Which API: kind, namespace, name."""

    kind: str
    namespace: str
    name: str


class Cache:
    """Objects by API. Fed by the watches, and by what the API server answered to our own writes."""

    def __init__(self) -> None:
        self._apis: dict[Key, Object] = {}
        self._children: dict[Key, dict[tuple[str, str], Object]] = defaultdict(dict)
        self._sources: dict[tuple[str, str], set[Key]] = defaultdict(set)
        self._source_of: dict[Key, tuple[str, str]] = {}
        self._source_maps: dict[tuple[str, str], Object] = {}

    def api(self, key: Key) -> Object | None:
        """The resource itself."""
        return self._apis.get(key)

    def put_api(self, key: Key, live: Object | None) -> None:
        """The resource as the watch shows it; None when it is deleted."""
        if old := self._source_of.pop(key, None):
            self._sources[old].discard(key)
            if not self._sources[old]:
                del self._sources[old]
                self._source_maps.pop(old, None)
        if live is None:
            self._apis.pop(key, None)
            self._children.pop(key, None)
            return
        self._apis[key] = live
        if name := source_name(live):
            self._source_of[key] = (key.namespace, name)
            self._sources[key.namespace, name].add(key)

    def children(self, key: Key, kind: str) -> list[Object]:
        """Children of one kind ("Pod", "Deployment", ...)."""
        return [child for (k, _), child in self._children.get(key, {}).items() if k == kind]

    def put_child(self, child: Object, deleted: bool = False) -> Key | None:
        """A child as the watch or a write shows it. Returns the API that it belongs to."""
        metadata = child["metadata"]
        labels = metadata.get("labels", {})
        if API_LABEL not in labels or KIND_LABEL not in labels:
            return None
        key = Key(labels[KIND_LABEL], metadata["namespace"], labels[API_LABEL])
        place = (child["kind"], metadata["name"])
        if deleted:
            self._children[key].pop(place, None)
        else:
            self._children[key][place] = child
        return key

    def source(self, key: Key) -> Object | None:
        """The ConfigMap that holds the API's code, as far as it is known."""
        place = self._source_of.get(key)
        return self._source_maps.get(place) if place else None

    def put_source(self, config_map: Object, deleted: bool = False) -> set[Key]:
        """A ConfigMap as the watch shows it. Returns the APIs whose code it holds."""
        metadata = config_map["metadata"]
        place = (metadata["namespace"], metadata["name"])
        if place not in self._sources:
            return set()
        if deleted:
            self._source_maps.pop(place, None)
        else:
            self._source_maps[place] = config_map
        return set(self._sources[place])

    def __len__(self) -> int:
        return len(self._apis)


def source_name(live: Object) -> str | None:
    """The ConfigMap that a resource names as its source, whatever else may be wrong with it."""
    value: Any = live
    for part in ("spec", "handler", "source", "configMap", "name"):
        value = value.get(part) if isinstance(value, dict) else None
    return value if isinstance(value, str) else None
