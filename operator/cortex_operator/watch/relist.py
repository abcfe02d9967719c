"""What the watches can't tell: objects that went away while a watch was down.

After a watch has lost its place it begins with a list of what there is, and says nothing of what there is no more. So whenever a
list comes, and rarely besides, the cache is held against lists of our own.
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
log = logging.getLogger("cortex.audit")

SETTLE_DELAY = 2.0
"""Seconds from a list to the audit."""
RELIST_PERIOD = 3600.0
"""Seconds between two audits when no list comes."""


class Relister:
    """Holds the cache against the cluster."""

    def __init__(self, cache: Cache, cluster: Cluster, platform: Platform) -> None:
        self._cache = cache
        self._cluster = cluster
        self._platform = platform
        self._listed = asyncio.Event()

    def on_relist(self) -> None:
        """A watch has begun anew."""
        self._listed.set()

    async def fill_cache(self) -> None:
        """Know every child before the first API is judged: the watches begin in no order, and an API whose pods were not seen
        yet would be told to be down.
        """
        await self._children()

    async def run(self, queue: WorkQueue[Key]) -> None:
        """Audit after lists, and rarely besides, until cancelled."""
        while True:
            try:
                await asyncio.wait_for(self._listed.wait(), RELIST_PERIOD)
            except TimeoutError:
                pass
            await asyncio.sleep(SETTLE_DELAY)  # The lists of all kinds come together.
            self._listed.clear()
            try:
                for key in await self._missing():
                    queue.add(key)
            except API_ERRORS as error:
                log.warning("the cluster can't be listed, again soon: %s", error_text(error))
                self._listed.set()

    async def _missing(self) -> set[Key]:
        """Drop what is gone; returns the APIs that it concerns."""
        known = {key: self._cache.api(key) for key in self._cache.apis()}
        concerned = self._cache.drop_sources()  # They have no label to list them by.
        there: set[str] = set()
        for kind in KINDS:
            for namespace in self._namespaces():
                found = await self._cluster.list_labelled(f"{GROUP}/{VERSION}", kind, namespace, None)
                there |= {thing["metadata"]["uid"] for thing in found}
        for key, live in known.items():
            if live is not None and live["metadata"]["uid"] not in there and self._cache.api(key) is live:
                log.info("%s went unseen", key)
                concerned |= self._cache.put_api(key, live, deleted=True)
        before = {child["metadata"]["uid"]: child for key in known for child in self._cache.all_children(key)}
        present = await self._children()
        for uid, child in before.items():
            if uid not in present and (owner := self._cache.put_child(child, deleted=True)):
                concerned.add(owner)
        return concerned

    async def _children(self) -> set[str]:
        """List all children into the cache; returns their uids."""
        present = set()
        for child in (*child_kinds(self._platform), CONFIG_MAP):
            for namespace in self._namespaces():
                for thing in await self._list(child.api_version, child.kind, namespace):
                    present.add(thing["metadata"]["uid"])
                    self._cache.put_child(thing)
        return present

    async def _list(self, api_version: str, kind: str, namespace: str | None) -> list[Object]:
        try:
            return await self._cluster.list_labelled(api_version, kind, namespace, API_LABEL)
        except ApiException as error:
            if error.status not in (403, 404):
                raise
            log.warning("%s can't be listed: %s", kind, error_text(error))
            return []

    def _namespaces(self) -> tuple[str | None, ...]:
        return self._platform.watch_namespaces or (None,)
