"""The files of a local project with their checksums."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from cortex_cli.project_files import files_of


@dataclass(frozen=True)
class LocalFile:
    """A file of the project. size: in bytes."""

    path: Path
    sha256: str
    size: int
    executable: bool


Version = dict[str, LocalFile]
"""The files of a project by relative path."""


class LocalProject:
    """The project in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._known: dict[str, tuple[tuple[int, int, int, int], LocalFile]] = {}

    def scan(self) -> Version:
        """Return the current files. Only changed files are read. Raises PackError, and OSError while a file is being replaced."""
        known, self._known = self._known, {}
        version = {}
        for name, path in files_of(self.folder).items():
            about = path.stat()
            stamp = (about.st_mtime_ns, about.st_size, about.st_ino, about.st_mode)
            before = known.get(name)
            if before is None or before[0] != stamp:
                executable = bool(about.st_mode & 0o100)
                before = stamp, LocalFile(path, _sha256(path), about.st_size, executable)
            self._known[name] = before
            version[name] = before[1]
        return version


def changed_names(before: Version, after: Version) -> list[str]:
    """Return the names of the files that were added, changed or removed, sorted."""
    return sorted(
        name for name in before.keys() | after.keys() if _identity(before, name) != _identity(after, name)
    )


def _identity(version: Version, name: str) -> tuple[str, bool] | None:
    file = version.get(name)
    return None if file is None else (file.sha256, file.executable)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
