"""The models of an API as a worker finds them: the supervisor's index, and with a cache on disk also the downloads.

A worker reads the index when it opens the repository, and again after each `ReloadModels`. In between, a version is found by a
lookup in dictionaries.
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

_LOOKS = 3


class LoadFailed(Exception):
    """A version can't be fetched or loaded; not the caller's fault. The message tells which, and why."""


class ModelRepository:
    """All models of one API. Opened by `open`; safe for several threads."""

    def __init__(self, handler: "BaseHandler", models: Path, project: Path) -> None:
        spec = handler.models
        if spec is None:
            raise ValueError("the handler has no models")
        self.single: str | None = DEFAULT_NAME if spec.path is not None else None
        """The name of the only model when the spec gives a path, else None."""
        self.named = spec.dir is None
        """Whether the spec names the models, rather than a folder of models."""
        self.failed: Callable[[str], None] = lambda name: None
        """Is told the name of a model whenever a load of it has failed."""
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
        """The repository of a handler that has models. Raises StartError when the supervisor has written no index."""
        repository = cls(handler, models, project)
        repository.refresh()
        return repository

    def names(self) -> list[str]:
        """Of all models, in order."""
        return sorted(self._catalog.models)

    def versions(self, name: str) -> list[int]:
        """The numbers of a model's versions, in order; none for an unknown name."""
        return sorted(self._catalog.models.get(name, ()))

    def all_versions(self) -> list[Version]:
        """All versions of all models."""
        return [item.as_version() for item in self._catalog.items()]

    def problems(self) -> dict[str, str]:
        """What is wrong with models at their source, by model."""
        return dict(self._catalog.problems)

    def previous(self, version: Version) -> Version | None:
        """What was there before a version changed, when nobody has loaded the change yet and its files are still here."""
        item = self._catalog.previous.get((version.name, version.version))
        return item.as_version() if item is not None and self._disk.has(item) else None

    def mark_loadable(self, version: Version) -> None:
        """Tell that a version can be loaded: what was there before it is not needed any more."""
        if (item := self._items.get((version.name, version.stamp))) is not None:
            self._disk.mark_loadable(item)

    def candidates(self, name: str | None, version: str | int | None) -> list[Version]:
        """The versions that may be meant, the best first: for "latest" all of them, the highest first. Their files may not be
        here yet.

        Raises UserError: 404 for what is not there, with what is; 400 for a version that is no number.
        """
        if self.single is None and name is not None and not isinstance(name, str):
            raise UserError(f"the name of a model is a string, not {type(name).__name__}")
        found = self._catalog.candidates(self.single or name, version)
        return [item.as_version() for item in found]

    def find(self, name: str | None = None, version: str | int | None = None) -> Version:
        """The version that is meant, with its files here.

        name: ignored when the API has a single model. version: a number, or None, "" or "latest" for the highest.
        Raises UserError as `candidates`, and LoadFailed when its files can't be had.
        """
        asked = (self.single or name, version)
        try:
            found = self._found.get(asked)
        except TypeError:
            found = None
        if found is None:
            found = self.best(name, version, self._with_files)
            if self._disk.is_unlimited:
                self._found[asked] = found
        return found

    def best(self, name: str | None, version: str | int | None, use: Callable[[Version], R]) -> R:
        """What `use` gives for the best of the candidates for which it doesn't raise LoadFailed.

        use: may raise Changed, when the files at the source are others than the index says; they are listed again then.
        Raises UserError as `candidates`, the first LoadFailed, and HTTPException 503 when it is a matter of waiting.
        """
        for _ in range(_LOOKS):
            cause: LoadFailed | None = None
            for candidate in self.candidates(name, version):
                try:
                    return use(candidate)
                except Changed:
                    self._list_again(candidate.name)
                    break
                except DiskCacheFull as error:
                    raise HTTPException(
                        503, "all models that fit on the disk are in use", {"Retry-After": "1"}
                    ) from error
                except LoadFailed as error:
                    cause = cause or error
            else:
                assert cause is not None
                raise cause
        raise HTTPException(503, "the models are changing at this moment", {"Retry-After": "1"})

    @contextlib.contextmanager
    def reading(self, version: Version) -> Iterator[None]:
        """The files of a version are here, and are not removed meanwhile.

        Raises LoadFailed when they can't be had, Changed and DiskCacheFull.
        """
        with contextlib.ExitStack() as stack:
            while True:
                item = self._fetch(version)
                try:
                    stack.enter_context(self._disk.reading(item))
                    break
                except FileNotFoundError:
                    # Another process has removed them in the meantime, to make room.
                    continue
            yield

    def refresh(self) -> bool:
        """Read the index again. Returns whether anything changed. Raises StartError when there is none."""
        try:
            catalog = Catalog.from_json(self._index.read_bytes())
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise StartError(
                "ModelNotFound", f"the index of the models {self._index} can't be read: {error}"
            ) from error
        if catalog == self._catalog:
            return False
        self._replace(catalog)
        return True

    def in_memory(self, stamps: Callable[[], set[str]]) -> None:
        """Tell who knows the stamps of what is loaded: it is removed from the disk last."""
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
            raise LoadFailed(f"{item.label} cannot be fetched: {error.message}") from error
        return item

    def _list_again(self, name: str) -> None:
        """List a model at its source, and follow what is there: the supervisor has not seen the change yet."""
        location = next(location for location in self._locations if location.name in (name, None))
        models = dict(self._catalog.models)
        try:
            source = open_source(location.uri, self._project)
            found = self._catalog_builder.build(location, source.listing(), source.local, source.shown)
        except StartError as error:
            raise LoadFailed(f"{title(name)} cannot be fetched: {error.message}") from error
        if name in found.models:
            models[name] = found.models[name]
        else:
            models.pop(name, None)
        self._replace(Catalog(models, self._catalog.problems, self._catalog.previous))
