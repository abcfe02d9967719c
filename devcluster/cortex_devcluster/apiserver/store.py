"""The in-memory store: objects by kind, namespace and name, one global resource version, and the history that watches read.

Stored objects are immutable: a write replaces the object. All methods run on one event loop, which makes each of them atomic.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass

from cortex_devcluster.objects import Object

HISTORY = 4096
"""Changes kept for each kind. A watch from before them receives 410 Gone."""


class HistoryExpired(Exception):
    """The requested resource version is older than the history."""


@dataclass(frozen=True)
class Change:
    """One write. before: None for a creation. after: for a deletion, the last state of the object."""

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
        """Return the objects of a kind in one namespace, or in all, ordered by namespace and name."""
        spaces = self._objects[kind]
        names = [namespace] if namespace else sorted(spaces)
        return [spaces[space][name] for space in names for name in sorted(spaces.get(space, ()))]

    def put(self, kind: str, namespace: str, name: str, obj: Object) -> Object:
        """Store an object under the next resource version, which is set in it. The caller must not change it afterwards."""
        before = self._objects[kind][namespace].get(name)
        self.version += 1
        obj["metadata"]["resourceVersion"] = str(self.version)
        self._objects[kind][namespace][name] = obj
        self._publish(kind, Change(self.version, "MODIFIED" if before else "ADDED", before, obj))
        return obj

    def remove(self, kind: str, namespace: str, name: str) -> Object:
        """Remove an object and return its last state, with the resource version of the deletion."""
        before = self._objects[kind][namespace].pop(name)
        self.version += 1
        after = {**before, "metadata": {**before["metadata"], "resourceVersion": str(self.version)}}
        self._publish(kind, Change(self.version, "DELETED", before, after))
        return after

    def drop_kind(self, kind: str) -> None:
        """Remove a kind that is no longer served, and end its watches."""
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
        """Return the changes after a version. Raises HistoryExpired if some of them are no longer kept."""
        if version < self._oldest_lost[kind]:
            raise HistoryExpired(f"too old resource version: {version} ({self._oldest_lost[kind]})")
        return (change for change in tuple(self._history[kind]) if change.version > version)

    def subscribe(self, kind: str) -> tuple[asyncio.Queue[Change | None], Callable[[], None]]:
        """Return a queue of all further changes, and a function that ends it. None in the queue ends the watch."""
        queue: asyncio.Queue[Change | None] = asyncio.Queue()
        self._watchers[kind].add(queue)
        return queue, lambda: self._watchers[kind].discard(queue)

    def close(self) -> None:
        """End every watch."""
        for queues in self._watchers.values():
            for queue in queues:
                queue.put_nowait(None)


async def changes_until(
    queue: asyncio.Queue[Change | None], interval: float, deadline: float
) -> AsyncIterator[Change | None]:
    """Yield changes until `deadline` (loop time), and None after each `interval` seconds without a change."""
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
