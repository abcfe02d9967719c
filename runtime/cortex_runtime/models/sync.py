"""Keeps the folder of models as the spec's locations are: once before the workers start, then again and again. Runs in the
supervisor, in threads of its own.

What can be served is served: a version that is broken is a problem that is told (log, GET /info, metrics), and what was served
before it stays. The API can't start when something that the spec names has no version to serve.
"""

import logging
import re
import threading
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from cortex_api import Document, units
from cortex_runtime.errors import StartError, Stopped
from cortex_runtime.models.catalog import Catalog, IndexedVersion, index_path, write_index
from cortex_runtime.models.catalog_builder import DIR, CatalogBuilder, ModelLocation, key, locations
from cortex_runtime.models.disk_cache import DiskCache
from cortex_runtime.models.download_progress import Progress, RunningDownloads
from cortex_runtime.models.sources import open_source
from cortex_runtime.models.sources.base import Changed

log = logging.getLogger("cortex")

_PLACES_AT_ONCE = 4
_VERSIONS_AT_ONCE = 3
_CHANGES_AT_START = 5
_NUMBER = re.compile(r" \d+$")


class ModelSync:
    """The models of one API that has some. `start` comes first, then `poll` again and again."""

    def __init__(self, document: Document, models: Path, project: Path) -> None:
        handler = document.spec.handler
        spec = handler.models
        if spec is None:
            raise ValueError("the handler has no models")
        self._project = project
        self._locations = locations(spec)
        self._catalog_builder = CatalogBuilder.for_handler(handler, models)
        self._index = index_path(models, handler)
        self._disk = DiskCache(models, project, handler.type, self._index)
        self._lazy = spec.cache_size is not None or spec.disk_cache_size is not None
        self._stop = threading.Event()
        self._running = RunningDownloads()
        self._current = Catalog()
        self._unsettled: dict[tuple[str, int], str] = {}
        self._bad: dict[str, str] = {}
        self.interval = units.seconds(spec.poll_interval)
        """Seconds between polls; 0 for none."""
        self.failures: Counter[str] = Counter()
        """How often a model could not be had or read, by model."""

    def start(self) -> None:
        """Make the models available; blocks until they are. Raises StartError, or Stopped."""
        self._disk.prepare()
        for attempt in range(1, _CHANGES_AT_START + 1):
            found, failed = self._list_locations()
            for location in self._locations:
                if error := failed.get(location):
                    raise error
            self._require_a_version_of_each(found)
            try:
                self._current = self._fetch_all(found, strict=True)
            except Changed:
                log.info("the models changed while they were fetched (attempt %d)", attempt)
                continue
            self._report_problems(self._current.problems)
            write_index(self._index, self._current)
            return
        raise StartError("ModelUnavailable", "the models kept changing while they were fetched")

    def poll(self) -> bool:
        """Look again, fetch what is new. Returns whether workers must read the index again. Raises Stopped."""
        before = self._current
        found, failed = self._list_locations()
        models: dict[str, dict[int, IndexedVersion]] = {}
        problems = dict(found.problems)
        for location, error in failed.items():
            problems[key(location.name) if location.name else DIR] = error.message
        whole = directory_failed(failed) or (DIR in problems)
        for name in [*before.models, *(name for name in found.models if name not in before.models)]:
            old, new = before.models.get(name, {}), found.models.get(name)
            if new is None:
                # What is gone from a `dir` is gone; else the last good ones stay.
                if (
                    whole
                    or key(name) in problems
                    or any(location.name == name for location in self._locations)
                ):
                    models[name] = dict(old)
                continue
            models[name] = self._merge(name, dict(old), new, problems)
        wanted = Catalog({name: versions for name, versions in models.items() if versions}, problems)
        self._current = self._with_previous(self._fetch_all(wanted, strict=False), before)
        changed = self._current != before
        if changed:
            self._report_problems(self._current.problems)
            stay = {item.stamp for item in (*self._current.items(), *self._current.previous.values())}
            went = [item for item in (*before.items(), *before.previous.values()) if item.stamp not in stay]
            self._disk.start_grace_period(went)
            write_index(self._index, self._current)
        self._disk.remove_unused()
        return changed

    def stop(self) -> None:
        """Let what is under way end soon, by Stopped."""
        self._stop.set()

    def status(self) -> str:
        """What is being downloaded, for readiness; "" for nothing."""
        return str(self._running)

    def problems(self) -> dict[str, str]:
        """What is wrong with models at their source, by model."""
        return dict(self._current.problems)

    def _list_locations(self) -> tuple[Catalog, dict[ModelLocation, StartError]]:
        """What the locations hold, and which of them can't be read."""
        models: dict[str, dict[int, IndexedVersion]] = {}
        problems: dict[str, str] = {}
        failed: dict[ModelLocation, StartError] = {}
        with ThreadPoolExecutor(_PLACES_AT_ONCE, thread_name_prefix="models") as pool:
            looks = [(location, pool.submit(self._list_location, location)) for location in self._locations]
        for location, look in looks:
            try:
                found = look.result()
            except StartError as error:
                failed[location] = StartError(error.reason, f"handler.models: {error.message}")
                continue
            models |= {name: dict(versions) for name, versions in found.models.items()}
            problems |= found.problems
        return Catalog(models, problems), failed

    def _list_location(self, location: ModelLocation) -> Catalog:
        if self._stop.is_set():
            raise Stopped
        source = open_source(location.uri, self._project, self._pause)
        return self._catalog_builder.build(location, source.listing(), source.local, source.shown)

    def _pause(self, seconds: float) -> None:
        if self._stop.wait(seconds):
            raise Stopped

    def _require_a_version_of_each(self, found: Catalog) -> None:
        for location in self._locations:
            if location.name is None:
                if not found.models:
                    reason = "ModelNotFound" if DIR in found.problems else "ModelInvalid"
                    raise StartError(reason, "handler.models.dir: " + "\n".join(found.problems.values()))
            elif location.name not in found.models:
                raise StartError("ModelInvalid", f"handler.models: {found.problems[key(location.name)]}")

    def _merge(
        self,
        name: str,
        old: Mapping[int, IndexedVersion],
        new: Mapping[int, IndexedVersion],
        problems: Mapping[str, str],
    ) -> dict[int, IndexedVersion]:
        """The versions of a model from now on: the new ones, and the old ones of versions that are broken now."""
        merged: dict[int, IndexedVersion] = {}
        for number, item in new.items():
            before = old.get(number)
            if before is not None and before.stamp == item.stamp:
                merged[number] = before
            elif item.is_local and self._unsettled.get((name, number)) != item.stamp:
                # It may be half copied: it counts once two looks have seen the same.
                self._unsettled[name, number] = item.stamp
                if before is not None:
                    merged[number] = before
            else:
                self._unsettled.pop((name, number), None)
                merged[number] = item
        merged |= {
            number: item
            for number, item in old.items()
            if number not in new and key(name, number) in problems
        }
        return dict(sorted(merged.items()))

    def _fetch_all(self, wanted: Catalog, *, strict: bool) -> Catalog:
        """The catalog with all that had to be fetched on this disk; what can't be had is left as it was, and is a problem.

        strict: a model of which nothing can be had raises its StartError; and Changed is raised.
        """
        with ThreadPoolExecutor(_VERSIONS_AT_ONCE, thread_name_prefix="models") as pool:
            fetches = {item: pool.submit(self._fetch, item) for item in wanted.items()}
            try:
                return self._collect_fetched(wanted, fetches, strict=strict)
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def _collect_fetched(
        self, wanted: Catalog, fetches: Mapping[IndexedVersion, "Future[None]"], *, strict: bool
    ) -> Catalog:
        models: dict[str, dict[int, IndexedVersion]] = {}
        problems = dict(wanted.problems)
        for name, versions in wanted.models.items():
            kept: dict[int, IndexedVersion] = {}
            causes: list[StartError] = []
            for number, item in versions.items():
                try:
                    fetches[item].result()
                    kept[number] = item
                    continue
                except Changed:
                    if strict:
                        raise
                    # The next poll lists it as it is then.
                except StartError as error:
                    causes.append(error)
                    problems[key(name, number)] = error.message
                before = self._current.models.get(name, {}).get(number)
                if before is not None:
                    kept[number] = before
            if kept:
                models[name] = kept
            elif causes and strict and self._locations[0].name is not None:
                raise causes[-1]
        if strict and not models:
            raise StartError("ModelInvalid", "handler.models: " + "\n".join(problems.values()))
        return Catalog(models, problems)

    def _with_previous(self, now: Catalog, before: Catalog) -> Catalog:
        """The catalog, and of each version that nobody has loaded since it changed what was there before."""
        previous: dict[tuple[str, int], IndexedVersion] = {}
        for item in now.items():
            old = before.models.get(item.name, {}).get(item.version)
            if old is None or item.is_local or self._disk.is_loadable(item):
                continue
            if old.stamp == item.stamp or not self._disk.is_loadable(old):
                old = before.previous.get((item.name, item.version))
            if old is not None:
                previous[item.name, item.version] = old
        return Catalog(now.models, now.problems, previous)

    def _fetch(self, item: IndexedVersion) -> None:
        if self._lazy or self._disk.has(item):
            return
        progress = Progress(f"downloading {item.label}", item.size or None, self._stop)
        self._running.run(progress, lambda progress: self._disk.fetch(item, progress))

    def _report_problems(self, problems: Mapping[str, str]) -> None:
        """Log each problem once, when it comes up or is another, and when it is over; count it."""
        for name, problem in problems.items():
            if self._bad.get(name) != problem:
                self.failures[_NUMBER.sub("", name)] += 1
                log.error("%s can't be served, what was served before it stays: %s", name, problem)
        for name in self._bad:
            if name not in problems:
                log.info("%s is in order again", name)
        self._bad = dict(problems)


def directory_failed(failed: dict[ModelLocation, StartError]) -> bool:
    """Whether a whole `dir` can't be read."""
    return any(location.name is None for location in failed)
