"""Writes the EndpointSlice of each Service with a selector, for gateways and other clients that connect to pods directly."""

from __future__ import annotations

import asyncio
from typing import Any

from cortex_devcluster.client import Client, ControllerLoop, Informer, Key
from cortex_devcluster.objects import Object, nested, port_of, ready_condition

SLICES = "discovery.k8s.io/v1/endpointslices"


def endpoint_slice(service: Object, pods: list[Object]) -> Object:
    """Return the EndpointSlice of a Service. A named target port has the number that the first pod gives it."""
    meta = service["metadata"]
    return {
        "metadata": {
            "name": meta["name"],
            "labels": {"kubernetes.io/service-name": meta["name"]},
            "ownerReferences": [
                {"apiVersion": "v1", "kind": "Service", "name": meta["name"], "uid": meta["uid"]}
            ],
        },
        "addressType": "IPv4",
        "endpoints": [_endpoint(pod) for pod in pods],
        "ports": [port for entry in service["spec"]["ports"] if (port := _port(entry, pods))],
    }


def _endpoint(pod: Object) -> Object:
    ready, terminating = bool(ready_condition(pod)), bool(pod["metadata"].get("deletionTimestamp"))
    conditions = {"ready": ready and not terminating, "serving": ready, "terminating": terminating}
    target = {"kind": "Pod", "name": pod["metadata"]["name"], "namespace": pod["metadata"]["namespace"]}
    return {"addresses": [nested(pod, "status.podIP")], "conditions": conditions, "targetRef": target}


def _port(entry: Object, pods: list[Object]) -> Object | None:
    shown: Object = {key: entry[key] for key in ("protocol", "appProtocol") if key in entry}
    for container in (container for pod in pods for container in pod["spec"]["containers"]):
        try:
            return {"name": entry.get("name", ""), "port": port_of(entry["targetPort"], container), **shown}
        except ValueError:
            continue  # Another container has the port of this name.
    return None


class EndpointSliceController:
    def __init__(self, client: Client) -> None:
        self._client = client
        self._services = Informer(client, "v1/services")
        self._pods = Informer(client, "v1/pods")
        self._slices = Informer(client, SLICES)
        self._loop = ControllerLoop("endpoint slices", self._sync)
        self._services.listen(self._service_changed)
        self._pods.listen(self._pod_changed)

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            for informer in (self._slices, self._pods, self._services):
                tasks.create_task(informer.run())
                await informer.synced.wait()
            tasks.create_task(self._loop.run())

    def _service_changed(self, before: Object | None, after: Object | None) -> None:
        if after is not None:
            self._loop.add(after["metadata"]["namespace"], after["metadata"]["name"])

    def _pod_changed(self, before: Object | None, after: Object | None) -> None:
        views = [_view(pod) for pod in (before, after) if pod is not None]
        if len(views) == 2 and views[0] == views[1]:
            return
        namespace = (after or before or {})["metadata"]["namespace"]
        for service in self._services.list(namespace):
            if any(_selects(service, pod) for pod in (before, after) if pod is not None):
                self._loop.add(namespace, service["metadata"]["name"])

    async def _sync(self, key: Key) -> None:
        service = self._services.get(*key)
        if service is None or not nested(service, "spec.selector"):
            return  # The slice of a deleted Service is garbage-collected.
        pods = [pod for pod in self._pods.list(key[0]) if _selects(service, pod)]
        wanted = endpoint_slice(service, [pod for pod in pods if nested(pod, "status.podIP")])
        live = self._slices.get(*key)
        if live is None:
            self._slices.update(await self._client.create(SLICES, key[0], wanted))
        elif any(live.get(field) != wanted[field] for field in ("endpoints", "ports")):
            self._slices.update(await self._client.patch(SLICES, *key, wanted))


def _selects(service: Object, pod: Object) -> bool:
    labels = pod["metadata"].get("labels") or {}
    selector = nested(service, "spec.selector") or {}
    return bool(selector) and all(labels.get(name) == value for name, value in selector.items())


def _view(pod: Object) -> Any:
    """Return the part of a pod that EndpointSlices show."""
    meta = pod["metadata"]
    return (
        meta.get("labels"),
        nested(pod, "status.podIP"),
        bool(ready_condition(pod)),
        "deletionTimestamp" in meta,
    )
