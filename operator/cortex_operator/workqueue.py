"""A work queue of keys, as in client-go: a key that is added twice while it waits is processed once, and never concurrently with
itself. Urgent keys go first."""

import asyncio
import itertools
import logging
import time
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

from prometheus_client import Histogram

K = TypeVar("K", bound=Hashable)
log = logging.getLogger("cortex.queue")

MIN_DELAY = 0.2
MAX_DELAY = 60.0


class WorkQueue(Generic[K]):
    """Processes keys with `work`; a key whose work raises is retried after 0.2 s, 0.4 s, ... up to 60 s.

    describe: returns the text of an error for the log.
    """

    def __init__(
        self,
        work: Callable[[K], Awaitable[None]],
        workers: int = 10,
        describe: Callable[[Exception], str] = repr,
    ) -> None:
        self._work = work
        self._describe = describe
        self._workers = workers
        self._ready: asyncio.PriorityQueue[tuple[bool, int, K]] = asyncio.PriorityQueue()
        self._numbers = itertools.count()
        self._waiting: dict[K, bool] = {}
        self._running: dict[K, float] = {}
        self._added_while_running: set[K] = set()
        self._failures: dict[K, int] = {}
        self._retries: dict[K, asyncio.TimerHandle] = {}
        self._delayed: dict[K, asyncio.TimerHandle] = {}
        self.done = 0
        self.failed = 0
        self.seconds = Histogram(
            "cortex_operator_reconcile_seconds", "Duration of a reconciliation", registry=None
        )

    def add(self, key: K, urgent: bool = False) -> None:
        """Add a key. urgent: before all keys that are not, such as those of an initial list."""
        if key in self._running:
            self._added_while_running.add(key)
        elif key not in self._waiting or (urgent and not self._waiting[key]):
            self._waiting[key] = urgent
            self._ready.put_nowait((not urgent, next(self._numbers), key))

    def add_after(self, key: K, seconds: float) -> None:
        """Add a key after a number of seconds; the earliest of several times counts."""
        loop = asyncio.get_running_loop()
        known = self._delayed.get(key)
        if known is not None:
            if known.when() <= loop.time() + seconds:
                return
            known.cancel()
        self._delayed[key] = loop.call_later(seconds, self._add_after_delay, key)

    def _add_after_delay(self, key: K) -> None:
        self._delayed.pop(key, None)
        self.add(key)

    def __len__(self) -> int:
        return len(self._waiting) + len(self._added_while_running)

    def longest_running(self) -> float:
        """Return the seconds for which the longest-running work has been running."""
        return time.monotonic() - min(self._running.values()) if self._running else 0.0

    async def run(self) -> None:
        """Process keys until cancelled."""
        async with asyncio.TaskGroup() as group:
            for _ in range(self._workers):
                group.create_task(self._run_one())

    async def _run_one(self) -> None:
        while True:
            _, _, key = await self._ready.get()
            if self._waiting.pop(key, None) is None:
                continue  # It became urgent while it waited, and was processed then.
            if retry := self._retries.pop(key, None):
                retry.cancel()
            begun = self._running[key] = time.monotonic()
            try:
                await self._work(key)
                self._failures.pop(key, None)
                self.done += 1
            except Exception as error:
                self.failed += 1
                self._retry(key, error)
            finally:
                self.seconds.observe(time.monotonic() - begun)
                del self._running[key]
                if key in self._added_while_running:
                    self._added_while_running.discard(key)
                    self.add(key)

    def _retry(self, key: K, error: Exception) -> None:
        failures = self._failures[key] = self._failures.get(key, 0) + 1
        delay = min(MAX_DELAY, MIN_DELAY * 2 ** min(failures - 1, 10))
        log.warning("%s: %s; retrying in %.1f s", key, self._describe(error), delay)
        self._retries[key] = asyncio.get_running_loop().call_later(delay, self._add_after_failure, key)

    def _add_after_failure(self, key: K) -> None:
        self._retries.pop(key, None)
        self.add(key)
