"""Synchronize the folder of models with the locations in the spec: before the workers start, then periodically. Runs in the
supervisor, in separate threads.

An invalid version is reported (log, GET /info, metrics), and its previous content stays in use. The API fails to start if a model
in the spec has no valid version.
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

_LOCATIONS_AT_ONCE = 4
_VERSIONS_AT_ONCE = 3
_START_ATTEMPTS = 5
_NUMBER = re.compile(r" \d+$")


class ModelSync:
    """The models of one API. Call `start` first, then `poll` periodically."""

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
        self.has_project_files = any("://" not in location.uri for location in self._locations)
        """Whether a location is a path in the project."""
        self._lazy = spec.cache_size is not None or spec.disk_cache_size is not None
        self._stop = threading.Event()
        self._running = RunningDownloads()
        self._current = Catalog()
        self._unsettled: dict[tuple[str, int], str] = {}
        self._bad: dict[str, str] = {}
        self.interval = units.seconds(spec.poll_interval)
        """Seconds between polls; 0: never."""
        self.failures: Counter[str] = Counter()
        """Number of problems by model."""

    def start(self) -> None:
        """Download the models. Blocks until they are available. Raises StartError or Stopped."""
        self._disk.prepare()
        for attempt in range(1, _START_ATTEMPTS + 1):
            found, failed = self._list_locations()
            for location in self._locations:
                if error := failed.get(location):
                    raise error
            self._require_a_version_of_each(found)
            try:
                self._current = self._fetch_all(found, strict=True)
            except Changed:
                log.info("the models have changed during the download; trying again (attempt %d)", attempt)
                continue
            self._report_problems(self._current.problems)
            write_index(self._index, self._current)
            return
        raise StartError(
            "ModelUnavailable",
            f"the models changed during each of {_START_ATTEMPTS} attempts to download them",
        )

    def poll(self) -> bool:
        """List the locations and download changes. Return whether workers must read the index again. Raises Stopped."""
        before = self._current
        found, failed = self._list_locations()
        models: dict[str, dict[int, IndexedVersion]] = {}
        problems = dict(found.problems)
        for location, error in failed.items():
            problems[key(location.name) if location.name else DIR] = error.message
        dir_failed = any(location.name is None for location in failed) or DIR in problems
        for name in [*before.models, *(name for name in found.models if name not in before.models)]:
            old, new = before.models.get(name, {}), found.models.get(name)
            if new is None:
                # A model that is missing in a readable `dir` was deleted. In other cases the last valid versions stay.
                if (
                    dir_failed
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
            kept = {item.stamp for item in (*self._current.items(), *self._current.previous.values())}
            removed = [
                item for item in (*before.items(), *before.previous.values()) if item.stamp not in kept
            ]
            self._disk.start_grace_period(removed)
            write_index(self._index, self._current)
        self._disk.remove_unused()
        return changed

    def stop(self) -> None:
        """Stop running downloads, by Stopped."""
        self._stop.set()

    def status(self) -> str:
        """Return the running downloads for readiness, or ""."""
        return str(self._running)

    def problems(self) -> dict[str, str]:
        """Return the problems of models at their source, by model."""
        return dict(self._current.problems)

    def _list_locations(self) -> tuple[Catalog, dict[ModelLocation, StartError]]:
        """Return the catalog of all locations, and the errors of those that can't be read."""
        models: dict[str, dict[int, IndexedVersion]] = {}
        problems: dict[str, str] = {}
        failed: dict[ModelLocation, StartError] = {}
        with ThreadPoolExecutor(_LOCATIONS_AT_ONCE, thread_name_prefix="models") as pool:
            listings = [
                (location, pool.submit(self._list_location, location)) for location in self._locations
            ]
        for location, listing in listings:
            try:
                found = listing.result()
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
        """Return the new versions of a model, and the old ones of versions that are invalid now."""
        merged: dict[int, IndexedVersion] = {}
        for number, item in new.items():
            before = old.get(number)
            if before is not None and before.stamp == item.stamp:
                merged[number] = before
            elif item.is_local and self._unsettled.get((name, number)) != item.stamp:
                # It may be a partial copy. It is used once two consecutive polls find the same files.
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
        """Download the versions of a catalog. Return the catalog; a version that can't be downloaded keeps its previous content.

        strict: raise Changed, and the StartError of a model without any version.
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
                    # The next poll lists it again.
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
        """Return the catalog with the previous content of each changed version that no process has loaded yet."""
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
        """Count and log problems when they appear or change, and log when they are solved."""
        for name, problem in problems.items():
            if self._bad.get(name) != problem:
                self.failures[_NUMBER.sub("", name)] += 1
                log.error("%s is invalid; serving its previous content, if any: %s", name, problem)
        for name in self._bad:
            if name not in problems:
                log.info("%s is valid again", name)
        self._bad = dict(problems)
