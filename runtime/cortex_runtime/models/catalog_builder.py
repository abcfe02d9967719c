"""Build a catalog from the locations in the spec and the lists of their files. Pure functions, for every kind of location."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cortex_api.contract import TENSORFLOW_SERVING_VARIABLE
from cortex_runtime.models import folder_layout
from cortex_runtime.models.catalog import DEFAULT_NAME, Catalog, IndexedVersion
from cortex_runtime.models.disk_cache import stamp_of
from cortex_runtime.models.sources.base import Entry, Listing, safe_name

if TYPE_CHECKING:
    from cortex_api.handler import BaseHandler, Models


@dataclass(frozen=True)
class ModelLocation:
    """A location in the spec. name: the name of the model; None for a `dir`, which contains several models."""

    name: str | None
    uri: str


def locations(spec: "Models") -> list[ModelLocation]:
    """Return the locations in a spec."""
    if spec.path is not None:
        return [ModelLocation(DEFAULT_NAME, spec.path)]
    if spec.paths is not None:
        return [ModelLocation(model.name, model.path) for model in spec.paths]
    assert spec.dir is not None
    return [ModelLocation(None, spec.dir)]


@dataclass(frozen=True)
class CatalogBuilder:
    """Builds the catalog of a location from the list of its files, by the handler type.

    serves_local_files: whether local files are used without a copy.
    """

    kind: str
    models: Path
    serves_local_files: bool

    @classmethod
    def for_handler(cls, handler: "BaseHandler", models: Path) -> "CatalogBuilder":
        """Return the builder of a handler."""
        # TensorFlow Serving runs in another container, which mounts only the folder of models.
        is_separate = handler.type == "tensorflow" and bool(os.environ.get(TENSORFLOW_SERVING_VARIABLE))
        return cls(handler.type, models, serves_local_files=not is_separate)

    def build(self, location: ModelLocation, listing: Listing, local: Path | None, shown: str) -> Catalog:
        """Return the models of a location and their problems.

        local: the path of the location if it is on this machine. shown: the location, for messages.
        """
        if location.name is not None:
            return self._model(location.name, location.uri, "", listing, local, shown)
        if listing.is_file:
            return Catalog(
                {}, {DIR: f"{shown} must be a folder that contains a folder for each model; got a file"}
            )
        models: dict[str, Mapping[int, IndexedVersion]] = {}
        problems: dict[str, str] = {}
        for name, names in folder_layout.models_in(entry.name for entry in listing.entries).items():
            if not safe_name(name):
                problems[name] = f"{shown}: {name!r} is not a valid name of a model"
                continue
            below = Listing(tuple(e for e in listing.entries if e.name.startswith(f"{name}/")))
            assert len(names) <= len(below.entries)
            found = self._model(name, location.uri, f"{name}/", below, local, f"{shown.rstrip('/')}/{name}")
            models |= found.models
            problems |= found.problems
        if not models and not problems:
            problems[DIR] = f"{shown} must contain a folder for each model; found none"
        return Catalog(models, problems)

    def _model(
        self, name: str, location: str, base: str, listing: Listing, local: Path | None, shown: str
    ) -> Catalog:
        entries = listing.entries
        if listing.is_file:
            file = entries[0]
            archive = folder_layout.lone_archive([file.name])
            if archive is None and (wrong := folder_layout.check(self.kind, [file.name])):
                return Catalog({}, {key(name): folder_layout.describe(self.kind, [file.name], shown, wrong)})
            item = self._indexed_version(name, 1, location, "", [file], local, archive, file=file.name)
            return Catalog({name: {1: item}}, {})
        names = [entry.name.removeprefix(base) for entry in entries]
        try:
            found = folder_layout.read(self.kind, names, shown)
        except folder_layout.InvalidLayout as error:
            return Catalog({}, {key(name): str(error)})
        versions = {}
        for number, folder in found.versions.items():
            prefix = base + folder
            inside = [entry for entry in entries if entry.name.startswith(prefix)]
            packed = (
                None
                if self.kind == "python"
                else folder_layout.lone_archive([e.name.removeprefix(prefix) for e in inside])
            )
            versions[number] = self._indexed_version(name, number, location, prefix, inside, local, packed)
        problems = {key(name, number): problem for number, problem in found.problems.items()}
        return Catalog({name: versions}, problems)

    def _indexed_version(
        self,
        name: str,
        number: int,
        location: str,
        prefix: str,
        entries: list[Entry],
        local: Path | None,
        archive: str | None,
        file: str | None = None,
    ) -> IndexedVersion:
        stamp = stamp_of(self.kind, location, prefix, entries)
        is_local = local is not None and archive is None and self.serves_local_files
        if is_local:
            assert local is not None
            path = local / prefix
        else:
            path = self.models / name / stamp / str(number)
            if file is not None and archive is None:
                path /= file
        size = sum(entry.size or 0 for entry in entries)
        return IndexedVersion(name, number, stamp, location, prefix, str(path), is_local, archive, size)


DIR = "dir"
"""The key of problems with a whole `dir`."""


def key(name: str, version: int | None = None) -> str:
    """Return the key of a problem: the name of the model, or of a version."""
    shown = "model" if name == DEFAULT_NAME else name
    return shown if version is None else f"{shown} {version}"
