"""What TensorFlow Serving shall have loaded: a folder of folders, one for each version of a model.

The list that all processes of a replica share is the listing of this folder, and when a model was last used is the time of its
folder. What a folder holds stays as it is until it is unloaded, whatever becomes of the model's own files.
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

    name: unique for the content, so that a version whose files changed is loaded beside the one that it replaces.
    base_path: holds a folder named by the version.
    """

    name: str
    version: int
    base_path: Path


@dataclass(frozen=True)
class Limits:
    """What may be loaded at once, by all processes together. None: no limit."""

    count: int | None = None
    bytes: int | None = None

    def leaving(self, held: Sequence[tuple[Servable, int]], new: int) -> list[Servable]:
        """What has to leave before something of `new` bytes comes. held: servables and their bytes, in the order of leaving."""
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
    """The folder of all servables of this replica. Files are hard links: they cost no space while the model is there too."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def prepare(self) -> None:
        """Make the folder, and remove what a process that was killed has left. Called with the lock, once it is there."""
        for entry in self.root.iterdir():
            if entry.name.startswith(".") and entry.name != LOCK:
                shutil.rmtree(entry, ignore_errors=True)

    def servable(self, version: Version) -> Servable:
        """The servable of a version, whether its folder is there or not."""
        digest = hashlib.sha256(f"{version.version}\n{version.stamp}".encode()).hexdigest()[:10]
        name = f"{version.name}@{digest}"
        return Servable(name, version.version, self.root / name)

    def listing(self) -> list[Servable]:
        """All servables whose folders are there, the least recently used first."""
        found = []
        for folder in self.root.iterdir():
            if folder.name.startswith("."):
                continue
            try:
                (inside,) = folder.iterdir()
                found.append((folder.stat().st_mtime_ns, Servable(folder.name, int(inside.name), folder)))
            except FileNotFoundError:
                # Another process has dropped it just now.
                continue
        return [servable for _, servable in sorted(found, key=lambda entry: (entry[0], entry[1].name))]

    def has(self, servable: Servable) -> bool:
        """Whether a servable is on the list."""
        return servable.base_path.is_dir()

    def touch(self, servable: Servable) -> None:
        """Note that a servable is used. Raises FileNotFoundError when it is not on the list."""
        os.utime(servable.base_path)

    def make(self, version: Version) -> None:
        """Put a version on the list. Raises OSError."""
        servable = self.servable(version)
        if self.has(servable):
            return
        made = self._hidden(servable)
        try:
            # What begins with a dot belongs to Kubernetes' volumes, or to nobody.
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
        """Take a servable off the list. Returns whether it was on it."""
        try:
            aside = self.take(servable)
        except FileNotFoundError:
            return False
        shutil.rmtree(aside, ignore_errors=True)
        return True

    def take(self, servable: Servable) -> Path:
        """Take a servable off the list, but keep its files, at the path returned. Raises FileNotFoundError."""
        return servable.base_path.rename(self._hidden(servable))

    def _hidden(self, servable: Servable) -> Path:
        return self.root / f".{servable.name}.{uuid.uuid4().hex}"


def size_of(path: Path) -> int:
    """Bytes of all files below a folder."""
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


def _link(source: str, target: str) -> str:
    try:
        os.link(os.path.realpath(source), target)
    except OSError:
        # Another file system, or one without links: a copy.
        shutil.copy2(source, target)
    return target
