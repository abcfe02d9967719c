"""A queue of keys: a key that is added again while it waits is worked on once, and no key twice at the same time. Urgent ones go
first."""

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
    """Works off keys with `work`; a key whose work raises comes again after 0.2 s, 0.4 s, ... up to 60 s.

    describe: puts an error into words for the log.
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
        self._again: set[K] = set()
        self._failures: dict[K, int] = {}
        self._retries: dict[K, asyncio.TimerHandle] = {}
        self._later: dict[K, asyncio.TimerHandle] = {}
        self.done = 0
        self.failed = 0
        self.seconds = Histogram(
            "cortex_operator_reconcile_seconds", "Duration of a reconciliation", registry=None
        )

    def add(self, key: K, urgent: bool = False) -> None:
        """Have a key worked on, soon. urgent: before all that are not, such as those which a new watch has listed."""
        if key in self._running:
            self._again.add(key)
        elif key not in self._waiting or (urgent and not self._waiting[key]):
            self._waiting[key] = urgent
            self._ready.put_nowait((not urgent, next(self._numbers), key))

    def add_after(self, key: K, seconds: float) -> None:
        """Have a key worked on once so many seconds have passed; of several such times the earliest counts."""
        loop = asyncio.get_running_loop()
        known = self._later.get(key)
        if known is not None:
            if known.when() <= loop.time() + seconds:
                return
            known.cancel()
        self._later[key] = loop.call_later(seconds, self._add_after_delay, key)

    def _add_after_delay(self, key: K) -> None:
        self._later.pop(key, None)
        self.add(key)

    def __len__(self) -> int:
        return len(self._waiting) + len(self._again)

    def longest_running(self) -> float:
        """Seconds for which the oldest piece of work has been going on."""
        return time.monotonic() - min(self._running.values()) if self._running else 0.0

    async def run(self) -> None:
        """Work until cancelled."""
        async with asyncio.TaskGroup() as group:
            for _ in range(self._workers):
                group.create_task(self._run_one())

    async def _run_one(self) -> None:
        while True:
            _, _, key = await self._ready.get()
            if self._waiting.pop(key, None) is None:
                continue  # it got urgent while it waited, and has been worked on
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
                if key in self._again:
                    self._again.discard(key)
                    self.add(key)

    def _retry(self, key: K, error: Exception) -> None:
        failures = self._failures[key] = self._failures.get(key, 0) + 1
        delay = min(MAX_DELAY, MIN_DELAY * 2 ** min(failures - 1, 10))
        log.warning("%s: %s; again in %.1f s", key, self._describe(error), delay)
        self._retries[key] = asyncio.get_running_loop().call_later(delay, self._add_after_failure, key)

    def _add_after_failure(self, key: K) -> None:
        self._retries.pop(key, None)
        self.add(key)
