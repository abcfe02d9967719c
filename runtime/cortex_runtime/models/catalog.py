"""Which models and versions an API has at a moment, as the supervisor found them and the workers read them: plain values and
their JSON. The file lies in the folder of models and is replaced as a whole.
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
"""Name of the model of an API that has one."""


@dataclass(frozen=True)
class Version:
    """One version of a model on this machine.

    path: a folder; or the file, when the location names one. What was fetched never changes in place: another content has another
    path, and the folder of a version has its number as name. stamp: changes when the content changes. size: bytes on disk.
    """

    name: str
    version: int
    path: Path
    stamp: str
    size: int = 0


@dataclass(frozen=True)
class IndexedVersion:
    """A version as the index has it.

    location, prefix: where its files come from ("" or "3/" below the location). path: as in Version. is_local: it is served from
    where it lies, and nothing is fetched. archive: name of the file to unpack. files: how many. size: bytes, as far as known.
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
        """Name and version for messages."""
        return title(self.name, self.version)

    def as_version(self) -> Version:
        """What a client gets."""
        return Version(self.name, self.version, Path(self.path), self.stamp, self.size)


@dataclass(frozen=True)
class Catalog:
    """All models: name to version to item. problems: what is wrong now, by model ("iris", "iris 3"). previous: by name and
    version what was there before, as long as nobody has loaded what is there now."""

    models: Mapping[str, Mapping[int, IndexedVersion]] = field(default_factory=dict)
    problems: Mapping[str, str] = field(default_factory=dict)
    previous: Mapping[tuple[str, int], IndexedVersion] = field(default_factory=dict)

    @property
    def single(self) -> str | None:
        """The name of the only model when the spec gives a path, else None."""
        return DEFAULT_NAME if DEFAULT_NAME in self.models else None

    def items(self) -> Iterable[IndexedVersion]:
        """All versions of all models."""
        return [item for versions in self.models.values() for item in versions.values()]

    def candidates(self, name: str | None, version: str | int | None) -> list[IndexedVersion]:
        """The items that a caller's name and version may mean, the best first: for "latest" all versions, the highest first.

        Raises UserError: 404 for what is not there, with what is; 400 for a version that is no number.
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
            raise UserError(f"model version {text[:40]!r} is neither a number nor 'latest'")
        found = versions.get(int(text))
        if found is None:
            numbers = ", ".join(str(number) for number in sorted(versions))
            raise UserError(
                f"version {text} of {title(str(known))} does not exist (available: {numbers})", 404
            )
        return [found]

    def to_json(self) -> bytes:
        """For the index."""
        content = {
            "items": [asdict(item) for item in self.items()],
            "previous": [asdict(item) for item in self.previous.values()],
            "problems": dict(self.problems),
        }
        return json.dumps(content, indent=1).encode()

    @classmethod
    def from_json(cls, content: bytes) -> "Catalog":
        """The catalog of an index. Raises ValueError, KeyError or TypeError when it is none."""
        data = json.loads(content)
        models: dict[str, dict[int, IndexedVersion]] = {}
        for fields in data["items"]:
            item = IndexedVersion(**fields)
            models.setdefault(item.name, {})[item.version] = item
        previous = [IndexedVersion(**fields) for fields in data["previous"]]
        return cls(models, data["problems"], {(item.name, item.version): item for item in previous})


def title(name: str, version: int | None = None) -> str:
    """A model, or a version of it, in words."""
    words = "the model" if name == DEFAULT_NAME else f"model {name}"
    return (
        words
        if version is None
        else f"{words} {version}"
        if name != DEFAULT_NAME
        else f"version {version} of {words}"
    )


def index_path(models: Path, handler: "BaseHandler") -> Path:
    """The index of an API in the folder of models. Other APIs, and other generations of it, may share the folder: each set of
    `handler.models` has its own."""
    spec: object = None
    if (given := handler.models) is not None:
        spec = (
            given.path,
            given.dir,
            [(each.name, each.path, each.signature_key) for each in given.paths or ()],
        )
    return models / f"index-{hashlib.sha256(f'{handler.type} {spec}'.encode()).hexdigest()[:12]}.json"


def write_index(path: Path, catalog: Catalog) -> None:
    """Replace the index as a whole."""
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=".index-")
    with os.fdopen(descriptor, "wb") as file:
        file.write(catalog.to_json())
    os.chmod(temporary, 0o644)
    Path(temporary).replace(path)
