"""Events, as `kubectl describe` shows them. A repeated event is one object whose count increases."""

from __future__ import annotations

import hashlib

from cortex_devcluster.client import Client, StatusError
from cortex_devcluster.objects import Object, now


class Recorder:
    """Records the events of one component."""

    def __init__(self, client: Client, component: str) -> None:
        self._client = client
        self._component = component
        self._counts: dict[tuple[str, str], int] = {}

    async def record(self, about: Object, kind: str, reason: str, message: str, field: str = "") -> None:
        """Record an event about an object.

        kind: Normal or Warning. field: path of the container (spec.containers{api}), if the event is about one.
        """
        meta = about["metadata"]
        namespace = meta.get("namespace") or "default"
        digest = hashlib.sha1(f"{meta['uid']}{reason}{message}{field}".encode()).hexdigest()[:16]
        name = f"{meta['name']}.{digest}"
        count = self._counts[namespace, name] = self._counts.get((namespace, name), 0) + 1
        if count > 1:
            try:
                await self._client.patch(
                    "v1/events", namespace, name, {"count": count, "lastTimestamp": now()}
                )
                return
            except StatusError as error:
                if error.code != 404:
                    return  # Events are best-effort.
        involved = {
            "apiVersion": about.get("apiVersion", "v1"),
            "kind": about["kind"],
            "name": meta["name"],
            "namespace": meta.get("namespace"),
            "uid": meta["uid"],
            "resourceVersion": meta["resourceVersion"],
            **({"fieldPath": field} if field else {}),
        }
        event = {
            "metadata": {"name": name, "namespace": namespace},
            "involvedObject": involved,
            "type": kind,
            "reason": reason,
            "message": message,
            "count": count,
            "firstTimestamp": now(),
            "lastTimestamp": now(),
            "source": {"component": self._component},
            "reportingComponent": self._component,
            "reportingInstance": "",
        }
        try:
            await self._client.create("v1/events", namespace, event)
        except StatusError as error:
            if error.code not in (403, 404, 409):
                raise
