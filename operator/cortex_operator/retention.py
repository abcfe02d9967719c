"""What becomes of an AsyncAPI's queue when the API is deleted.

With `queue.deletionPolicy: Retain`, nothing: the operator is not even asked. With Delete, and only then, the API has a
finalizer: its pods end, a pod removes the queue with all jobs and results, and then the API may go.
"""

import logging
from typing import Any

from kubernetes.aio.client.exceptions import ApiException

from cortex_api import AsyncAPI, InvalidManifest, RealtimeAPI, parse
from cortex_operator import failures
from cortex_operator.cache import Cache, Key
from cortex_operator.cluster import Cluster, ends_namespace
from cortex_operator.platform import Platform
from cortex_operator.render import destroy
from cortex_operator.render.names import DESTROY, child_name, finish
from cortex_operator.status import Problem, component_of

Object = dict[str, Any]
log = logging.getLogger("cortex.retention")

FINALIZER = "cortex.dev/queue"


class Retention:
    """Keeps the finalizer as `queue.deletionPolicy` says, and the promise behind it."""

    def __init__(self, cache: Cache, cluster: Cluster, platform: Platform) -> None:
        self._cache = cache
        self._cluster = cluster
        self._platform = platform

    async def hold(self, key: Key, api: RealtimeAPI | AsyncAPI, live: Object) -> Object:
        """Add the finalizer, or take it away when it is not wanted any more. Returns the resource as it is then."""
        wanted = isinstance(api, AsyncAPI) and api.spec.queue.deletion_policy == "Delete"
        finalizers = live["metadata"].get("finalizers", [])
        if wanted == (FINALIZER in finalizers):
            return live
        others = [name for name in finalizers if name != FINALIZER]
        return await self._write(key, live, [*others, FINALIZER] if wanted else others)

    async def let_go(self, key: Key, live: Object) -> Problem | None:
        """Remove the queue of an API that is being deleted, if that was asked for. Returns what it still waits for; a watch
        event follows when that has changed.
        """
        finalizers = live["metadata"].get("finalizers", [])
        if FINALIZER not in finalizers:
            return None
        if waits_for := await self._remove(key, live):
            return Problem("Deleting", waits_for)
        await self._write(key, live, [name for name in finalizers if name != FINALIZER])
        return None

    async def _remove(self, key: Key, live: Object) -> str | None:
        try:
            api = parse(live)
        except InvalidManifest:
            return None  # It never had a queue that we could name.
        if not isinstance(api, AsyncAPI) or api.spec.queue.deletion_policy != "Delete":
            return None
        if self._platform.queue is None:
            return "the queue can't be removed, for this cluster has none: set queue.url in the values of the chart"
        for deployment in self._cache.children(key, "Deployment"):
            await self._cluster.delete({**deployment, "apiVersion": "apps/v1"})
        pods = self._cache.children(key, "Pod")
        if any(component_of(pod) != DESTROY for pod in pods):
            return "its pods end, then its queue is removed (queue.deletionPolicy: Delete)"
        name = child_name(api, DESTROY)
        pod = self._cache.child(key, "Pod", name) or await self._cluster.get("v1", "Pod", key.namespace, name)
        if pod is None:
            try:
                await self._cluster.create(finish(api, destroy.render(api, self._platform)))
            except ApiException as error:
                if not ends_namespace(error):
                    raise
                log.warning("%s goes with its namespace: its queue stays", key)
                return None
        elif pod.get("status", {}).get("phase") == "Succeeded":
            return None
        elif failure := failures.of_pod(pod):
            hint = "queue.deletionPolicy: Retain lets the API go and keeps the queue"
            return f"its queue can't be removed: {failure.message} ({hint})"
        return "its queue is being removed (queue.deletionPolicy: Delete)"

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
