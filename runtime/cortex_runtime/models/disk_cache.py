"""The models that were fetched, in the folder of models, for supervisor and workers, and pods that share the folder on a volume.

    <name>/<stamp>/<version>/...   whole, and never changed again
    .incoming/<stamp>/             being fetched; becomes the above by a rename
    .locks/<stamp>                 held alone by who fetches or removes, shared by who reads
    .loaded/<stamp>                there when somebody has loaded it

A limit on the number of versions on disk is kept before a fetch: the least recently loaded are removed first, those in memory
last.
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
    """All that the limit allows on disk is being fetched or loaded at this moment."""


class DiskCache:
    """The folder. kind: the handler's type. index: this API's in it. limit: versions of this API on disk, None for all.

    in_memory: gives the stamps of what is loaded in this process.
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
        """Whether nothing is removed to make room."""
        return self._limit is None

    def prepare(self) -> None:
        """Make the folders. Raises StartError when they can't be written."""
        try:
            for folder in (self._models, self._incoming, self._locks, self._loaded):
                folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StartError(
                "ModelsUnwritable", f"the folder of models {self._models} can't be written: {error}"
            ) from error

    def has(self, item: IndexedVersion) -> bool:
        """Whether the files of a version are here."""
        return item.is_local or self._content(item).is_dir()

    @contextlib.contextmanager
    def reading(self, item: IndexedVersion, wait: Callable[[float], object] = sleep) -> Iterator[None]:
        """Keep the files of a version from being removed meanwhile. Raises FileNotFoundError when they aren't here."""
        if item.is_local:
            yield
            return
        content = self._content(item)
        with locked(self._lock(item.stamp), shared=True, wait=wait):
            _touch(content)
            yield

    def fetch(self, item: IndexedVersion, progress: Progress) -> None:
        """See to it that the files of a version are here and whole.

        Raises StartError (why they can't be had), Changed (other files are there by now), DiskCacheFull, and Stopped.
        """
        if self.has(item):
            return
        with locked(self._lock(item.stamp), wait=progress.wait):
            if self.has(item):
                return
            incoming = self._incoming / item.stamp
            with locked(self._locks / "room", wait=progress.wait):
                self._make_room(item)
                # What a process left that was killed.
                shutil.rmtree(incoming, ignore_errors=True)
                incoming.mkdir()
            try:
                self._download(item, incoming, progress)
                content = self._content(item)
                content.parent.mkdir(exist_ok=True)
                _sync_folders(incoming / "whole")
                (incoming / "whole").rename(content)
                sync_folder(content.parent)
            except OSError as error:
                raise StartError("ModelsUnwritable", f"{item.label} can't be written: {error}") from error
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
            needed = f"needs {size_in_words(item.size)}, and {size_in_words(free)} are free in {self._models}"
            raise StartError("ModelsUnwritable", f"{item.label} {needed}")
        version = incoming / "whole" / str(item.version)
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
        if self._limit is None:
            return
        loaded = self.in_memory()
        others = _referenced(path for path in self._indexes() if path != self._index)
        mine = [path for path in self._contents() if path.name not in others]
        mine.sort(key=lambda path: (path.name in loaded, path.stat().st_mtime))
        fetching = sum(
            1 for path in self._incoming.iterdir() if self._is_locked(path.name) and path.name != item.stamp
        )
        excess = len(mine) + fetching + 1 - self._limit
        for path in mine:
            if excess <= 0:
                break
            excess -= self._remove(path)
        if excess > 0:
            raise DiskCacheFull

    def start_grace_period(self, items: Iterable[IndexedVersion]) -> None:
        """These are about to leave the index: who still works with them has a while from now on."""
        for item in items:
            if not item.is_local:
                with contextlib.suppress(FileNotFoundError):
                    _touch(self._content(item))

    def remove_unused(self) -> None:
        """Remove what no index names any more and nobody has used for a while."""
        wanted = _referenced(self._indexes())
        for path in [*self._contents(), *self._incoming.iterdir()]:
            with contextlib.suppress(FileNotFoundError):
                if path.name not in wanted and time.time() - path.stat().st_mtime > _GRACE_SECONDS:
                    self._remove(path)

    def is_loadable(self, item: IndexedVersion) -> bool:
        """Whether somebody has loaded a version, since it was fetched."""
        return (self._loaded / item.stamp).exists()

    def mark_loadable(self, item: IndexedVersion) -> None:
        """Remember that a version can be loaded."""
        if not item.is_local:
            (self._loaded / item.stamp).touch()

    def _remove(self, path: Path) -> bool:
        lock = self._lock(path.name)
        try:
            with locked(lock):
                # First out of sight, so that nobody ever finds half of it.
                grave = self._incoming / f"{path.name}-removed"
                path.rename(grave)
                (self._loaded / path.name).unlink(missing_ok=True)
                lock.unlink()
        except (Busy, FileNotFoundError):
            return False
        shutil.rmtree(grave, ignore_errors=True)
        with contextlib.suppress(OSError):
            path.parent.rmdir()
        return True

    def _contents(self) -> list[Path]:
        names = [
            entry for entry in self._models.iterdir() if entry.is_dir() and not entry.name.startswith(".")
        ]
        return [content for name in names for content in name.iterdir()]

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
    """Fetch entries into a new folder, without the prefix of their names. Raises the first failure after all have ended."""
    into.mkdir(parents=True)

    def one(entry: Entry) -> None:
        try:
            target = into / require_safe(entry.name.removeprefix(prefix), source.shown)
            try:
                target.parent.mkdir(parents=True, exist_ok=True)
                source.fetch(entry, target, progress)
            except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
                wrong = f"{source.shown}: {entry.name} is the name of a file and of a folder"
                raise StartError("ModelInvalid", wrong) from error
        except BaseException:
            progress.fail()
            raise

    with ThreadPoolExecutor(_FILES_AT_ONCE, thread_name_prefix="download") as pool:
        futures = [pool.submit(one, entry) for entry in entries]
    failures = [error for future in futures if (error := future.exception()) is not None]
    # Those that ended because another failed say nothing.
    for failure in sorted(failures, key=lambda error: not isinstance(error, StartError | Changed | OSError)):
        raise failure


def stamp_of(kind: str, location: str, prefix: str, entries: Iterable[Entry]) -> str:
    """A hash of what a version consists of."""
    content = [kind, location, prefix, sorted((entry.name, entry.size, entry.tag) for entry in entries)]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:20]


def _sync_folders(root: Path) -> None:
    """Bring the names in a folder and in those below it to the disk, as their contents are already."""
    for folder, _, _ in os.walk(root):
        sync_folder(Path(folder))


def sync_folder(folder: Path) -> None:
    """Bring the names in a folder to the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _touch(path: Path) -> None:
    """Set the time to now. By itself the kernel is some milliseconds behind, and so would make two of one age."""
    now = time.time_ns()
    os.utime(path, ns=(now, now))


def _referenced(indexes: Iterable[Path]) -> set[str]:
    stamps: set[str] = set()
    for path in indexes:
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            index = json.loads(path.read_bytes())
            stamps.update(item["stamp"] for item in (*index["items"], *index["previous"]))
    return stamps
