"""A cache of what the watches have reported: APIs, their objects and pods, and the ConfigMaps with their code."""

from collections import OrderedDict, defaultdict
from dataclasses import dataclass
from typing import Any

from cortex_api.contract import API_LABEL, KIND_LABEL
from cortex_operator.watch.compact import LAST_APPLIED, compact_api, compact_child, compact_source

Object = dict[str, Any]

MAX_DELETIONS = 10_000
"""UIDs of deleted objects that are remembered, so that a late event does not restore them."""


@dataclass(frozen=True)
class Key:
    """The identity of an API."""

    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}"


class Cache:
    """Objects by API, from watch events and from the responses to our own writes.

    Both may arrive in any order: an older version never replaces a newer one, and a deleted object stays deleted.
    """

    def __init__(self) -> None:
        self._apis: dict[Key, Object] = {}
        self._children: dict[Key, dict[tuple[str, str], Object]] = defaultdict(dict)
        self._sources: dict[tuple[str, str], set[Key]] = defaultdict(set)
        self._sources_of: dict[Key, set[tuple[str, str]]] = {}
        self._source_maps: dict[tuple[str, str], Object] = {}
        self._at_endpoint: dict[str, set[Key]] = defaultdict(set)
        self._deleted: OrderedDict[str, None] = OrderedDict()
        self._unseen: dict[Key, str] = {}
        """The resource version of an own write whose event must still cause a reconciliation."""
        self._unseen_sources: dict[tuple[str, str], str] = {}
        """The resource version of a ConfigMap with code that was read, and whose event must still cause reconciliations."""
        self.managed_elsewhere: dict[Key, str] = {}
        """The namespace of the operator that manages an API, for APIs of other operators."""

    def apis(self) -> list[Key]:
        """Return the keys of all APIs."""
        return list(self._apis)

    def api(self, key: Key) -> Object | None:
        """Return the resource of an API."""
        return self._apis.get(key)

    def put_written_api(self, key: Key, written: Object, read: Object) -> None:
        """Put the response to our own write of a resource. read: the resource before the write.

        The event of a write of the status alone is skipped later. But if anything else differs, the user may have changed the
        resource between both, so the event must cause a reconciliation.
        """
        self.put_api(key, written)
        if _without_status(written) != _without_status(read):
            self._unseen[key] = written["metadata"].get("resourceVersion", "")

    def put_api(self, key: Key, live: Object, deleted: bool = False) -> set[Key]:
        """Put or delete a resource. Returns the APIs that must be reconciled because of it."""
        known = self._apis.get(key)
        if self._unseen.get(key) == live["metadata"].get("resourceVersion", "") and not deleted:
            del self._unseen[key]
        elif self._is_stale(live, known, deleted):
            return set()
        if deleted and known is not None and known["metadata"].get("uid") != live["metadata"].get("uid"):
            return set()  # Another API of the same name was created since.
        if deleted:
            self._apis.pop(key, None)
            self._unseen.pop(key, None)
            self.managed_elsewhere.pop(key, None)
            self._children.pop(key, None)
            self._set_sources(key, set())
            return {key} | (self._leave_endpoint(key, known) if known is not None else set())
        self._apis[key] = live = compact_api(live, known)
        self._set_sources(key, source_names(live))
        if known is not None and _identity_and_endpoint(known) == _identity_and_endpoint(live):
            return {key}  # Usually a status, which does not matter to the other APIs at the endpoint.
        left = self._leave_endpoint(key, known) if known is not None else set()
        self._at_endpoint[endpoint_of(live)].add(key)
        return left | self._at_endpoint[endpoint_of(live)]

    def _set_sources(self, key: Key, names: set[str]) -> None:
        """Set the ConfigMaps with the code of an API, and drop those that no API names any more."""
        old, new = self._sources_of.get(key, set()), {(key.namespace, name) for name in names}
        if old == new:
            return
        for place in old - new:
            self._sources[place].discard(key)
            if not self._sources[place]:
                del self._sources[place]
                self._source_maps.pop(place, None)
                self._unseen_sources.pop(place, None)
        for place in new:
            self._sources[place].add(key)
        if new:
            self._sources_of[key] = new
        else:
            del self._sources_of[key]

    def _leave_endpoint(self, key: Key, known: Object) -> set[Key]:
        """Remove an API from its endpoint. Returns the APIs that remain there."""
        endpoint = endpoint_of(known)
        others = self._at_endpoint[endpoint]
        others.discard(key)
        if not others:
            del self._at_endpoint[endpoint]
        return set(others)

    def first_at_endpoint(self, key: Key) -> Key:
        """Return the oldest API with the endpoint of this API; usually that is the API itself."""
        live = self._apis[key]

        def age(other: Key) -> tuple[str, str, str, str]:
            created = self._apis[other]["metadata"].get("creationTimestamp", "")
            return created, other.namespace, other.name, other.kind

        return min(self._at_endpoint[endpoint_of(live)], key=age)

    def children(self, key: Key, kind: str) -> list[Object]:
        """Return the objects of one kind ("Pod", "Deployment", ...)."""
        return [child for (k, _), child in self._children.get(key, {}).items() if k == kind]

    def child(self, key: Key, kind: str, name: str) -> Object | None:
        """Return one object of an API."""
        return self._children.get(key, {}).get((kind, name))

    def put_child(self, child: Object, deleted: bool = False) -> Key | None:
        """Put or delete an object of an API. Returns the API that must be reconciled because of it, if any."""
        metadata = child["metadata"]
        labels = metadata.get("labels", {})
        if API_LABEL not in labels or KIND_LABEL not in labels:
            return None
        key = Key(labels[KIND_LABEL], metadata["namespace"], labels[API_LABEL])
        place = (child["kind"], metadata["name"])
        known = self._children.get(key, {}).get(place)
        if self._is_stale(child, known, deleted):
            return None
        if not deleted:
            self._children[key][place] = compact_child(child, known)
        elif known is not None and known["metadata"]["uid"] == metadata["uid"]:
            del self._children[key][place]
            if not self._children[key]:
                del self._children[key]
        return key

    def _is_stale(self, thing: Object, known: Object | None, deleted: bool) -> bool:
        """Return whether an event reports nothing new: the cached version is the same, such as our own write, or newer. Resource
        versions of one object are ordered numbers (KEP-5504).
        """
        uid = thing["metadata"].get("uid", "")
        if deleted:
            self._deleted[uid] = None
            if len(self._deleted) > MAX_DELETIONS:
                self._deleted.popitem(last=False)
            return False
        if uid in self._deleted:
            return True
        if known is None or known["metadata"].get("uid") != uid:
            return False
        return 0 < _version(thing) <= _version(known)

    def source(self, key: Key, name: str) -> Object | None:
        """Return a ConfigMap with code of an API by its name, if it is cached."""
        return self._source_maps.get((key.namespace, name))

    def put_read_source(self, config_map: Object) -> None:
        """Put a ConfigMap with code that was read for one API. Its event may still follow, and concerns its other users."""
        if len(self.put_source(config_map)) > 1:
            metadata = config_map["metadata"]
            self._unseen_sources[metadata["namespace"], metadata["name"]] = metadata.get(
                "resourceVersion", ""
            )

    def put_source(self, config_map: Object, deleted: bool = False) -> set[Key]:
        """Put or delete a ConfigMap with code. Returns the APIs that use it."""
        metadata = config_map["metadata"]
        place = (metadata["namespace"], metadata["name"])
        if place not in self._sources:
            return set()
        if self._unseen_sources.get(place) == metadata.get("resourceVersion", "") and not deleted:
            del self._unseen_sources[place]
        elif self._is_stale(config_map, self._source_maps.get(place), deleted):
            return set()
        if deleted:
            self._source_maps.pop(place, None)
        else:
            self._source_maps[place] = compact_source(config_map)
        return set(self._sources[place])

    def objects(self, kind: str, namespace: str | None) -> list[Object]:
        """Return all cached objects of one kind, resources and ConfigMaps with code included. namespace: None for all."""
        found = [live for key, live in self._apis.items() if key.kind == kind]
        for children in self._children.values():
            found += [child for (of, _), child in children.items() if of == kind]
        if kind == "ConfigMap":
            found += self._source_maps.values()
        return [thing for thing in found if namespace in (None, thing["metadata"]["namespace"])]


def _version(thing: Object) -> int:
    version = thing["metadata"].get("resourceVersion", "")
    return int(version) if version.isdigit() else 0


def _without_status(live: Object) -> tuple[Any, ...]:
    """Return what a write of the status leaves unchanged; the generation stands for the spec."""
    metadata = live["metadata"]
    annotations = {k: v for k, v in (metadata.get("annotations") or {}).items() if k != LAST_APPLIED}
    fields = ("uid", "generation", "labels", "finalizers", "deletionTimestamp")
    return annotations, *(metadata.get(field) or None for field in fields)


def _identity_and_endpoint(live: Object) -> tuple[str | None, str]:
    """Return what matters to the other APIs at an endpoint."""
    return live["metadata"].get("uid"), endpoint_of(live)


def endpoint_of(live: Object) -> str:
    """Return the endpoint of a resource, which may be invalid otherwise."""
    networking = (live.get("spec") or {}).get("networking") or {}
    endpoint = networking.get("endpoint") if isinstance(networking, dict) else None
    return (endpoint if isinstance(endpoint, str) else f"/{live['metadata']['name']}").rstrip("/")


def source_names(live: Object) -> set[str]:
    """Return the names of the ConfigMaps with the code of a resource and of its candidate. Both may be invalid otherwise."""
    spec = live.get("spec") or {}
    candidate = spec.get("candidate")
    of_candidate = candidate.get("handler") if isinstance(candidate, dict) else None
    return {name for handler in (spec.get("handler"), of_candidate) if (name := _name_of_source(handler))}


def _name_of_source(handler: Any) -> str | None:
    value = handler
    for part in ("source", "configMap", "name"):
        value = value.get(part) if isinstance(value, dict) else None
    return value if isinstance(value, str) else None
