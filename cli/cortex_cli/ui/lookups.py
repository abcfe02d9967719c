"""Values that a page reads from the cluster on demand, in other threads and cached, so that no page waits for them."""

import threading
import time
from collections.abc import Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from cortex_cli.connection import ClusterError

_THREADS = 8
_KEPT_SECONDS = 120.0


@dataclass(frozen=True)
class Lookup:
    """The last result. value: None until the first result and if the first failed. error: why the last read failed, or "".

    status: the HTTP status of the error. is_known: whether a read has ended.
    """

    value: Any = None
    error: str = ""
    status: int = 0
    is_known: bool = False


class _Entry:
    def __init__(self) -> None:
        self.result = Lookup()
        self.read_at = float("-inf")
        self.asked_at = 0.0
        self.is_pending = False
        self.first = threading.Event()


class Lookups:
    """A cache of reads. on_change: called from its threads after each read with a new result."""

    def __init__(self, on_change: Callable[[], None]) -> None:
        self._on_change = on_change
        self._entries: dict[Hashable, _Entry] = {}
        self._lock = threading.Lock()
        self._threads = ThreadPoolExecutor(_THREADS, "lookup")

    def get(self, key: Hashable, read: Callable[[], Any], max_age: float = 5.0, wait: float = 0.0) -> Lookup:
        """Return the last result of `read`, and read again if it is older than `max_age` seconds.

        wait: seconds to wait for the first result.
        """
        now = time.monotonic()
        with self._lock:
            self._forget(now)
            entry = self._entries.setdefault(key, _Entry())
            entry.asked_at = now
            is_due = now - entry.read_at >= max_age and not entry.is_pending
            entry.is_pending = entry.is_pending or is_due
        if is_due:
            self._threads.submit(self._read, entry, read)
        if wait:
            entry.first.wait(wait)
        return entry.result

    def close(self) -> None:
        """End the threads. No value is read any more."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _forget(self, now: float) -> None:
        old = [
            key
            for key, entry in self._entries.items()
            if now - entry.asked_at > _KEPT_SECONDS and not entry.is_pending
        ]
        for key in old:
            del self._entries[key]

    def _read(self, entry: _Entry, read: Callable[[], Any]) -> None:
        before = entry.result
        try:
            entry.result = Lookup(read(), is_known=True)
        except ClusterError as error:
            entry.result = Lookup(before.value, error.message, error.status, True)
        except Exception as error:
            # Whatever a replica sends must not break the page.
            entry.result = Lookup(before.value, f"the response cannot be read: {error}", 0, True)
        entry.read_at = time.monotonic()
        entry.is_pending = False
        entry.first.set()
        if entry.result != before:
            self._on_change()
