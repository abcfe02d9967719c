"""What becomes of an AsyncAPI's queue when the API is deleted.

With `queue.deletionPolicy: Retain`, nothing: the operator is not even asked. With Delete, and only then, the API has a
finalizer, and its gateway is told to delete the queue and all results before the API may go.
"""

import logging
from typing import Any

import aiohttp
from kubernetes.aio.client.exceptions import ApiException

from cortex_api import AsyncAPI, RealtimeAPI
from cortex_operator.cache import Cache, Key
from cortex_operator.cluster import Cluster
from cortex_operator.failures import is_ready
from cortex_operator.render.names import ADMIN_PORT, COMPONENT_LABEL, GATEWAY
from cortex_operator.status import Problem

Object = dict[str, Any]
log = logging.getLogger("cortex.retention")

FINALIZER = "cortex.dev/queue"
TIMEOUT = 20.0
"""Seconds that the gateway has to delete a queue."""


class Retention:
    """Keeps the finalizer as `queue.deletionPolicy` says."""

    def __init__(self, cache: Cache, cluster: Cluster) -> None:
        self._cache = cache
        self._cluster = cluster

    async def hold(self, key: Key, api: RealtimeAPI | AsyncAPI, live: Object) -> Object:
        """Add the finalizer, or take it away when it is not wanted any more. Returns the resource as it is then."""
        wanted = isinstance(api, AsyncAPI) and api.spec.queue.deletion_policy == "Delete"
        finalizers = live["metadata"].get("finalizers", [])
        if wanted == (FINALIZER in finalizers):
            return live
        others = [name for name in finalizers if name != FINALIZER]
        return await self._write(key, live, [*others, FINALIZER] if wanted else others)

    async def let_go(self, key: Key, live: Object) -> Problem | None:
        """Delete the queue of an API that is being deleted, if that was asked for. Returns what keeps it from being done."""
        finalizers = live["metadata"].get("finalizers", [])
        if FINALIZER not in finalizers:
            return None
        spec = live.get("spec") or {}
        if (spec.get("queue") or {}).get("deletionPolicy") == "Delete" and not await self._deleted(key):
            return Problem(
                "Deleting",
                "queue.deletionPolicy is Delete, and no gateway answers that could delete the queue:"
                " see to the gateway's pods, or set it to Retain to let the API go and keep the queue",
            )
        await self._write(key, live, [name for name in finalizers if name != FINALIZER])
        return None

    async def _deleted(self, key: Key) -> bool:
        pods = [pod for pod in self._cache.children(key, "Pod") if is_ready(pod)]
        timeout = aiohttp.ClientTimeout(total=TIMEOUT)
        async with aiohttp.ClientSession(timeout=timeout) as session:
            for pod in pods:
                if pod["metadata"]["labels"].get(COMPONENT_LABEL) != GATEWAY:
                    continue
                host = pod["status"]["podIP"]
                address = f"http://[{host}]" if ":" in host else f"http://{host}"
                try:
                    async with session.delete(f"{address}:{ADMIN_PORT}/queue") as answer:
                        if answer.status in (200, 204):
                            return True
                        log.warning("%s: the gateway can't delete the queue: %s", key, await answer.text())
                except (aiohttp.ClientError, OSError, TimeoutError) as error:
                    log.warning("%s: the gateway does not answer: %s", key, error)
        return False

    async def _write(self, key: Key, live: Object, finalizers: list[str]) -> Object:
        try:
            written = await self._cluster.write_finalizers(live, finalizers)
        except ApiException as error:
            if error.status == 404:
                return live
            raise
        written = {**written, "apiVersion": live["apiVersion"], "kind": live["kind"]}
        if not written["metadata"].get("deletionTimestamp"):
            self._cache.put_api(key, written)
        return written
