"""The servables that TensorFlow Serving must load: a folder with one folder for each version of a model.

The processes of a replica share one list, which is the listing of this folder; the time of a folder is that of its last use.
The files of a servable stay until it is unloaded, even if the model's own files change.
"""

import hashlib
import os
import shutil
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cortex_runtime.models.repository import Version

LOCK = ".lock"


@dataclass(frozen=True)
class Servable:
    """A version of a model as TensorFlow Serving knows it.

    name: unique for the content, so that a version whose files changed is loaded before the old one is unloaded. base_path:
    contains a folder that is named by the version.
    """

    name: str
    version: int
    base_path: Path


@dataclass(frozen=True)
class Limits:
    """Limits of all processes together. None: no limit."""

    count: int | None = None
    bytes: int | None = None

    def leaving(self, held: Sequence[tuple[Servable, int]], new: int) -> list[Servable]:
        """Return the servables to unload before `new` bytes are loaded. held: servables and their bytes, the first to unload
        first."""
        count, size = len(held) + 1, sum(size for _, size in held) + new
        leaving = []
        for servable, its_size in held:
            if (self.count is None or count <= self.count) and (self.bytes is None or size <= self.bytes):
                break
            leaving.append(servable)
            count -= 1
            size -= its_size
        return leaving


class ServableFolder:
    """The folder of the servables of this replica. Its files are hard links, which take no extra space."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def prepare(self) -> None:
        """Create the folder, and remove what a killed process has left. Called with the lock, once the folder exists."""
        for entry in self.root.iterdir():
            if entry.name.startswith(".") and entry.name != LOCK:
                shutil.rmtree(entry, ignore_errors=True)

    def servable(self, version: Version) -> Servable:
        """Return the servable of a version, whether its folder exists or not."""
        digest = hashlib.sha256(f"{version.version}\n{version.stamp}".encode()).hexdigest()[:10]
        name = f"{version.name}@{digest}"
        return Servable(name, version.version, self.root / name)

    def listing(self) -> list[Servable]:
        """Return all servables whose folders exist, the least recently used first."""
        found = []
        for folder in self.root.iterdir():
            if folder.name.startswith("."):
                continue
            try:
                (inside,) = folder.iterdir()
                found.append((folder.stat().st_mtime_ns, Servable(folder.name, int(inside.name), folder)))
            except FileNotFoundError:
                # Another process has just removed it.
                continue
        return [servable for _, servable in sorted(found, key=lambda entry: (entry[0], entry[1].name))]

    def has(self, servable: Servable) -> bool:
        """Return whether a servable is in the list."""
        return servable.base_path.is_dir()

    def touch(self, servable: Servable) -> None:
        """Mark a servable as used. Raises FileNotFoundError if it is not in the list."""
        os.utime(servable.base_path)

    def make(self, version: Version) -> None:
        """Add a version to the list. Raises OSError."""
        servable = self.servable(version)
        if self.has(servable):
            return
        made = self._hidden(servable)
        try:
            # Names that begin with a dot belong to Kubernetes volumes or are hidden.
            ignore = shutil.ignore_patterns(".*")
            shutil.copytree(version.path, made / str(version.version), copy_function=_link, ignore=ignore)
            os.utime(made)
            made.rename(servable.base_path)
        except shutil.Error as error:
            first = error.args[0][0]
            raise OSError(f"{first[0]}: {first[2]}") from error
        finally:
            shutil.rmtree(made, ignore_errors=True)

    def drop(self, servable: Servable) -> bool:
        """Remove a servable from the list. Return whether it was in the list."""
        try:
            aside = self.take(servable)
        except FileNotFoundError:
            return False
        shutil.rmtree(aside, ignore_errors=True)
        return True

    def take(self, servable: Servable) -> Path:
        """Remove a servable from the list, but keep its files, and return their path. Raises FileNotFoundError."""
        return servable.base_path.rename(self._hidden(servable))

    def _hidden(self, servable: Servable) -> Path:
        return self.root / f".{servable.name}.{uuid.uuid4().hex}"


def size_of(path: Path) -> int:
    """Return the bytes of all files below a folder."""
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


def _link(source: str, target: str) -> str:
    try:
        os.link(os.path.realpath(source), target)
    except OSError:
        # On another file system, or one without links: a copy.
        shutil.copy2(source, target)
    return target
