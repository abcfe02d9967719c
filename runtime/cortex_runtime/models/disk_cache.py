"""The downloaded models in the folder of models. The supervisor, its workers and pods with a shared volume use it together.

    <name>/<stamp>/<version>/...   complete, and never changed again
    .incoming/<stamp>/             being downloaded; renamed to the above when complete
    .locks/<stamp>                 a lock: exclusive to download or remove, shared to read
    .loaded/<stamp>                exists if a process has loaded the version

The limit on the number of versions on disk is applied before a download: the least recently used are removed first, and those in
memory last.
"""

import contextlib
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from cortex_runtime.errors import StartError
from cortex_runtime.models import folder_layout
from cortex_runtime.models.catalog import IndexedVersion
from cortex_runtime.models.download_progress import Progress, size_in_words
from cortex_runtime.models.file_locks import Busy, locked, sleep
from cortex_runtime.models.sources import open_source
from cortex_runtime.models.sources.base import Changed, Entry, Source, require_safe

_FILES_AT_ONCE = 4
_GRACE_SECONDS = 600.0


class DiskCacheFull(Exception):
    """All versions that the limit allows on disk are being downloaded or loaded."""


class DiskCache:
    """The folder of models.

    kind: spec.handler.type. index: the path of this API's index. limit: number of versions of this API on disk; None: unlimited.
    in_memory: returns the stamps of the models that this process has loaded.
    """

    def __init__(self, models: Path, project: Path, kind: str, index: Path, limit: int | None = None) -> None:
        self._models = models
        self._project = project
        self._kind = kind
        self._index = index
        self._limit = limit
        self.in_memory: Callable[[], set[str]] = set
        self._incoming = models / ".incoming"
        self._locks = models / ".locks"
        self._loaded = models / ".loaded"

    @property
    def is_unlimited(self) -> bool:
        """Whether there is no limit."""
        return self._limit is None

    def prepare(self) -> None:
        """Create the folders. Raises StartError (ModelsUnwritable)."""
        try:
            for folder in (self._models, self._incoming, self._locks, self._loaded):
                folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StartError(
                "ModelsUnwritable", f"failed to write to the folder of models {self._models}: {error}"
            ) from error

    def has(self, item: IndexedVersion) -> bool:
        """Return whether the files of a version are on disk."""
        return item.is_local or self._content(item).is_dir()

    @contextlib.contextmanager
    def reading(self, item: IndexedVersion, wait: Callable[[float], object] = sleep) -> Iterator[None]:
        """Protect the files of a version from removal. Raises FileNotFoundError if they are not on disk."""
        if item.is_local:
            yield
            return
        content = self._content(item)
        with locked(self._lock(item.stamp), shared=True, wait=wait):
            _touch(content)
            yield

    def fetch(self, item: IndexedVersion, progress: Progress) -> None:
        """Download the files of a version unless they are on disk.

        Raises StartError, Changed (the files at the source have changed), DiskCacheFull and Stopped.
        """
        if self.has(item):
            return
        with locked(self._lock(item.stamp), wait=progress.wait):
            if self.has(item):
                return
            incoming = self._incoming / item.stamp
            with locked(self._locks / "room", wait=progress.wait):
                self._make_room(item)
                # A killed process may have left an incomplete download.
                shutil.rmtree(incoming, ignore_errors=True)
                incoming.mkdir()
            try:
                self._download(item, incoming, progress)
                content = self._content(item)
                content.parent.mkdir(exist_ok=True)
                _sync_folders(incoming / "complete")
                (incoming / "complete").rename(content)
                sync_folder(content.parent)
            except OSError as error:
                raise StartError("ModelsUnwritable", f"failed to write {item.label}: {error}") from error
            finally:
                shutil.rmtree(incoming, ignore_errors=True)
        progress.finished()

    def _download(self, item: IndexedVersion, incoming: Path, progress: Progress) -> None:
        source = open_source(item.location, self._project, progress.wait)
        listing = source.listing(item.prefix)
        entries = [entry for entry in listing.entries if entry.name.startswith(item.prefix)]
        if stamp_of(self._kind, item.location, item.prefix, entries) != item.stamp:
            raise Changed
        free = shutil.disk_usage(self._models).free
        if item.size > free:
            sizes = f"{size_in_words(item.size)} in {self._models}; {size_in_words(free)} are free"
            raise StartError("ModelsUnwritable", f"{item.label} requires {sizes}")
        version = incoming / "complete" / str(item.version)
        if item.archive is None:
            download(source, entries, item.prefix, version, progress)
            return
        from cortex_runtime.models import archive

        packed = incoming / "packed"
        download(source, entries, item.prefix, packed, progress)
        unpacked = incoming / "unpacked"
        archive.unpack(packed / item.archive, unpacked, source.shown)
        names = [
            path.relative_to(unpacked).as_posix() for path in sorted(unpacked.rglob("*")) if path.is_file()
        ]
        root = folder_layout.root_of(self._kind, names)
        inside = [name.removeprefix(root) for name in names]
        if wrong := folder_layout.check(self._kind, inside):
            raise StartError("ModelInvalid", folder_layout.describe(self._kind, inside, source.shown, wrong))
        version.parent.mkdir(parents=True)
        (unpacked / root).rename(version)

    def _make_room(self, item: IndexedVersion) -> None:
        """Remove versions until one more is within the limit. Raises DiskCacheFull."""
        if self._limit is None:
            return
        loaded = self.in_memory()
        others = _referenced(path for path in self._indexes() if path != self._index)
        own = [path for path in self._contents() if path.name not in others]
        own.sort(key=lambda path: (path.name in loaded, path.stat().st_mtime))
        fetching = sum(
            1 for path in self._incoming.iterdir() if self._is_locked(path.name) and path.name != item.stamp
        )
        excess = len(own) + fetching + 1 - self._limit
        for path in own:
            if excess <= 0:
                break
            excess -= self._remove(path)
        if excess > 0:
            raise DiskCacheFull

    def start_grace_period(self, items: Iterable[IndexedVersion]) -> None:
        """Start the grace period of versions that are leaving the index, during which processes may still use them."""
        for item in items:
            if not item.is_local:
                with contextlib.suppress(FileNotFoundError):
                    _touch(self._content(item))

    def remove_unused(self) -> None:
        """Remove versions that no index lists and whose grace period is over."""
        wanted = _referenced(self._indexes())
        for path in [*self._contents(), *self._incoming.iterdir()]:
            with contextlib.suppress(FileNotFoundError):
                if path.name not in wanted and time.time() - path.stat().st_mtime > _GRACE_SECONDS:
                    self._remove(path)

    def is_loadable(self, item: IndexedVersion) -> bool:
        """Return whether a process has loaded the version since its download."""
        return (self._loaded / item.stamp).exists()

    def mark_loadable(self, item: IndexedVersion) -> None:
        """Record that a process has loaded the version."""
        if not item.is_local:
            (self._loaded / item.stamp).touch()

    def _remove(self, path: Path) -> bool:
        lock = self._lock(path.name)
        try:
            with locked(lock):
                # Renamed first, so that no process finds an incomplete version.
                removed = self._incoming / f"{path.name}-removed"
                path.rename(removed)
                (self._loaded / path.name).unlink(missing_ok=True)
                lock.unlink()
        except (Busy, FileNotFoundError):
            return False
        shutil.rmtree(removed, ignore_errors=True)
        with contextlib.suppress(OSError):
            path.parent.rmdir()
        return True

    def _contents(self) -> list[Path]:
        """Return the versions on disk. Each has a lock from its download; anything else in the folder belongs to the user."""
        names = [
            entry for entry in self._models.iterdir() if entry.is_dir() and not entry.name.startswith(".")
        ]
        return [content for name in names for content in name.iterdir() if self._lock(content.name).is_file()]

    def _indexes(self) -> Iterable[Path]:
        return self._models.glob("index-*.json")

    def _content(self, item: IndexedVersion) -> Path:
        return self._models / item.name / item.stamp

    def _lock(self, stamp: str) -> Path:
        return self._locks / stamp

    def _is_locked(self, stamp: str) -> bool:
        try:
            with locked(self._lock(stamp)):
                return False
        except Busy:
            return True


def download(source: Source, entries: list[Entry], prefix: str, into: Path, progress: Progress) -> None:
    """Download entries into a new folder, without the prefix of their names. Raises the first error after all have ended."""
    into.mkdir(parents=True)

    def one(entry: Entry) -> None:
        try:
            target = into / require_safe(entry.name.removeprefix(prefix), source.shown)
            try:
                target.parent.mkdir(parents=True, exist_ok=True)
                source.fetch(entry, target, progress)
            except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
                wrong = f"{source.shown}: {entry.name} is both a file and a folder"
                raise StartError("ModelInvalid", wrong) from error
        except BaseException:
            progress.fail()
            raise

    with ThreadPoolExecutor(_FILES_AT_ONCE, thread_name_prefix="download") as pool:
        futures = [pool.submit(one, entry) for entry in entries]
    failures = [error for future in futures if (error := future.exception()) is not None]
    # Downloads that were stopped because another one failed come last.
    for failure in sorted(failures, key=lambda error: not isinstance(error, StartError | Changed | OSError)):
        raise failure


def stamp_of(kind: str, location: str, prefix: str, entries: Iterable[Entry]) -> str:
    """Return a hash of the content of a version."""
    content = [kind, location, prefix, sorted((entry.name, entry.size, entry.tag) for entry in entries)]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:20]


def _sync_folders(root: Path) -> None:
    """Sync a folder and its subfolders to the disk. The content of the files is synced already."""
    for folder, _, _ in os.walk(root):
        sync_folder(Path(folder))


def sync_folder(folder: Path) -> None:
    """Sync the entries of a folder to the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _touch(path: Path) -> None:
    """Set the modification time to now. The kernel's own time is too coarse to order two calls within milliseconds."""
    now = time.time_ns()
    os.utime(path, ns=(now, now))


def _referenced(indexes: Iterable[Path]) -> set[str]:
    """Return the stamps that the indexes list. Invalid indexes are ignored."""
    stamps: set[str] = set()
    for path in indexes:
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            index = json.loads(path.read_bytes())
            stamps.update(item["stamp"] for item in (*index["items"], *index["previous"]))
    return stamps
