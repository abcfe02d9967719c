"""Find objects that were deleted while a watch was interrupted.

A watch that restarts begins with a list of the existing objects and does not report deletions. So the cache is compared with
lists of our own after each restart, and once an hour.
"""

import asyncio
import logging
from typing import Any

from kubernetes.aio.client.exceptions import ApiException

from cortex_api import GROUP, KINDS, VERSION
from cortex_api.contract import API_LABEL
from cortex_operator.cluster import API_ERRORS, Cluster, error_text
from cortex_operator.kinds import CONFIG_MAP, child_kinds
from cortex_operator.platform import Platform
from cortex_operator.watch.cache import Cache, Key
from cortex_operator.workqueue import WorkQueue

Object = dict[str, Any]
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
        await self._list_children()

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
                for key in await self._drop_deleted():
                    queue.add(key)
            except API_ERRORS as error:
                log.warning("the relist failed and is retried: %s", error_text(error))
                self._listed.set()

    async def _drop_deleted(self) -> set[Key]:
        """Drop deleted objects from the cache. Returns the APIs that must be reconciled because of it."""
        known = {key: self._cache.api(key) for key in self._cache.apis()}
        affected = self._cache.drop_sources()  # They have no label that a list could select.
        existing: set[str] = set()
        for kind in KINDS:
            for namespace in self._namespaces():
                found = await self._cluster.list_labelled(f"{GROUP}/{VERSION}", kind, namespace, None)
                existing |= {item["metadata"]["uid"] for item in found}
        for key, live in known.items():
            if live is not None and live["metadata"]["uid"] not in existing and self._cache.api(key) is live:
                log.info("%s was deleted while its watch was interrupted", key)
                affected |= self._cache.put_api(key, live, deleted=True)
        before = {child["metadata"]["uid"]: child for key in known for child in self._cache.all_children(key)}
        present = await self._list_children()
        for uid, child in before.items():
            if uid not in present and (owner := self._cache.put_child(child, deleted=True)):
                affected.add(owner)
        return affected

    async def _list_children(self) -> set[str]:
        """Put all objects of APIs into the cache. Returns their UIDs."""
        present = set()
        for child in (*child_kinds(self._platform), CONFIG_MAP):
            for namespace in self._namespaces():
                for item in await self._list(child.api_version, child.kind, namespace):
                    present.add(item["metadata"]["uid"])
                    self._cache.put_child(item)
        return present

    async def _list(self, api_version: str, kind: str, namespace: str | None) -> list[Object]:
        try:
            return await self._cluster.list_labelled(api_version, kind, namespace, API_LABEL)
        except ApiException as error:
            if error.status not in (403, 404):
                raise
            log.warning("%s cannot be listed: %s", kind, error_text(error))
            return []

    def _namespaces(self) -> tuple[str | None, ...]:
        return self._platform.watch_namespaces or (None,)
