"""Find objects that were deleted while a watch was interrupted.

A watch that restarts begins with a list of the existing objects and does not report deletions. So the cache is compared with
lists of our own after each restart, and once an hour. They contain metadata only.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

from kubernetes.aio.client.exceptions import ApiException

from cortex_api import GROUP, KINDS, VERSION
from cortex_api.contract import API_LABEL
from cortex_operator.cluster import API_ERRORS, Cluster, error_text
from cortex_operator.kinds import CONFIG_MAP, ChildKind, child_kinds
from cortex_operator.platform import Platform
from cortex_operator.watch.cache import Cache, Key
from cortex_operator.workqueue import WorkQueue

T = TypeVar("T")
log = logging.getLogger("cortex.relist")

SETTLE_DELAY = 2.0
"""Seconds from the start of a watch to the relist: the watches of all kinds restart together."""
RELIST_PERIOD = 3600.0
"""Seconds between two relists while no watch restarts."""


class Relister:
    """Compares the cache with the cluster."""

    def __init__(self, cache: Cache, cluster: Cluster, platform: Platform) -> None:
        self._cache = cache
        self._cluster = cluster
        self._platform = platform
        self._listed = asyncio.Event()

    def on_relist(self) -> None:
        """Schedule a relist; called when a watch starts."""
        self._listed.set()

    async def fill_cache(self) -> None:
        """List all objects of APIs before the first reconciliation, which would report an API without its pods as not ready."""
        for child in (*child_kinds(self._platform), CONFIG_MAP):
            for item in await self._list(self._cluster.list_labelled, child, API_LABEL):
                self._cache.put_child(item)

    async def run(self, queue: WorkQueue[Key]) -> None:
        """Relist after watches start, and every RELIST_PERIOD, until cancelled."""
        while True:
            try:
                await asyncio.wait_for(self._listed.wait(), RELIST_PERIOD)
            except TimeoutError:
                pass
            await asyncio.sleep(SETTLE_DELAY)
            self._listed.clear()
            try:
                for key in await self.drop_deleted():
                    queue.add(key)
            except API_ERRORS as error:
                log.warning("the relist failed and is retried: %s", error_text(error))
                self._listed.set()

    async def drop_deleted(self) -> set[Key]:
        """Drop deleted objects from the cache. Returns the APIs that must be reconciled because of it."""
        cache = self._cache
        apis = [(key, live) for key in cache.apis() if (live := cache.api(key)) is not None]
        children = [child for key, _ in apis for child in cache.all_children(key)]
        sources = cache.sources()
        existing = await self._list_uids()
        affected: set[Key] = set()
        for key, live in apis:
            if live["metadata"]["uid"] not in existing:
                log.info("%s was deleted while its watch was interrupted", key)
                affected |= cache.put_api(key, live, deleted=True)
        for child in children:
            if child["metadata"]["uid"] not in existing and (owner := cache.put_child(child, deleted=True)):
                affected.add(owner)
        for source in sources:
            if source["metadata"]["uid"] not in existing:
                affected |= cache.put_source(source, deleted=True)
        return affected

    async def _list_uids(self) -> set[str]:
        """Return the UIDs of all APIs, of their objects, and of all ConfigMaps, since those with code have no label."""
        found: set[str] = set()
        for kind in KINDS:
            for namespace in self._namespaces():
                found |= await self._cluster.list_uids(f"{GROUP}/{VERSION}", kind, namespace, None)
        for child in child_kinds(self._platform):
            found.update(await self._list(self._cluster.list_uids, child, API_LABEL))
        found.update(await self._list(self._cluster.list_uids, CONFIG_MAP, None))
        return found

    async def _list(
        self,
        function: Callable[[str, str, str | None, str | None], Awaitable[Iterable[T]]],
        child: ChildKind,
        label: str | None,
    ) -> list[T]:
        """Return the results of a list function in all namespaces; none of a kind that cannot be listed."""
        found: list[T] = []
        for namespace in self._namespaces():
            try:
                found += await function(child.api_version, child.kind, namespace, label)
            except ApiException as error:
                if error.status not in (403, 404):
                    raise
                log.warning("%s cannot be listed: %s", child.kind, error_text(error))
        return found

    def _namespaces(self) -> tuple[str | None, ...]:
        return self._platform.watch_namespaces or (None,)
