"""Watches the files of a project, for `--reload`. Changes between a snapshot and the start of the watch are not missed."""

import asyncio
import contextlib
import os
import stat
from collections.abc import AsyncIterator
from pathlib import Path

from watchfiles import Change, DefaultFilter, awatch

Snapshot = dict[str, tuple[int, int]]
_TIMEOUT_MS = 500
"""Milliseconds without a change after which the watch yields once, to compare with the snapshot."""


class _Filter(DefaultFilter):
    """Ignores what is usually no code, the files that this process writes its log lines to, and one more file."""

    def __init__(self, ignored: Path | None = None) -> None:
        super().__init__()
        self._ignored = str(ignored)
        outputs = (os.fstat(descriptor) for descriptor in (1, 2))
        self._outputs = [output for output in outputs if stat.S_ISREG(output.st_mode)]

    def __call__(self, change: Change, path: str) -> bool:
        """Return whether a change counts."""
        if path == self._ignored or not super().__call__(change, path):
            return False
        return not (self._outputs and self._is_output(path))

    def _is_output(self, path: str) -> bool:
        try:
            file = os.stat(path)
        except OSError:
            return False
        return any(os.path.samestat(file, output) for output in self._outputs)


def snapshot(paths: set[Path], ignored: Path | None = None) -> Snapshot:
    """Return the watched files at or below these paths, each with its modification time in ns and size in bytes."""
    counts = _Filter(ignored)
    found = {}
    for path in paths:
        # Unlike rglob, walk tolerates a folder that is deleted meanwhile.
        below = (os.path.join(folder, name) for folder, _, names in os.walk(path) for name in names)
        for file in (str(path), *below):
            if counts(Change.modified, file):
                with contextlib.suppress(OSError):
                    about = os.stat(file)
                    if stat.S_ISREG(about.st_mode):
                        found[file] = (about.st_mtime_ns, about.st_size)
    return found


async def changes(
    paths: set[Path], before: Snapshot, stop: asyncio.Event, ignored: Path | None = None
) -> AsyncIterator[None]:
    """Yield after each change of the files, the first time also for changes since `before`, until `stop` is set.

    ignored: a file whose changes do not count.
    """
    begun = False
    async for changed in awatch(
        *paths,
        watch_filter=_Filter(ignored),
        stop_event=stop,
        yield_on_timeout=True,
        rust_timeout=_TIMEOUT_MS,
    ):
        if changed or (not begun and await asyncio.to_thread(snapshot, paths, ignored) != before):
            yield
        begun = True
