"""How far downloads are: counted by the threads that download, told in the log now and then and in readiness."""

import logging
import threading
import time
from collections.abc import Callable

from cortex_runtime.errors import Stopped

log = logging.getLogger("cortex")

_LOG_SECONDS = 5.0


class Progress:
    """One download. total: bytes, None when a server doesn't tell. stop: when it is set, the next `add` raises Stopped."""

    def __init__(self, what: str, total: int | None, stop: threading.Event | None = None) -> None:
        self.what = what
        self._total = total
        self._done = 0
        self._stop = stop
        self._failed = False
        self._lock = threading.Lock()
        self._began = self._said = time.monotonic()

    def add(self, size: int) -> None:
        """So many more bytes are here; negative when a part is fetched again. Raises Stopped."""
        if self._failed or (self._stop is not None and self._stop.is_set()):
            raise Stopped
        now = time.monotonic()
        with self._lock:
            self._done += size
            due = now - self._said >= _LOG_SECONDS
            if due:
                self._said = now
        if due:
            log.info("%s", self)

    def fail(self) -> None:
        """A part has failed for good: let the others end, by Stopped."""
        self._failed = True

    def wait(self, seconds: float) -> None:
        """Pause before another attempt. Raises Stopped."""
        if self._stop is None:
            time.sleep(seconds)
        elif self._stop.wait(seconds):
            raise Stopped

    def finished(self) -> None:
        """Say in the log that it is over."""
        seconds = max(time.monotonic() - self._began, 1e-3)
        log.info(
            "%s: done, %s in %.1f s (%s/s)",
            self.what,
            size_in_words(self._done),
            seconds,
            size_in_words(int(self._done / seconds)),
        )

    def __str__(self) -> str:
        done = self._done
        if self._total is None:
            return f"{self.what}: {size_in_words(done)}"
        unit, name = _unit(self._total)
        return f"{self.what}: {done / unit:.0f} of {self._total / unit:.0f} {name}"


class RunningDownloads:
    """The downloads under way, for readiness."""

    def __init__(self) -> None:
        self._running: list[Progress] = []

    def run(self, progress: Progress, work: Callable[[Progress], None]) -> None:
        """Do the work while its progress is shown."""
        self._running.append(progress)
        try:
            work(progress)
        finally:
            self._running.remove(progress)

    def __str__(self) -> str:
        running = self._running[:]
        if not running:
            return ""
        return str(running[0]) + (f" (and {len(running) - 1} more)" if len(running) > 1 else "")


def size_in_words(size: int) -> str:
    """Bytes as "12 kB", "800 MB"."""
    unit, name = _unit(size)
    return f"{size / unit:.0f} {name}"


def _unit(size: int) -> tuple[int, str]:
    for unit, name in ((10**9, "GB"), (10**6, "MB"), (10**3, "kB")):
        if size >= 10 * unit:
            return unit, name
    return (1, "bytes") if size < 1000 else ((10**3, "kB") if size < 10**6 else (10**6, "MB"))
