"""Garbage collection: dependents of deleted owners, foreground and orphan deletion, and the contents of deleted namespaces."""

from __future__ import annotations

import asyncio
import functools

from cortex_devcluster.client import Client, ControllerLoop, Informer, Key, StatusError, path
from cortex_devcluster.objects import Object

CRDS = "apiextensions.k8s.io/v1/customresourcedefinitions"
UNWATCHED = {"events"}


class GarbageCollector:
    """Watches every served kind, and follows owner references by uid."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._informers: dict[str, Informer] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._kinds: dict[tuple[str, str], str] = {}  # (apiVersion, kind) → resource
        self._objects: dict[str, tuple[str, Object]] = {}  # uid → (resource, object)
        self._dependents: dict[str, set[str]] = {}  # owner uid → uids
        self._loop = ControllerLoop("garbage", self._sync)
        self._namespaces = ControllerLoop("namespace", self._empty_namespace)

    async def run(self) -> None:
        definitions = Informer(self._client, CRDS)
        discover = asyncio.Event()
        discover.set()
        definitions.listen(lambda before, after: discover.set())
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(definitions.run())
                tasks.create_task(self._loop.run())
                tasks.create_task(self._namespaces.run())
                while True:
                    await discover.wait()
                    discover.clear()
                    await self._discover()
        finally:
            for task in self._tasks.values():
                task.cancel()

    async def _discover(self) -> None:
        """Watch new kinds. The watch of a kind that is no longer served has ended already."""
        self._tasks = {resource: task for resource, task in self._tasks.items() if not task.done()}
        groups = (await self._client.request("GET", "/apis"))["groups"]
        versions = ["v1", *(group["preferredVersion"]["groupVersion"] for group in groups)]
        for version in versions:
            base = f"/apis/{version}" if "/" in version else f"/api/{version}"
            try:
                found = (await self._client.request("GET", base))["resources"]
            except StatusError:
                continue  # Deleted between the two requests; the event of its CRD starts another discovery.
            for entry in found:
                resource = f"{version}/{entry['name']}"
                if entry["name"] in UNWATCHED or "/" in entry["name"] or "list" not in entry["verbs"]:
                    continue
                self._kinds[version, entry["kind"]] = resource
                if resource not in self._tasks:
                    informer = self._informers[resource] = Informer(self._client, resource)
                    informer.listen(functools.partial(self._changed, resource))
                    self._tasks[resource] = asyncio.create_task(informer.run())

    def _changed(self, resource: str, before: Object | None, after: Object | None) -> None:
        for ref in (before or {}).get("metadata", {}).get("ownerReferences") or ():
            self._dependents.get(ref["uid"], set()).discard((before or {})["metadata"]["uid"])
            self._loop.add("", ref["uid"])
        if after is None and before is not None:
            uid = before["metadata"]["uid"]
            self._objects.pop(uid, None)
            for dependent in self._dependents.get(uid, ()):
                self._loop.add("", dependent)
        if after is not None:
            meta = after["metadata"]
            self._objects[meta["uid"]] = (resource, after)
            for ref in meta.get("ownerReferences") or ():
                self._dependents.setdefault(ref["uid"], set()).add(meta["uid"])
            if meta.get("ownerReferences") or meta.get("finalizers"):
                self._loop.add("", meta["uid"])
            if before is not None and before["metadata"]["uid"] != meta["uid"]:
                self._changed(resource, before, None)
            if resource == "v1/namespaces" and meta.get("deletionTimestamp"):
                self._namespaces.add("", meta["name"])
        space = (after or before or {})["metadata"].get("namespace")
        if after is None and space:
            holder = self._informers.get("v1/namespaces")
            found = holder.get("", space) if holder else None
            if found and found["metadata"].get("deletionTimestamp"):
                self._namespaces.add("", space)

    async def _sync(self, key: Key) -> None:
        uid = key[1]
        if uid not in self._objects:
            return
        resource, obj = self._objects[uid]
        meta = obj["metadata"]
        finalizers = meta.get("finalizers") or []
        if meta.get("deletionTimestamp"):
            dependents = [self._objects[d] for d in self._dependents.get(uid, ()) if d in self._objects]
            if "foregroundDeletion" in finalizers:
                for below, dependent in dependents:
                    if not dependent["metadata"].get("deletionTimestamp"):
                        await self._client.delete(below, dependent, propagationPolicy="Foreground")
                prevents_rules = [d for _, d in dependents if _blocks(d, uid)]
                if not prevents_rules:
                    await self._remove_finalizer(resource, obj, "foregroundDeletion")
            elif "orphan" in finalizers:
                for below, dependent in dependents:
                    rest = [ref for ref in dependent["metadata"]["ownerReferences"] if ref["uid"] != uid]
                    await self._patch(below, dependent, {"metadata": {"ownerReferences": rest or None}})
                await self._remove_finalizer(resource, obj, "orphan")
            return
        refs = meta.get("ownerReferences") or []
        if refs and not [ref for ref in refs if await self._exists(ref, meta.get("namespace", ""))]:
            await self._client.delete(resource, obj, propagationPolicy="Background")

    async def _exists(self, ref: Object, namespace: str) -> bool:
        """Return whether an owner exists. Request it if it is not in the cache."""
        if ref["uid"] in self._objects:
            return True
        resource = self._kinds.get((ref["apiVersion"], ref["kind"]))
        if resource is None:
            return True
        try:
            found = await self._client.get(resource, namespace, ref["name"])
        except StatusError:
            return True
        if found is None and namespace:
            found = await self._client.get(resource, "", ref["name"])
        return found is not None and found["metadata"]["uid"] == ref["uid"]

    async def _remove_finalizer(self, resource: str, obj: Object, finalizer: str) -> None:
        rest = [name for name in obj["metadata"]["finalizers"] if name != finalizer]
        await self._patch(resource, obj, {"metadata": {"finalizers": rest or None}})

    async def _patch(self, resource: str, obj: Object, change: Object) -> None:
        meta = obj["metadata"]
        change["metadata"]["uid"] = meta["uid"]
        change["metadata"]["resourceVersion"] = meta["resourceVersion"]
        await self._client.patch(resource, meta.get("namespace", ""), meta["name"], change)

    async def _empty_namespace(self, key: Key) -> None:
        """Delete the contents of a namespace, and the namespace itself once it is empty."""
        name, left = key[1], 0
        spaces = self._informers.get("v1/namespaces")
        if spaces is None or spaces.get("", name) is None:
            return  # deleted
        for resource in [*self._tasks, "v1/events"]:
            informer = self._informers.get(resource)
            found = informer.list(name) if informer else []
            left += len(found)
            if any(not obj["metadata"].get("deletionTimestamp") for obj in found) or resource == "v1/events":
                await self._client.request("DELETE", path(resource, name))
        if not left:
            body = {
                "apiVersion": "v1",
                "kind": "Namespace",
                "metadata": {"name": name},
                "spec": {"finalizers": []},
            }
            await self._client.request("PUT", path("v1/namespaces", "", name, "finalize"), body)


def _blocks(dependent: Object, uid: str) -> bool:
    refs = dependent["metadata"].get("ownerReferences") or ()
    return any(ref["uid"] == uid and ref.get("blockOwnerDeletion") for ref in refs)
