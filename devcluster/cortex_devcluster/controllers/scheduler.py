"""Binds pods to a node, or reports why none is suitable.

Extended resources (nvidia.com/gpu) and node selectors are respected. CPU and memory requests are not: a developer's machine often
has less.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from decimal import Decimal
from typing import Any

from cortex_devcluster import quantity
from cortex_devcluster.client import Client, ControllerLoop, Informer, Key, path
from cortex_devcluster.events import Recorder
from cortex_devcluster.objects import Object, nested, now

UNCOUNTED = {"cpu", "memory", "ephemeral-storage"}


def requests(pod: Object) -> Counter[str]:
    """Return the extended resources that a pod requests."""
    total: Counter[str] = Counter()
    for container in pod["spec"]["containers"]:
        requested = {
            **(nested(container, "resources.limits") or {}),
            **(nested(container, "resources.requests") or {}),
        }
        for name, amount in requested.items():
            if name not in UNCOUNTED:
                total[name] += int(quantity.parse(amount))
    return total


def reasons_against(pod: Object, node: Object, used: Counter[str]) -> list[str]:
    """Return the reasons why a pod cannot run on a node; none if it can."""
    labels = node["metadata"].get("labels") or {}
    if any(labels.get(key) != value for key, value in (pod["spec"].get("nodeSelector") or {}).items()):
        return ["node(s) didn't match Pod's node affinity/selector"]
    if nested(node, "spec.unschedulable"):
        return ["node(s) were unschedulable"]
    allocatable = nested(node, "status.allocatable") or {}

    def free(name: str) -> Decimal:
        return quantity.parse(allocatable.get(name, 0)) - used[name]

    return [f"Insufficient {name}" for name, amount in requests(pod).items() if amount > free(name)]


class Scheduler:
    def __init__(self, client: Client) -> None:
        self._client = client
        self._pods = Informer(client, "v1/pods")
        self._nodes = Informer(client, "v1/nodes")
        self._loop = ControllerLoop("scheduler", self._schedule)
        self._events = Recorder(client, "default-scheduler")
        self._pods.listen(lambda before, after: self._enqueue(after) if after else self._enqueue_all())
        self._nodes.listen(lambda before, after: self._enqueue_all() if _matters(before, after) else None)

    def _enqueue(self, pod: Object) -> None:
        if not nested(pod, "spec.nodeName") and not pod["metadata"].get("deletionTimestamp"):
            self._loop.add(pod["metadata"]["namespace"], pod["metadata"]["name"])

    def _enqueue_all(self) -> None:
        for pod in self._pods.list():
            self._enqueue(pod)

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            for informer in (self._pods, self._nodes):
                tasks.create_task(informer.run())
                await informer.synced.wait()
            tasks.create_task(self._loop.run())

    async def _schedule(self, key: Key) -> None:
        pod = self._pods.get(*key)
        if pod is None or nested(pod, "spec.nodeName") or pod["metadata"].get("deletionTimestamp"):
            return
        used: dict[str, Counter[str]] = {}
        for other in self._pods.list():
            if nested(other, "spec.nodeName") and nested(other, "status.phase") not in (
                "Succeeded",
                "Failed",
            ):
                used.setdefault(other["spec"]["nodeName"], Counter()).update(requests(other))
        reasons: Counter[str] = Counter()
        for node in self._nodes.list():
            name = node["metadata"]["name"]
            misfits = reasons_against(pod, node, used.get(name, Counter()))
            if not misfits:
                target = {"apiVersion": "v1", "kind": "Binding", "target": {"kind": "Node", "name": name}}
                await self._client.request("POST", path("v1/pods", *key, "binding"), target)
                message = f"Successfully assigned {key[0]}/{key[1]} to {name}"
                await self._events.record(pod, "Normal", "Scheduled", message)
                return
            reasons.update(misfits)
        await self._unschedulable(key, pod, reasons)

    async def _unschedulable(self, key: Key, pod: Object, reasons: Counter[str]) -> None:
        count = len(self._nodes.list())
        reasons_text = ", ".join(f"{number} {reason}" for reason, number in sorted(reasons.items()))
        message = (
            f"0/{count} nodes are available: {reasons_text}."
            if count
            else "no nodes available to schedule pods"
        )
        before = next(
            (c for c in nested(pod, "status.conditions") or () if c["type"] == "PodScheduled"), None
        )
        if before and before.get("message") == message:
            return
        condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}
        status = {"phase": "Pending", "conditions": [{**condition, "lastTransitionTime": now()}]}
        await self._client.patch("v1/pods", *key, {"status": status}, "status")
        await self._events.record(pod, "Warning", "FailedScheduling", message)


def _matters(before: Object | None, after: Object | None) -> bool:
    """Return whether the change of a node can make a pod schedulable; a heartbeat cannot."""

    def view(node: Object | None) -> Any:
        return node and (node["metadata"].get("labels"), node.get("spec"), nested(node, "status.allocatable"))

    return bool(view(before) != view(after))
