"""Models in memory: all of them, or the most recently used within limits.

The limits are kept before a load, not after it. A version is loaded once, however many ask for it at the same time. When a
change can't be loaded, what was loaded before it stays, and the failure is told and counted. Getting a model that is loaded takes
no lock.
"""

import itertools
import logging
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from starlette.exceptions import HTTPException

from cortex_runtime.errors import StartError
from cortex_runtime.logs.tracebacks import in_one_line
from cortex_runtime.models.catalog import Version, title
from cortex_runtime.models.catalog_builder import key as problem_key
from cortex_runtime.models.disk_cache import DiskCacheFull
from cortex_runtime.models.repository import LoadFailed
from cortex_runtime.models.sources.base import Changed

log = logging.getLogger("cortex")

T = TypeVar("T")
R = TypeVar("R")

_FIRST_PAUSE, _LONGEST_PAUSE = 5.0, 300.0


class Versions(Protocol):
    """What a cache needs of a `ModelRepository`."""

    single: str | None
    named: bool
    failed: Callable[[str], None]

    def names(self) -> list[str]: ...
    def all_versions(self) -> list[Version]: ...
    def problems(self) -> dict[str, str]: ...
    def best(self, name: str | None, version: str | int | None, use: Callable[[Version], R]) -> R: ...
    def reading(self, version: Version) -> AbstractContextManager[None]: ...
    def previous(self, version: Version) -> Version | None: ...
    def mark_loadable(self, version: Version) -> None: ...
    def in_memory(self, stamps: Callable[[], set[str]]) -> None: ...


@dataclass
class _LoadedModel(Generic[T]):
    version: Version
    value: T
    size: int
    used: int


@dataclass(frozen=True)
class _Failure:
    """A load that failed is not tried again until then (time.monotonic), unless the files change."""

    stamp: str
    message: str
    pause: float
    until: float


class MemoryCache(Generic[T]):
    """The loaded models.

    load: from a version to the model; what it raises is a failure of that version. size: models, limit_bytes: bytes that are held
    at most; None for no limit. measure: bytes of a loaded model; before the load its size on disk is taken. unload: is told of a
    model that leaves; whoever still works with it may hold it longer.
    """

    def __init__(
        self,
        repository: Versions,
        load: Callable[[Version], T],
        *,
        size: int | None = None,
        limit_bytes: int | None = None,
        measure: Callable[[Version, T], int] | None = None,
        unload: Callable[[T], None] | None = None,
    ) -> None:
        self._repository = repository
        self._single = repository.single
        self._load = load
        self._size = size
        self._limit = limit_bytes
        self._measure = measure or (lambda version, model: version.size)
        self._unload = unload
        self._held: dict[tuple[str, int], _LoadedModel[T]] = {}
        self._lookups: dict[tuple[object, object], _LoadedModel[T]] = {}
        self._loading: dict[tuple[str, int], int] = {}
        self._failed: dict[tuple[str, int], _Failure] = {}
        self._generation = 0
        self._changed = threading.Condition()
        self._refreshing = threading.Lock()
        self._clock = itertools.count()
        self._thread = threading.local()
        repository.in_memory(lambda: {held.version.stamp for held in tuple(self._held.values())})

    @property
    def is_limited(self) -> bool:
        """Whether models leave, and so are loaded when they are asked for."""
        return self._size is not None or self._limit is not None

    def get(self, name: str | None = None, version: str | int | None = None) -> T:
        """The model, loaded. For "latest": the highest version that can be loaded.

        Raises UserError for what is not there, LoadFailed for what can't be loaded, and HTTPException 503.
        """
        asked = (self._single or name, version)
        try:
            held = self._lookups.get(asked)
        except TypeError:
            held = None
        if held is None:
            generation = self._generation
            held, is_best = self._repository.best(name, version, self._load_candidate())
            with self._changed:
                here = self._held.get((held.version.name, held.version.version))
                if is_best and here is held and generation == self._generation:
                    self._lookups[asked] = held
        held.used = next(self._clock)
        return held.value

    def preload(self) -> None:
        """Load all; nothing when there is a limit.

        Raises StartError (ModelInvalid) when a model that the spec names has no version that can be loaded, or none at all can.
        """
        if self.is_limited:
            return
        causes: dict[str, LoadFailed] = {}
        for version in self._repository.all_versions():
            try:
                self._get_or_load(version)
            except LoadFailed as error:
                causes[version.name] = error
        loaded = {name for name, _ in self._held}
        missing = [error for name, error in causes.items() if name not in loaded]
        if missing and (self._repository.named or not loaded):
            raise StartError("ModelInvalid", "\n".join(map(str, missing))) from missing[0]

    def refresh(self) -> None:
        """Follow the repository, which has changed. What answers now goes on until what replaces it is loaded."""
        with self._refreshing:
            self._apply_changes()

    def _apply_changes(self) -> None:
        versions = {(version.name, version.version): version for version in self._repository.all_versions()}
        with self._changed:
            held = {key: value.version.stamp for key, value in self._held.items()}
            for key in [
                key for key, failure in self._failed.items() if _differs(versions.get(key), failure.stamp)
            ]:
                del self._failed[key]
        for key, version in versions.items():
            if held.get(key) != version.stamp and (key in held or not self.is_limited):
                try:
                    self._get_or_load(version, again=True)
                except Exception as error:
                    if not isinstance(error, LoadFailed):
                        # Its files changed once more, or don't fit on the disk now; the next request asks for it.
                        log.info("%s is not loaded yet: %s", title(*key), in_one_line(error))
        with self._changed:
            gone = [self._held.pop(key) for key in [*self._held] if key not in versions]
            self._clear_lookups()
            self._changed.notify_all()
        for old in gone:
            self._unload_model(old)

    def loaded(self) -> list[tuple[Version, T]]:
        """What is in memory at this moment."""
        return [(held.version, held.value) for held in tuple(self._held.values())]

    def problems(self) -> dict[str, str]:
        """What is wrong with models, at their source and here, by model."""
        failed = tuple(self._failed.items())
        return self._repository.problems() | {problem_key(*key): failure.message for key, failure in failed}

    def close(self) -> None:
        """Let go of all."""
        with self._changed:
            gone = list(self._held.values())
            self._held.clear()
            self._clear_lookups()
        for held in gone:
            self._unload_model(held)

    def _load_candidate(self) -> Callable[[Version], tuple[_LoadedModel[T], bool]]:
        """For `ModelRepository.best`: the model, and whether it is of the first candidate and as that is at its source."""
        tried: list[Version] = []

        def use(version: Version) -> tuple[_LoadedModel[T], bool]:
            tried.append(version)
            held = self._get_or_load(version)
            return held, len(tried) == 1 and held.version.stamp == version.stamp

        return use

    def _get_or_load(self, version: Version, again: bool = False) -> _LoadedModel[T]:
        """The model of a version: as it is in memory, or loaded now. Raises LoadFailed.

        again: for a change of what is in memory; else that is given while somebody loads the change.
        """
        key = (version.name, version.version)
        while True:
            with self._changed:
                held = self._held.get(key)
                if held is not None and held.version.stamp == version.stamp:
                    return held
                failure = self._failed.get(key)
                if failure and failure.stamp == version.stamp and time.monotonic() < failure.until:
                    if held is not None:
                        return held
                    raise LoadFailed(failure.message)
                if key not in self._loading:
                    leaving = self._make_room(key, version)
                    if leaving is not None:
                        break
                elif held is not None and not again:
                    return held
                elif key in self._loading_in_this_thread():
                    raise LoadFailed(f"loading {title(*key)} asks for {title(*key)} itself")
                self._changed.wait()
        try:
            for old in leaving:
                self._unload_model(old)
            before = [old for old in leaving if (old.version.name, old.version.version) == key]
            return self._load_now(key, version, before[0] if before else None)
        finally:
            with self._changed:
                del self._loading[key]
                self._changed.notify_all()

    def _loading_in_this_thread(self) -> list[tuple[str, int]]:
        """What this thread is loading: a load may ask for other models."""
        keys: list[tuple[str, int]] = self._thread.__dict__.setdefault("keys", [])
        return keys

    def _make_room(self, key: tuple[str, int], version: Version) -> "list[_LoadedModel[T]] | None":
        """Take a place for a load. Returns what leaves for it; None when that must wait for other loads. Called with the lock.

        The least recently used leave first; what the version itself has in memory leaves last.
        """
        if self._limit is not None and version.size > self._limit:
            raise LoadFailed(
                f"{title(*key)} has {version.size} bytes, and models.cacheBytes allows {self._limit} in all"
            )
        leaving: list[_LoadedModel[T]] = []
        order = sorted(self._held.items(), key=lambda entry: (entry[0] == key, entry[1].used))
        count = len(self._held) + len(self._loading) + 1
        total = sum(held.size for _, held in order) + sum(self._loading.values()) + version.size
        keys = []
        for other, held in order:
            if (self._size is None or count <= self._size) and (self._limit is None or total <= self._limit):
                break
            keys.append(other)
            leaving.append(held)
            count -= 1
            total -= held.size
        fits = (self._size is None or count <= self._size) and (self._limit is None or total <= self._limit)
        if not fits and not self._loading_in_this_thread():
            return None
        for other in keys:
            del self._held[other]
        if keys:
            self._clear_lookups()
        self._loading[key] = version.size
        return leaving

    def _load_now(
        self, key: tuple[str, int], version: Version, before: "_LoadedModel[T] | None"
    ) -> _LoadedModel[T]:
        try:
            held = self._load_files(key, version)
        except LoadFailed as error:
            self._record_failure(key, version, error)
            if (old := self._held.get(key)) is not None:
                return old
            # It left to keep the limit, or with a process that ended; its files may still be here.
            last_good = before.version if before is not None else self._repository.previous(version)
            if last_good is None:
                raise
            held = self._load_files(key, last_good)
        else:
            self._failed.pop(key, None)
            self._repository.mark_loadable(version)
        with self._changed:
            replaced = self._held.pop(key, None)
            self._held[key] = held
            leaving = self._evict_excess(key)
            self._clear_lookups()
        for old in [*leaving, *([replaced] if replaced is not None else [])]:
            self._unload_model(old)
        return held

    def _load_files(self, key: tuple[str, int], version: Version) -> _LoadedModel[T]:
        keys = self._loading_in_this_thread()
        keys.append(key)
        began = time.monotonic()
        try:
            with self._repository.reading(version):
                value = self._load(version)
                size = self._measure(version, value)
        except (Changed, DiskCacheFull, HTTPException):
            # Not the model's fault: another moment, another result.
            raise
        except LoadFailed:
            raise
        except (Exception, SystemExit) as error:
            cause = error.message if isinstance(error, StartError) else in_one_line(error)
            raise LoadFailed(f"{title(*key)} can't be loaded: {cause}") from error
        finally:
            keys.pop()
        log.info("%s is loaded (%.2f s)", title(*key), time.monotonic() - began)
        return _LoadedModel(version, value, size, next(self._clock))

    def _record_failure(self, key: tuple[str, int], version: Version, error: LoadFailed) -> None:
        before = self._failed.get(key)
        again = before is not None and before.stamp == version.stamp
        pause = min(before.pause * 2, _LONGEST_PAUSE) if before is not None and again else _FIRST_PAUSE
        self._failed[key] = _Failure(version.stamp, str(error), pause, time.monotonic() + pause)
        self._repository.failed(problem_key(key[0]))
        log.error("%s", error, exc_info=None if again else error.__cause__)

    def _evict_excess(self, key: tuple[str, int]) -> list[_LoadedModel[T]]:
        """What leaves because a model is larger than its files are. Called with the lock."""
        leaving: list[_LoadedModel[T]] = []
        others = sorted((other for other in self._held if other != key), key=lambda k: self._held[k].used)
        while self._limit is not None and others and sum(h.size for h in self._held.values()) > self._limit:
            leaving.append(self._held.pop(others.pop(0)))
        return leaving

    def _clear_lookups(self) -> None:
        self._generation += 1
        self._lookups = {}

    def _unload_model(self, held: _LoadedModel[T]) -> None:
        if self._unload is None:
            return
        try:
            self._unload(held.value)
        except Exception as error:
            log.warning("%s can't be unloaded: %s", title(held.version.name, held.version.version), error)


def _differs(version: Version | None, stamp: str) -> bool:
    return version is None or version.stamp != stamp
