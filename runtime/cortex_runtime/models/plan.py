"""What the spec asks for and what its locations hold, put together to a catalogue: pure, the same for every kind of location."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cortex_api.handler import BaseHandler, Models
from cortex_runtime.models import tree
from cortex_runtime.models.catalogue import DEFAULT_NAME, Catalogue, Item
from cortex_runtime.models.disk import stamp_of
from cortex_runtime.models.listing import Entry, Listing, safe_name


@dataclass(frozen=True)
class Place:
    """A location of the spec. name: of the model there; None for a `dir`, which holds several."""

    name: str | None
    location: str


def places(spec: Models) -> list[Place]:
    """The locations that a spec names."""
    if spec.path is not None:
        return [Place(DEFAULT_NAME, spec.path)]
    if spec.paths is not None:
        return [Place(model.name, model.path) for model in spec.paths]
    assert spec.dir is not None
    return [Place(None, spec.dir)]


@dataclass(frozen=True)
class Layout:
    """How a kind of handler has its models on disk. in_place: whether what is local is served from where it lies."""

    kind: str
    models: Path
    in_place: bool

    @classmethod
    def of_handler(cls, handler: BaseHandler, models: Path) -> "Layout":
        """TensorFlow Serving, a container of its own, sees nothing but the folder of models."""
        apart = handler.type == "tensorflow" and bool(os.environ.get("CORTEX_TENSORFLOW_SERVING"))
        return cls(handler.type, models, in_place=not apart)

    def of(self, place: Place, listing: Listing, local: Path | None, shown: str) -> Catalogue:
        """The models at a place, and their problems.

        local: the path of the place when it is on this machine. shown: the place, for messages.
        """
        if place.name is not None:
            return self._model(place.name, place.location, "", listing, local, shown)
        if listing.is_file:
            return Catalogue({}, {DIR: f"{shown} is a file; `dir` is a folder with a folder for each model"})
        models: dict[str, Mapping[int, Item]] = {}
        problems: dict[str, str] = {}
        for name, names in tree.models_in(entry.name for entry in listing.entries).items():
            if not safe_name(name):
                problems[name] = f"{shown}: {name!r} can't be the name of a model"
                continue
            below = Listing(tuple(e for e in listing.entries if e.name.startswith(f"{name}/")))
            assert len(names) <= len(below.entries)
            found = self._model(name, place.location, f"{name}/", below, local, f"{shown.rstrip('/')}/{name}")
            models |= found.models
            problems |= found.problems
        if not models and not problems:
            problems[DIR] = f"{shown} holds no model: each folder in it is one"
        return Catalogue(models, problems)

    def _model(
        self, name: str, location: str, base: str, listing: Listing, local: Path | None, shown: str
    ) -> Catalogue:
        entries = listing.entries
        if listing.is_file:
            file = entries[0]
            archive = tree.lone_archive([file.name])
            if archive is None and (wrong := tree.check(self.kind, [file.name])):
                return Catalogue({}, {key(name): tree.describe(self.kind, [file.name], shown, wrong)})
            item = self._item(name, 1, location, "", [file], local, archive, file=file.name)
            return Catalogue({name: {1: item}}, {})
        names = [entry.name.removeprefix(base) for entry in entries]
        try:
            found = tree.read(self.kind, names, shown)
        except tree.InvalidLayout as error:
            return Catalogue({}, {key(name): str(error)})
        versions = {}
        for number, folder in found.versions.items():
            prefix = base + folder
            inside = [entry for entry in entries if entry.name.startswith(prefix)]
            packed = (
                None
                if self.kind == "python"
                else tree.lone_archive([e.name.removeprefix(prefix) for e in inside])
            )
            versions[number] = self._item(name, number, location, prefix, inside, local, packed)
        problems = {key(name, number): problem for number, problem in found.problems.items()}
        return Catalogue({name: versions}, problems)

    def _item(
        self,
        name: str,
        number: int,
        location: str,
        prefix: str,
        entries: list[Entry],
        local: Path | None,
        archive: str | None,
        file: str | None = None,
    ) -> Item:
        stamp = stamp_of(self.kind, location, prefix, entries)
        in_place = local is not None and archive is None and self.in_place
        if in_place:
            assert local is not None
            path = local / prefix
        else:
            path = self.models / name / stamp / str(number)
            if file is not None and archive is None:
                path /= file
        size = sum(entry.size or 0 for entry in entries)
        return Item(name, number, stamp, location, prefix, str(path), in_place, archive, size)


DIR = "dir"
"""The key of what is wrong with a `dir` as a whole."""


def key(name: str, version: int | None = None) -> str:
    """The key of a problem: the model, or one version of it."""
    shown = "model" if name == DEFAULT_NAME else name
    return shown if version is None else f"{shown} {version}"
