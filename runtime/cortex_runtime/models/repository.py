"""The models of an API in a worker: read from the supervisor's index, and with a limited disk cache downloaded on request.

A worker reads the index when it opens the repository, and again after each `ReloadModels`. In between, finding a version is a
dictionary lookup.
"""

import contextlib
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from starlette.exceptions import HTTPException

from cortex_runtime.errors import StartError, UserError
from cortex_runtime.models.catalog import DEFAULT_NAME, Catalog, IndexedVersion, Version, index_path, title
from cortex_runtime.models.catalog_builder import CatalogBuilder, locations
from cortex_runtime.models.disk_cache import DiskCache, DiskCacheFull
from cortex_runtime.models.download_progress import Progress
from cortex_runtime.models.sources import open_source
from cortex_runtime.models.sources.base import Changed

if TYPE_CHECKING:
    from cortex_api.handler import BaseHandler

__all__ = ["DEFAULT_NAME", "LoadFailed", "ModelRepository", "Version", "title"]

log = logging.getLogger("cortex")

R = TypeVar("R")

_ATTEMPTS = 3


class LoadFailed(Exception):
    """A version can't be downloaded or loaded. The message has the version and the cause."""


class ModelRepository:
    """All models of one API. Create it with `open`. Thread-safe."""

    def __init__(self, handler: "BaseHandler", models: Path, project: Path) -> None:
        spec = handler.models
        if spec is None:
            raise ValueError("the handler has no models")
        self.single: str | None = DEFAULT_NAME if spec.path is not None else None
        """The name of the only model if the spec has a path, else None."""
        self.named = spec.dir is None
        """Whether the spec lists the models, not a `dir`."""
        self.failed: Callable[[str], None] = lambda name: None
        """Called with the name of a model when a load of it has failed."""
        self._project = project
        self._locations = locations(spec)
        self._catalog_builder = CatalogBuilder.for_handler(handler, models)
        self._index = index_path(models, handler)
        self._disk = DiskCache(models, project, handler.type, self._index, spec.disk_cache_size)
        self._catalog = Catalog()
        self._items: dict[tuple[str, str], IndexedVersion] = {}
        self._found: dict[tuple[object, object], Version] = {}

    @classmethod
    def open(cls, handler: "BaseHandler", models: Path, project: Path) -> "ModelRepository":
        """Return the repository of a handler that has models. Raises StartError if the index can't be read."""
        repository = cls(handler, models, project)
        repository.refresh()
        return repository

    def names(self) -> list[str]:
        """Return the names of all models, sorted."""
        return sorted(self._catalog.models)

    def versions(self, name: str) -> list[int]:
        """Return the numbers of a model's versions, sorted; [] for an unknown name."""
        return sorted(self._catalog.models.get(name, ()))

    def all_versions(self) -> list[Version]:
        """Return all versions of all models."""
        return [item.as_version() for item in self._catalog.items()]

    def problems(self) -> dict[str, str]:
        """Return the problems of models at their source, by model."""
        return dict(self._catalog.problems)

    def previous(self, version: Version) -> Version | None:
        """Return the previous content of a version if it is on disk and no process has loaded the current content yet."""
        item = self._catalog.previous.get((version.name, version.version))
        return item.as_version() if item is not None and self._disk.has(item) else None

    def mark_loadable(self, version: Version) -> None:
        """Record that a version was loaded, so that its previous content is no longer needed."""
        if (item := self._items.get((version.name, version.stamp))) is not None:
            self._disk.mark_loadable(item)

    def candidates(self, name: str | None, version: str | int | None) -> list[Version]:
        """Return the versions that match, the best first. Their files may not be on disk yet.

        For "latest" these are all versions, the highest first. Raises UserError: 404 if none exists, with the existing ones; 400
        if the version is not a number.
        """
        if self.single is None and name is not None and not isinstance(name, str):
            raise UserError(f"the name of a model must be a string; got {type(name).__name__}")
        found = self._catalog.candidates(self.single or name, version)
        return [item.as_version() for item in found]

    def find(self, name: str | None = None, version: str | int | None = None) -> Version:
        """Return a version whose files are on disk.

        name: ignored if the API has a single model. version: a number, or None, "" or "latest" for the highest. Raises UserError
        as `candidates` does, and LoadFailed if its files can't be downloaded.
        """
        key = (self.single or name, version)
        try:
            found = self._found.get(key)
        except TypeError:
            found = None
        if found is None:
            found = self.best(name, version, self._with_files)
            if self._disk.is_unlimited:
                self._found[key] = found
        return found

    def best(self, name: str | None, version: str | int | None, use: Callable[[Version], R]) -> R:
        """Call `use` with the candidates, the best first, and return its first result.

        use: raises LoadFailed to try the next candidate, or Changed if the files have changed since they were listed;
        they are then listed again. Raises UserError as `candidates` does, the first LoadFailed, and HTTPException 503 if a later
        request may succeed.
        """
        for _ in range(_ATTEMPTS):
            cause: LoadFailed | None = None
            for candidate in self.candidates(name, version):
                try:
                    return use(candidate)
                except Changed:
                    self._list_again(candidate.name)
                    break
                except DiskCacheFull as error:
                    raise HTTPException(
                        503,
                        "all models that diskCacheSize allows are in use; try again",
                        {"Retry-After": "1"},
                    ) from error
                except LoadFailed as error:
                    cause = cause or error
            else:
                assert cause is not None
                raise cause
        raise HTTPException(503, "the models are changing; try again", {"Retry-After": "1"})

    @contextlib.contextmanager
    def reading(self, version: Version) -> Iterator[None]:
        """Download the files of a version if necessary, and protect them from removal.

        Raises LoadFailed, Changed and DiskCacheFull.
        """
        with contextlib.ExitStack() as stack:
            while True:
                item = self._fetch(version)
                try:
                    stack.enter_context(self._disk.reading(item))
                    break
                except FileNotFoundError:
                    # Another process has removed them in the meantime.
                    continue
            yield

    def refresh(self) -> bool:
        """Read the index again. Return whether it has changed. Raises StartError (ModelNotFound)."""
        try:
            catalog = Catalog.from_json(self._index.read_bytes())
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise StartError(
                "ModelNotFound", f"failed to read the index of the models {self._index}: {error}"
            ) from error
        if catalog == self._catalog:
            return False
        self._replace(catalog)
        return True

    def in_memory(self, stamps: Callable[[], set[str]]) -> None:
        """Set the function that returns the stamps of the loaded models, which are removed from the disk last."""
        self._disk.in_memory = stamps

    def _replace(self, catalog: Catalog) -> None:
        items = (*catalog.previous.values(), *catalog.items())
        self._items = {(item.name, item.stamp): item for item in items}
        self._catalog = catalog
        self._found = {}

    def _with_files(self, version: Version) -> Version:
        self._fetch(version)
        return version

    def _fetch(self, version: Version) -> IndexedVersion:
        item = self._items.get((version.name, version.stamp))
        if item is None:
            raise Changed
        if self._disk.has(item):
            return item
        if item.is_local:
            raise LoadFailed(f"{item.label}: {item.path} does not exist")
        try:
            self._disk.fetch(item, Progress(f"downloading {item.label}", item.size or None))
        except StartError as error:
            raise LoadFailed(f"failed to download {item.label}: {error.message}") from error
        return item

    def _list_again(self, name: str) -> None:
        """List a model at its source again, because the supervisor has not noticed a change yet. Raises LoadFailed."""
        location = next(location for location in self._locations if location.name in (name, None))
        models = dict(self._catalog.models)
        try:
            source = open_source(location.uri, self._project)
            found = self._catalog_builder.build(location, source.listing(), source.local, source.shown)
        except StartError as error:
            raise LoadFailed(f"failed to list {title(name)}: {error.message}") from error
        if name in found.models:
            models[name] = found.models[name]
        else:
            models.pop(name, None)
        self._replace(Catalog(models, self._catalog.problems, self._catalog.previous))
