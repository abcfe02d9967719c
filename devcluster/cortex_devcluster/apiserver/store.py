"""The dev cluster's memory: objects by kind and namespace, one global resource version, and the log that watches read.

Used by the registry only. Stored objects are never changed in place: a write puts a new object where the old one was, so
whoever holds one may keep it. Everything runs on one event loop, which makes every method atomic.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass

from cortex_devcluster.objects import Object

HISTORY = 4096
"""Changes kept per kind for watches that resume; older resource versions get 410 Gone."""


class HistoryExpired(Exception):
    """The resource version asked for is older than the history kept."""


@dataclass(frozen=True)
class Change:
    """One write: `before` is None for a creation, `after` is what a watch shows (for a deletion the last state)."""

    version: int
    type: str  # ADDED, MODIFIED, DELETED
    before: Object | None
    after: Object


class Store:
    """Objects of every kind, keyed `group/plural` → namespace ("" for cluster-scoped kinds) → name."""

    def __init__(self) -> None:
        self.version = 1
        self._objects: dict[str, dict[str, dict[str, Object]]] = defaultdict(lambda: defaultdict(dict))
        self._history: dict[str, deque[Change]] = defaultdict(lambda: deque(maxlen=HISTORY))
        self._oldest_lost: dict[str, int] = defaultdict(int)
        self._watchers: dict[str, set[asyncio.Queue[Change | None]]] = defaultdict(set)

    def get(self, kind: str, namespace: str, name: str) -> Object | None:
        return self._objects[kind][namespace].get(name)

    def list(self, kind: str, namespace: str = "") -> list[Object]:
        """All objects of a kind, or those of one namespace, ordered by namespace and name."""
        spaces = self._objects[kind]
        names = [namespace] if namespace else sorted(spaces)
        return [spaces[space][name] for space in names for name in sorted(spaces.get(space, ()))]

    def put(self, kind: str, namespace: str, name: str, obj: Object) -> Object:
        """Writes `obj` (which the store owns from now on) with the next resource version."""
        before = self._objects[kind][namespace].get(name)
        self.version += 1
        obj["metadata"]["resourceVersion"] = str(self.version)
        self._objects[kind][namespace][name] = obj
        self._publish(kind, Change(self.version, "MODIFIED" if before else "ADDED", before, obj))
        return obj

    def remove(self, kind: str, namespace: str, name: str) -> Object:
        """Takes an object out; its last state carries the version of the deletion."""
        before = self._objects[kind][namespace].pop(name)
        self.version += 1
        after = {**before, "metadata": {**before["metadata"], "resourceVersion": str(self.version)}}
        self._publish(kind, Change(self.version, "DELETED", before, after))
        return after

    def drop_kind(self, kind: str) -> None:
        """Forgets a kind that is no longer served and ends its watches."""
        self._objects.pop(kind, None)
        self._history.pop(kind, None)
        for queue in self._watchers.pop(kind, set()):
            queue.put_nowait(None)

    def _publish(self, kind: str, change: Change) -> None:
        history = self._history[kind]
        if len(history) == HISTORY:
            self._oldest_lost[kind] = history[0].version
        history.append(change)
        for queue in self._watchers[kind]:
            queue.put_nowait(change)

    def changes_since(self, kind: str, version: int) -> Iterator[Change]:
        """Changes after `version`. Raises Expired when some of them are no longer kept."""
        if version < self._oldest_lost[kind]:
            raise HistoryExpired(f"too old resource version: {version} ({self._oldest_lost[kind]})")
        return (change for change in tuple(self._history[kind]) if change.version > version)

    def subscribe(self, kind: str) -> tuple[asyncio.Queue[Change | None], Callable[[], None]]:
        """A queue of all further changes (None: the kind is gone) and the function that ends it."""
        queue: asyncio.Queue[Change | None] = asyncio.Queue()
        self._watchers[kind].add(queue)
        return queue, lambda: self._watchers[kind].discard(queue)

    def close(self) -> None:
        """Ends every watch."""
        for queues in self._watchers.values():
            for queue in queues:
                queue.put_nowait(None)


async def changes_until(
    queue: asyncio.Queue[Change | None], interval: float, deadline: float
) -> AsyncIterator[Change | None]:
    """Changes as they come; None whenever `interval` seconds passed without one; ends at `deadline` (loop time)."""
    loop = asyncio.get_running_loop()
    while (left := deadline - loop.time()) > 0:
        try:
            change = await asyncio.wait_for(queue.get(), min(interval, left))
        except TimeoutError:
            yield None
            continue
        if change is None:
            return
        yield change
