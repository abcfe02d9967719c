"""Every watch event goes into the cache, and the API that it concerns into the work queue.

A watch begins with a list and does not report what was deleted before. So the list is compared with the cache.
"""

import logging
from collections.abc import AsyncIterable, Mapping
from typing import Any

from kopf._cogs.clients.watching import Bookmark

from cortex_operator.kinds import API_KINDS, CONFIG_MAP, ObjectKind
from cortex_operator.watch.cache import Cache, Key
from cortex_operator.workqueue import WorkQueue

Object = dict[str, Any]
log = logging.getLogger("cortex.watch")


class EventHandler:
    """Handles the events of all watches."""

    def __init__(self, cache: Cache, queue: WorkQueue[Key]) -> None:
        self._cache = cache
        self._queue = queue

    async def follow(
        self, kind: ObjectKind, namespace: str | None, events: AsyncIterable[Bookmark | Mapping[str, Any]]
    ) -> None:
        """Handle the events of one watch until it ends: a list of the existing objects (events without a type), a bookmark, and
        the changes. namespace: the watched namespace; None: all.
        """
        known = self._cache.objects(kind.kind, namespace)
        listed: set[str | None] = set()
        async for event in events:
            if isinstance(event, Bookmark):
                for thing in known:
                    if thing["metadata"].get("uid") not in listed:
                        self._put(kind, thing, deleted=True)
                known, listed = [], set()
            elif event["type"] != "BOOKMARK":
                if event["type"] is None:
                    listed.add(event["object"]["metadata"].get("uid"))
                try:
                    self._put(kind, event["object"], event["type"] == "DELETED")
                except Exception:  # One object must not stop the watch of all others.
                    log.exception("an event of %s cannot be handled: %s", kind.kind, event)

    def _put(self, kind: ObjectKind, thing: Object, deleted: bool) -> None:
        live = {**thing, "apiVersion": kind.api_version, "kind": kind.kind}
        if kind in API_KINDS:
            key = Key(kind.kind, live["metadata"]["namespace"], live["metadata"]["name"])
            for affected in self._cache.put_api(key, live, deleted):
                self._queue.add(affected, urgent=affected == key and _is_awaited(live))
            return
        if owner := self._cache.put_child(live, deleted):
            self._queue.add(owner)
        if kind == CONFIG_MAP:
            for key in self._cache.put_source(live, deleted):
                self._queue.add(key)


def _is_awaited(live: Mapping[str, Any]) -> bool:
    """Return whether the status is of an older generation: a user may wait for this one."""
    observed = live.get("status", {}).get("observedGeneration")
    return bool(observed != live["metadata"].get("generation"))
