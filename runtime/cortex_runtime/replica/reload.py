"""Changes of a project's files, for `--reload`. None is missed: not even one that comes before the watch has begun."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

from watchfiles import Change, DefaultFilter, awatch

Snapshot = dict[str, tuple[int, int]]
_LOOK = 500
"""Milliseconds after which the watch says that it has begun when nothing has changed."""


def snapshot(paths: set[Path]) -> Snapshot:
    """Each file at or below these paths that a change of counts, with its time in ns and its size in bytes."""
    counts = DefaultFilter()
    found = {}
    for path in paths:
        for file in (path, *path.rglob("*")) if path.is_dir() else (path,):
            if counts(Change.modified, str(file)) and file.is_file():
                about = file.stat()
                found[str(file)] = (about.st_mtime_ns, about.st_size)
    return found


async def changes(paths: set[Path], before: Snapshot, stop: asyncio.Event) -> AsyncIterator[None]:
    """Gives something each time when files have changed, since `before` the first time, until told to stop."""
    begun = False
    async for changed in awatch(*paths, stop_event=stop, yield_on_timeout=True, rust_timeout=_LOOK):
        if changed or (not begun and await asyncio.to_thread(snapshot, paths) != before):
            yield
        begun = True
