"""The models and versions of an API, as plain values, and the index: their JSON in the folder of models.

The supervisor writes the index, replacing the whole file, and the workers read it.
"""

import hashlib
import json
import os
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from cortex_runtime.errors import UserError

if TYPE_CHECKING:
    from cortex_api.handler import BaseHandler

DEFAULT_NAME = "_cortex_default"
"""Name of the model of an API with a single model."""


@dataclass(frozen=True)
class Version:
    """One version of a model on this machine.

    path: a folder; or a file if the location is a file. Downloaded files never change: new content gets a new path. The name of
    the folder is the number of the version. stamp: a hash that changes with the content. size: bytes on disk.
    """

    name: str
    version: int
    path: Path
    stamp: str
    size: int = 0


@dataclass(frozen=True)
class IndexedVersion:
    """A version in the index.

    location, prefix: the source of its files (the prefix is "" or "3/", relative to the location). path: as in Version. is_local:
    its files are used from their location, without a download. archive: name of the file to unpack. size: bytes, if known.
    """

    name: str
    version: int
    stamp: str
    location: str
    prefix: str
    path: str
    is_local: bool
    archive: str | None
    size: int

    @property
    def label(self) -> str:
        """Name and version, for messages."""
        return title(self.name, self.version)

    def as_version(self) -> Version:
        """Return the version for a client."""
        return Version(self.name, self.version, Path(self.path), self.stamp, self.size)


@dataclass(frozen=True)
class Catalog:
    """The models of an API.

    models: versions by name and number. problems: current problems by model ("iris", "iris 3"). previous: by name and number, the
    previous content of a version whose current content no process has loaded yet.
    """

    models: Mapping[str, Mapping[int, IndexedVersion]] = field(default_factory=dict)
    problems: Mapping[str, str] = field(default_factory=dict)
    previous: Mapping[tuple[str, int], IndexedVersion] = field(default_factory=dict)

    @property
    def single(self) -> str | None:
        """The name of the only model if the spec has a path, else None."""
        return DEFAULT_NAME if DEFAULT_NAME in self.models else None

    def items(self) -> Iterable[IndexedVersion]:
        """Return all versions of all models."""
        return [item for versions in self.models.values() for item in versions.values()]

    def candidates(self, name: str | None, version: str | int | None) -> list[IndexedVersion]:
        """Return the versions that match a caller's name and version, the best first.

        For "latest" these are all versions, the highest first. Raises UserError: 404 if none exists, with the existing ones; 400
        if the version is not a number.
        """
        known = self.single or name
        versions = self.models.get(known) if isinstance(known, str) else None
        if versions is None:
            names = ", ".join(sorted(self.models))
            raise UserError(
                f"model {name!r} does not exist (available: {names})"
                if name
                else f"the request must name a model: {names}",
                404,
            )
        if version is None or version in ("", "latest"):
            return [versions[number] for number in sorted(versions, reverse=True)]
        text = str(version)
        if not (text.isascii() and text.isdecimal()) or len(text) > 18:
            raise UserError(f"model version must be a number or 'latest'; got {text[:40]!r}")
        found = versions.get(int(text))
        if found is None:
            numbers = ", ".join(str(number) for number in sorted(versions))
            raise UserError(
                f"version {text} of {title(str(known))} does not exist (available: {numbers})", 404
            )
        return [found]

    def to_json(self) -> bytes:
        """Return the content of the index."""
        content = {
            "items": [asdict(item) for item in self.items()],
            "previous": [asdict(item) for item in self.previous.values()],
            "problems": dict(self.problems),
        }
        return json.dumps(content, indent=1).encode()

    @classmethod
    def from_json(cls, content: bytes) -> "Catalog":
        """Return the catalog of an index. Raises ValueError, KeyError or TypeError if it is invalid."""
        data = json.loads(content)
        models: dict[str, dict[int, IndexedVersion]] = {}
        for fields in data["items"]:
            item = IndexedVersion(**fields)
            models.setdefault(item.name, {})[item.version] = item
        previous = [IndexedVersion(**fields) for fields in data["previous"]]
        return cls(models, data["problems"], {(item.name, item.version): item for item in previous})


def title(name: str, version: int | None = None) -> str:
    """Return the name of a model or a version, for messages."""
    words = "the model" if name == DEFAULT_NAME else f"model {name}"
    return (
        words
        if version is None
        else f"{words} {version}"
        if name != DEFAULT_NAME
        else f"version {version} of {words}"
    )


def index_path(models: Path, handler: "BaseHandler") -> Path:
    """Return the path of the index of an API.

    Other APIs, and older revisions of this one, may share the folder of models. So each value of `handler.models` has its own
    index.
    """
    spec: object = None
    if (given := handler.models) is not None:
        spec = (
            given.path,
            given.dir,
            [(each.name, each.path, each.signature_key) for each in given.paths or ()],
        )
    return models / f"index-{hashlib.sha256(f'{handler.type} {spec}'.encode()).hexdigest()[:12]}.json"


def write_index(path: Path, catalog: Catalog) -> None:
    """Replace the index atomically."""
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=".index-")
    with os.fdopen(descriptor, "wb") as file:
        file.write(catalog.to_json())
    os.chmod(temporary, 0o644)
    Path(temporary).replace(path)
