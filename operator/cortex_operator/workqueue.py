"""A queue of keys: a key that is added again while it waits is one entry, and no key is worked on twice at the same time."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
log = logging.getLogger("cortex.queue")

FIRST_DELAY = 0.2
LAST_DELAY = 60.0


class WorkQueue(Generic[K]):
    """Works off keys with `work`; a key whose work raises comes again after 0.2 s, 0.4 s, ... up to 60 s."""

    def __init__(self, work: Callable[[K], Awaitable[None]], workers: int = 10) -> None:
        self._work = work
        self._workers = workers
        self._ready: asyncio.Queue[K] = asyncio.Queue()
        self._waiting: set[K] = set()
        self._running: set[K] = set()
        self._again: set[K] = set()
        self._failures: dict[K, int] = {}
        self.done = 0
        self.failed = 0

    def add(self, key: K) -> None:
        """Have a key worked on, soon."""
        if key in self._running:
            self._again.add(key)
        elif key not in self._waiting:
            self._waiting.add(key)
            self._ready.put_nowait(key)

    def __len__(self) -> int:
        return len(self._waiting) + len(self._again)

    async def run(self) -> None:
        """Work until cancelled."""
        async with asyncio.TaskGroup() as group:
            for _ in range(self._workers):
                group.create_task(self._run_one())

    async def _run_one(self) -> None:
        while True:
            key = await self._ready.get()
            self._waiting.discard(key)
            self._running.add(key)
            try:
                await self._work(key)
                self._failures.pop(key, None)
                self.done += 1
            except Exception as error:
                self.failed += 1
                self._retry(key, error)
            finally:
                self._running.discard(key)
                if key in self._again:
                    self._again.discard(key)
                    self.add(key)

    def _retry(self, key: K, error: Exception) -> None:
        failures = self._failures[key] = self._failures.get(key, 0) + 1
        delay = min(LAST_DELAY, FIRST_DELAY * 2 ** (failures - 1))
        log.warning("%s: %s: %s; again in %.1f s", key, type(error).__name__, error, delay)
        asyncio.get_running_loop().call_later(delay, self.add, key)
