"""The loaded models of a process: all of them, or the most recently used within limits.

Models are evicted before a load to make room (`_make_room`), after a load if the model is larger than its files
(`_evict_excess`), and on an update if their version was removed or replaced (`_apply_changes`, `_load_now`).

Concurrent requests for a version load it once. If changed files can't be loaded, the previous model stays, and the failure is
logged and counted. Getting a loaded model acquires no lock.
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
from cortex_runtime.processes.resident_memory import resident_bytes

log = logging.getLogger("cortex")

T = TypeVar("T")
R = TypeVar("R")

_FIRST_PAUSE, _LONGEST_PAUSE = 5.0, 300.0


class Versions(Protocol):
    """The part of `ModelRepository` that a cache uses."""

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
    """growth: of the resident memory of this process during the load, in bytes; None if unknown."""

    version: Version
    value: T
    size: int
    used: int
    growth: int | None


@dataclass(frozen=True)
class _Failure:
    """A failed load. It is not retried before `until` (time.monotonic), unless the files change."""

    stamp: str
    message: str
    pause: float
    until: float


class MemoryCache(Generic[T]):
    """The loaded models.

    load: returns the model of a version; an exception is a failure of that version. size, limit_bytes: maximum number and total
    size of the models; None: unlimited. measure: returns the size of a loaded model in bytes; before the load, its size on disk
    counts. unload: called with an evicted model; running requests may still use it.
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
        self._models: dict[tuple[str, int], _LoadedModel[T]] = {}
        self._lookups: dict[tuple[object, object], _LoadedModel[T]] = {}
        self._loading: dict[tuple[str, int], int] = {}
        self._failed: dict[tuple[str, int], _Failure] = {}
        self._generation = 0
        self._changed = threading.Condition()
        self._refreshing = threading.Lock()
        self._clock = itertools.count()
        self._loads = 0
        self._thread = threading.local()
        repository.in_memory(lambda: {loaded.version.stamp for loaded in tuple(self._models.values())})

    @property
    def is_limited(self) -> bool:
        """Whether models are evicted, and therefore loaded on request."""
        return self._size is not None or self._limit is not None

    def get(self, name: str | None = None, version: str | int | None = None) -> T:
        """Return a loaded model. For "latest", this is the highest version that can be loaded.

        Raises UserError if it does not exist, LoadFailed if it can't be loaded, and HTTPException 503.
        """
        key = (self._single or name, version)
        try:
            loaded = self._lookups.get(key)
        except TypeError:
            loaded = None
        if loaded is None:
            generation = self._generation
            loaded, is_best = self._repository.best(name, version, self._load_candidate())
            with self._changed:
                current = self._models.get((loaded.version.name, loaded.version.version))
                if is_best and current is loaded and generation == self._generation:
                    self._lookups[key] = loaded
        loaded.used = next(self._clock)
        return loaded.value

    def preload(self) -> None:
        """Load all models, unless there is a limit.

        Raises StartError (ModelInvalid) if no version of a model in the spec can be loaded, or no model of a `dir`.
        """
        if self.is_limited:
            return
        causes: dict[str, LoadFailed] = {}
        for version in self._repository.all_versions():
            try:
                self._get_or_load(version)
            except LoadFailed as error:
                causes[version.name] = error
        loaded = {name for name, _ in self._models}
        missing = [error for name, error in causes.items() if name not in loaded]
        if missing and (self._repository.named or not loaded):
            raise StartError("ModelInvalid", "\n".join(map(str, missing))) from missing[0]

    def refresh(self) -> None:
        """Load the changes of the repository. A model is served until its replacement is loaded."""
        with self._refreshing:
            self._apply_changes()

    def _apply_changes(self) -> None:
        versions = {(version.name, version.version): version for version in self._repository.all_versions()}
        with self._changed:
            stamps = {key: model.version.stamp for key, model in self._models.items()}
            for key in [
                key for key, failure in self._failed.items() if _differs(versions.get(key), failure.stamp)
            ]:
                del self._failed[key]
        for key, version in versions.items():
            if stamps.get(key) != version.stamp and (key in stamps or not self.is_limited):
                try:
                    self._get_or_load(version, again=True)
                except Exception as error:
                    if not isinstance(error, LoadFailed):
                        # Its files have changed again, or the disk cache is full. The next request loads it.
                        log.info("%s is not loaded yet: %s", title(*key), in_one_line(error))
        with self._changed:
            removed = [self._models.pop(key) for key in [*self._models] if key not in versions]
            self._clear_lookups()
            self._changed.notify_all()
        for old in removed:
            self._unload_model(old)

    def loaded(self) -> list[tuple[Version, T]]:
        """Return the models that are in memory now."""
        return [(loaded.version, loaded.value) for loaded in tuple(self._models.values())]

    def growth(self) -> dict[tuple[str, int], int]:
        """Return how much the resident memory of this process grew during the load of each model in memory, in bytes.

        A model is missing if its load was not the only one at that time, or did not grow the memory.
        """
        models = tuple(self._models.items())
        return {key: loaded.growth for key, loaded in models if loaded.growth}

    def problems(self) -> dict[str, str]:
        """Return the problems of models, at their source and in this process, by model."""
        failed = tuple(self._failed.items())
        return self._repository.problems() | {problem_key(*key): failure.message for key, failure in failed}

    def evict(self, name: str) -> None:
        """Release the versions of a model. The next `get` loads it again."""
        with self._changed:
            removed = [self._models.pop(key) for key in [*self._models] if key[0] == name]
            self._clear_lookups()
        for held in removed:
            self._unload_model(held)

    def close(self) -> None:
        """Release all models."""
        with self._changed:
            removed = list(self._models.values())
            self._models.clear()
            self._clear_lookups()
        for loaded in removed:
            self._unload_model(loaded)

    def _load_candidate(self) -> Callable[[Version], tuple[_LoadedModel[T], bool]]:
        """Return a function for `ModelRepository.best`.

        It returns the loaded model of a candidate, and whether that is the current content of the first candidate.
        """
        tried: list[Version] = []

        def use(version: Version) -> tuple[_LoadedModel[T], bool]:
            tried.append(version)
            loaded = self._get_or_load(version)
            return loaded, len(tried) == 1 and loaded.version.stamp == version.stamp

        return use

    def _get_or_load(self, version: Version, again: bool = False) -> _LoadedModel[T]:
        """Return the model of a version, and load it if necessary. Raises LoadFailed.

        again: wait for the changed files; otherwise the previous model is returned while another thread loads them.
        """
        key = (version.name, version.version)
        while True:
            with self._changed:
                loaded = self._models.get(key)
                if loaded is not None and loaded.version.stamp == version.stamp:
                    return loaded
                failure = self._failed.get(key)
                if failure and failure.stamp == version.stamp and time.monotonic() < failure.until:
                    if loaded is not None:
                        return loaded
                    raise LoadFailed(failure.message)
                if key not in self._loading:
                    evicted = self._make_room(key, version)
                    if evicted is not None:
                        break
                elif loaded is not None and not again:
                    return loaded
                elif key in self._loading_in_this_thread():
                    raise LoadFailed(f"the load of {title(*key)} requires {title(*key)} itself")
                self._changed.wait()
        try:
            for old in evicted:
                self._unload_model(old)
            before = [old for old in evicted if (old.version.name, old.version.version) == key]
            return self._load_now(key, version, before[0] if before else None)
        finally:
            with self._changed:
                del self._loading[key]
                self._changed.notify_all()

    def _loading_in_this_thread(self) -> list[tuple[str, int]]:
        """Return what this thread is loading: a load may request other models."""
        keys: list[tuple[str, int]] = self._thread.__dict__.setdefault("keys", [])
        return keys

    def _make_room(self, key: tuple[str, int], version: Version) -> "list[_LoadedModel[T]] | None":
        """Reserve space for a load. Return the evicted models; None if the load must wait for others. The lock must be held.

        The least recently used models are evicted first, and the previous model of the version last.
        """
        if self._limit is not None and version.size > self._limit:
            raise LoadFailed(
                f"models.cacheBytes must be at least the size of {title(*key)} ({version.size}); got {self._limit}"
            )
        evicted: list[_LoadedModel[T]] = []
        order = sorted(self._models.items(), key=lambda entry: (entry[0] == key, entry[1].used))
        count = len(self._models) + len(self._loading) + 1
        total = sum(loaded.size for _, loaded in order) + sum(self._loading.values()) + version.size
        keys = []
        for other, loaded in order:
            if (self._size is None or count <= self._size) and (self._limit is None or total <= self._limit):
                break
            keys.append(other)
            evicted.append(loaded)
            count -= 1
            total -= loaded.size
        fits = (self._size is None or count <= self._size) and (self._limit is None or total <= self._limit)
        if not fits and not self._loading_in_this_thread():
            return None
        for other in keys:
            del self._models[other]
        if keys:
            self._clear_lookups()
        self._loading[key] = version.size
        return evicted

    def _load_now(
        self, key: tuple[str, int], version: Version, before: "_LoadedModel[T] | None"
    ) -> _LoadedModel[T]:
        try:
            loaded = self._load_files(key, version)
        except LoadFailed as error:
            self._record_failure(key, version, error)
            if (old := self._models.get(key)) is not None:
                return old
            # The previous model was evicted, or loaded by a process that has exited. Its files may still be on disk.
            last_good = before.version if before is not None else self._repository.previous(version)
            if last_good is None:
                raise
            loaded = self._load_files(key, last_good)
        else:
            self._failed.pop(key, None)
            self._repository.mark_loadable(version)
        with self._changed:
            replaced = self._models.pop(key, None)
            self._models[key] = loaded
            evicted = self._evict_excess(key)
            self._clear_lookups()
        for old in [*evicted, *([replaced] if replaced is not None else [])]:
            self._unload_model(old)
        return loaded

    def _load_files(self, key: tuple[str, int], version: Version) -> _LoadedModel[T]:
        keys = self._loading_in_this_thread()
        keys.append(key)
        self._loads += 1
        number, is_only, before = self._loads, len(self._loading) == 1, resident_bytes()
        began = time.monotonic()
        try:
            with self._repository.reading(version):
                value = self._load(version)
                size = self._measure(version, value)
        except (Changed, DiskCacheFull, HTTPException):
            # Temporary: a later load may succeed.
            raise
        except LoadFailed:
            raise
        except (Exception, SystemExit) as error:
            cause = error.message if isinstance(error, StartError) else in_one_line(error)
            raise LoadFailed(f"failed to load {title(*key)}: {cause}") from error
        finally:
            keys.pop()
        log.info("loaded %s (%.2f s)", title(*key), time.monotonic() - began)
        growth, after = None, resident_bytes()
        if is_only and number == self._loads and before is not None and after is not None:
            growth = after - before if after > before else None
        return _LoadedModel(version, value, size, next(self._clock), growth)

    def _record_failure(self, key: tuple[str, int], version: Version, error: LoadFailed) -> None:
        before = self._failed.get(key)
        again = before is not None and before.stamp == version.stamp
        pause = min(before.pause * 2, _LONGEST_PAUSE) if before is not None and again else _FIRST_PAUSE
        self._failed[key] = _Failure(version.stamp, str(error), pause, time.monotonic() + pause)
        self._repository.failed(problem_key(key[0]))
        log.error("%s", error, exc_info=None if again else error.__cause__)

    def _evict_excess(self, key: tuple[str, int]) -> list[_LoadedModel[T]]:
        """Evict and return models if a loaded one is larger than its files. The lock must be held."""
        evicted: list[_LoadedModel[T]] = []
        others = sorted((other for other in self._models if other != key), key=lambda k: self._models[k].used)
        while self._limit is not None and others and sum(h.size for h in self._models.values()) > self._limit:
            evicted.append(self._models.pop(others.pop(0)))
        return evicted

    def _clear_lookups(self) -> None:
        self._generation += 1
        self._lookups = {}

    def _unload_model(self, loaded: _LoadedModel[T]) -> None:
        if self._unload is None:
            return
        try:
            self._unload(loaded.value)
        except Exception as error:
            log.warning("failed to unload %s: %s", title(loaded.version.name, loaded.version.version), error)


def _differs(version: Version | None, stamp: str) -> bool:
    return version is None or version.stamp != stamp
