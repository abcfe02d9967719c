"""The progress of downloads. Downloading threads count bytes; the progress is logged and is part of readiness."""

import logging
import threading
import time
from collections.abc import Callable

from cortex_runtime.errors import Stopped

log = logging.getLogger("cortex")

_LOG_SECONDS = 5.0


class Progress:
    """One download. total: bytes; None if unknown. stop: once it is set, the next `add` raises Stopped."""

    def __init__(self, what: str, total: int | None, stop: threading.Event | None = None) -> None:
        self.what = what
        self._total = total
        self._done = 0
        self._stop = stop
        self._failed = False
        self._lock = threading.Lock()
        self._began = self._logged = time.monotonic()

    def add(self, size: int) -> None:
        """Count downloaded bytes; negative if a part is downloaded again. Raises Stopped."""
        if self._failed or (self._stop is not None and self._stop.is_set()):
            raise Stopped
        now = time.monotonic()
        with self._lock:
            self._done += size
            due = now - self._logged >= _LOG_SECONDS
            if due:
                self._logged = now
        if due:
            log.info("%s", self)

    def fail(self) -> None:
        """Stop the other parts of the download, by Stopped, because one has failed."""
        self._failed = True

    def wait(self, seconds: float) -> None:
        """Pause before the next attempt. Raises Stopped."""
        if self._stop is None:
            time.sleep(seconds)
        elif self._stop.wait(seconds):
            raise Stopped

    def finished(self) -> None:
        """Log that the download is complete."""
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
    """The running downloads, for readiness."""

    def __init__(self) -> None:
        self._running: list[Progress] = []

    def run(self, progress: Progress, work: Callable[[Progress], None]) -> None:
        """Run a download, and include it in readiness meanwhile."""
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
    """Return a number of bytes as "12 kB", "800 MB"."""
    unit, name = _unit(size)
    return f"{size / unit:.0f} {name}"


def _unit(size: int) -> tuple[int, str]:
    for unit, name in ((10**9, "GB"), (10**6, "MB"), (10**3, "kB")):
        if size >= 10 * unit:
            return unit, name
    return (1, "bytes") if size < 1000 else ((10**3, "kB") if size < 10**6 else (10**6, "MB"))
