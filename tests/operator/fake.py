"""A test double of the cluster: objects in memory, server-side apply for a single manager, faults on demand.

It has no defaults, schemas or field ownership, except that of spec.replicas. These are tested on a dev cluster and on a real
one (tests/cluster).
"""

import copy
import itertools
import json
from collections.abc import Callable
from typing import Any

from kubernetes.aio.client.exceptions import ApiException

from cortex_operator.cluster import MANAGER

Object = dict[str, Any]
Place = tuple[str, str, str]


class FakeCluster:
    """A fake of `cortex_operator.cluster.Cluster`.

    on_event: called with (event type, object) after each change. fault: called before each write; the returned status is
    raised.
    """

    def __init__(self, on_event: Callable[[str, Object], None]) -> None:
        self.objects: dict[Place, Object] = {}
        self.terminating: set[str] = set()
        self.writes = self.reads = 0
        self.events: list[Object] = []
        self.admission: Callable[[Object], None] = lambda thing: None
        self.fault: Callable[[], int | None] = lambda: None
        self.ending = False
        self._on_event = on_event
        self._versions = itertools.count(1)
        self._uids = itertools.count(1)

    async def get(self, api_version: str, kind: str, namespace: str, name: str) -> Object | None:
        self.reads += 1
        found = self.objects.get((kind, namespace, name))
        return copy.deepcopy(found)

    async def list_matching(self, api_version: str, kind: str, namespace: str, selector: str) -> list[Object]:
        self.reads += 1
        wanted = dict(part.split("=") for part in selector.split(","))
        return [
            copy.deepcopy(thing)
            for place, thing in self.objects.items()
            if place[:2] == (kind, namespace) and wanted.items() <= thing["metadata"]["labels"].items()
        ]

    async def is_terminating(self, namespace: str) -> bool:
        return self.ending

    async def apply(self, child: Object, manager: str = MANAGER) -> Object:
        self._maybe_fail()
        place = _place(child)
        known = self.objects.get(place)
        merged = _merge(known or {"metadata": {"uid": f"u{next(self._uids)}", "generation": 0}}, child)
        if child["kind"] == "Deployment":
            # The owner of spec.replicas, the only field whose manager changes.
            fields = merged["metadata"].get("managedFields", ())
            merged["metadata"]["managedFields"] = [entry for entry in fields if entry["manager"] != manager]
            if "replicas" in child["spec"]:
                entry = {"manager": manager, "operation": "Apply", "fieldsV1": {"f:spec": {"f:replicas": {}}}}
                merged["metadata"]["managedFields"].append(entry)
        self.admission(merged)
        if known is not None and _bare(merged) == _bare(known):
            return copy.deepcopy(known)
        if known is None or merged.get("spec") != known.get("spec"):
            merged["metadata"]["generation"] += 1
        return self._put(merged, "MODIFIED" if known else "ADDED")

    async def apply_new(self, child: Object) -> Object | None:
        if _place(child) in self.objects:
            self._maybe_fail()
            return None
        return await self.apply(child)

    async def patch(self, thing: Object, operations: list[Object]) -> Object:
        """Apply the test and remove operations of a JSON patch."""
        self._maybe_fail()
        known = self.objects[_place(thing)]
        changed = copy.deepcopy(known)
        for operation in operations:
            *way, last = (
                part.replace("~1", "/").replace("~0", "~") for part in operation["path"][1:].split("/")
            )
            node: Any = changed
            for part in way:
                node = node[int(part) if isinstance(node, list) else part]
            step: Any = int(last) if isinstance(node, list) else last
            if operation["op"] == "test" and node[step] != operation["value"]:
                raise ApiException(status=422)
            if operation["op"] == "remove":
                del node[step]
        self.admission(changed)
        if _bare(changed) == _bare(known):
            return copy.deepcopy(known)
        changed["metadata"]["generation"] += changed.get("spec") != known.get("spec")
        return self._put(changed, "MODIFIED")

    async def annotate(self, thing: Object, name: str, value: str | None) -> Object:
        self._maybe_fail()
        known = self.objects.get(_place(thing))
        if known is None:
            raise ApiException(status=404)
        metadata = copy.deepcopy(known["metadata"])
        annotations = {k: v for k, v in metadata.get("annotations", {}).items() if k != name}
        metadata["annotations"] = annotations | ({} if value is None else {name: value})
        return self._put({**known, "metadata": metadata}, "MODIFIED")

    async def scale(self, deployment: Object, replicas: int) -> None:
        self._maybe_fail()
        self.edit("Deployment", deployment["metadata"]["name"], {"spec": {"replicas": replicas}})

    async def delete(self, child: Object, only_unchanged: bool = False) -> None:
        self._maybe_fail()
        live = self.objects.get(_place(child), child)
        if only_unchanged and live["metadata"]["resourceVersion"] != child["metadata"]["resourceVersion"]:
            return
        self.remove(child["kind"], child["metadata"]["name"], child["metadata"]["namespace"])

    async def write_status(self, live: Object, status: Object) -> Object:
        self._maybe_fail()
        known = self.objects.get(_place(live))
        if known is None:
            raise ApiException(status=404)
        return self._put({**known, "status": copy.deepcopy(status)}, "MODIFIED")

    async def create(self, thing: Object) -> Object:
        self._maybe_fail()
        if thing["metadata"]["namespace"] in self.terminating:
            raise ended(thing["metadata"]["namespace"])
        if thing["kind"] == "Event":
            self.events.append(thing)
            return thing
        if _place(thing) in self.objects:
            raise ApiException(status=409)
        made = copy.deepcopy(thing)
        made["metadata"] |= {"uid": f"u{next(self._uids)}", "generation": 1}
        return self._put(made, "ADDED")

    async def write_finalizers(self, live: Object, finalizers: list[str]) -> Object:
        self._maybe_fail()
        known = self.objects[_place(live)]
        written = {**known, "metadata": {**known["metadata"], "finalizers": finalizers}}
        if written["metadata"].get("deletionTimestamp") and not finalizers:
            self.objects[_place(live)] = written
            self.remove(live["kind"], live["metadata"]["name"], live["metadata"]["namespace"])
            return written
        return self._put(written, "MODIFIED")

    def edit(self, kind: str, name: str, change: Object) -> None:
        """Change an object as a user does."""
        known = self.objects.get((kind, "default", name))
        if known is not None:
            merged = _merge(known, change)
            merged["metadata"]["generation"] = known["metadata"].get("generation", 0) + 1
            self._put(merged, "MODIFIED")

    def put(self, thing: Object) -> None:
        """Create or replace an object as a user does."""
        known = self.objects.get(_place(thing))
        made = copy.deepcopy(thing)
        before = known["metadata"] if known else {"uid": f"u{next(self._uids)}", "generation": 0}
        made["metadata"] = {**before, **made["metadata"], "generation": before["generation"] + 1}
        if known and "status" in known:
            made["status"] = known["status"]
        self._put(made, "MODIFIED" if known else "ADDED")

    def remove(self, kind: str, name: str, namespace: str = "default") -> None:
        """Delete an object and what it owns; one with finalizers gets a deletionTimestamp."""
        known = self.objects.get((kind, namespace, name))
        if known and known["metadata"].get("finalizers"):
            self._put(
                {**known, "metadata": {**known["metadata"], "deletionTimestamp": "2026-01-01"}}, "MODIFIED"
            )
            return
        gone = self.objects.pop((kind, namespace, name), None)
        if gone is None:
            return
        gone["metadata"]["resourceVersion"] = str(next(self._versions))
        self._on_event("DELETED", copy.deepcopy(gone))
        for child in list(self.objects.values()):
            owners = child["metadata"].get("ownerReferences", ())
            if any(owner["uid"] == gone["metadata"]["uid"] for owner in owners):
                self.remove(child["kind"], child["metadata"]["name"], namespace)

    def collect(self) -> None:
        """Delete objects whose owner no longer exists."""
        alive = {thing["metadata"]["uid"] for thing in self.objects.values()}
        for thing in list(self.objects.values()):
            owners = thing["metadata"].get("ownerReferences", ())
            if owners and not any(owner["uid"] in alive for owner in owners):
                self.remove(thing["kind"], thing["metadata"]["name"])

    def _put(self, thing: Object, event: str) -> Object:
        self.writes += 1
        thing["metadata"]["resourceVersion"] = str(next(self._versions))
        self.objects[_place(thing)] = thing
        self._on_event(event, copy.deepcopy(thing))
        written = copy.deepcopy(thing)
        if thing["kind"] == "Deployment":
            self._observe(thing)
        return written

    def _observe(self, deployment: Object) -> None:
        """Report a Deployment as rolled out, as its controller does."""
        generation, status = deployment["metadata"].get("generation"), deployment.get("status", {})
        if status.get("observedGeneration") != generation:
            metadata = {**deployment["metadata"], "resourceVersion": str(next(self._versions))}
            wanted = deployment["spec"].get("replicas", 1)
            counts = dict.fromkeys(("replicas", "updatedReplicas", "availableReplicas"), wanted)
            status = {**status, **counts, "observedGeneration": generation}
            observed = {**deployment, "metadata": metadata, "status": status}
            self.objects[_place(deployment)] = observed
            self._on_event("MODIFIED", copy.deepcopy(observed))

    def _maybe_fail(self) -> None:
        if status := self.fault():
            raise ApiException(status=status, reason="a fault of the test")


def ended(namespace: str) -> ApiException:
    """Return the error of the API server for a create in a terminating namespace."""
    error = ApiException(status=403)
    error.body = f"unable to create new content in namespace {namespace} because it is being terminated"
    return error


def _place(thing: Object) -> Place:
    return thing["kind"], thing["metadata"]["namespace"], thing["metadata"]["name"]


def _bare(thing: Object) -> str:
    metadata = {k: v for k, v in thing["metadata"].items() if k not in ("resourceVersion", "generation")}
    return json.dumps({**thing, "metadata": metadata}, sort_keys=True)


def _merge(known: Any, change: Any) -> Any:
    if isinstance(known, dict) and isinstance(change, dict):
        return {**known, **{key: _merge(known.get(key), value) for key, value in change.items()}}
    return copy.deepcopy(change)
