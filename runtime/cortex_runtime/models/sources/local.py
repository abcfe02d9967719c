"""Local files: in the project, at an absolute path, or on a volume claim that is mounted into the pod."""

import os
import shutil
from pathlib import Path

from cortex_api.contract import CLAIMS_FOLDER
from cortex_runtime.errors import StartError
from cortex_runtime.models.download_progress import Progress
from cortex_runtime.models.sources.base import Changed, Entry, Listing

CLAIMS = Path(CLAIMS_FOLDER)
"""The folder in which volume claims are mounted, each by its name."""

_CHUNK = 1024 * 1024


class LocalSource:
    """A file or a folder. hidden: whether names that begin with a dot are included."""

    def __init__(self, shown: str, path: Path, *, hidden: bool = False) -> None:
        self.shown = shown
        self._hidden = hidden
        self.local: Path | None = path
        self._path = path

    def listing(self, below: str = "") -> Listing:
        """Return the existing files. Raises StartError (ModelNotFound, ModelAccessDenied, ModelUnavailable)."""
        path = self._path
        try:
            if path.is_file():
                return Listing((_entry(path, path.name),), is_file=True)
            if not path.is_dir():
                raise StartError("ModelNotFound", f"{path} does not exist")
            return Listing(tuple(self._walk()))
        except PermissionError as error:
            raise StartError(
                "ModelAccessDenied", f"failed to read {error.filename or path}: permission denied"
            ) from error
        except OSError as error:
            raise StartError("ModelUnavailable", f"failed to read {path}: {error}") from error

    def _walk(self) -> list[Entry]:
        entries = []
        real = {str(self._path): os.path.realpath(self._path)}
        for folder, folders, files in os.walk(self._path, onerror=_raise, followlinks=True):
            above = [real[str(path)] for path in (Path(folder), *Path(folder).parents) if str(path) in real]
            folders[:] = sorted(filter(self._is_included, folders))
            for name in folders[:]:
                inside = os.path.join(folder, name)
                real[inside] = os.path.realpath(inside)
                if real[inside] in above:
                    # A link to a parent folder.
                    folders.remove(name)
            for name in sorted(filter(self._is_included, files)):
                file = Path(folder, name)
                try:
                    # No pipes or devices, which could block.
                    if file.is_file():
                        entries.append(_entry(file, file.relative_to(self._path).as_posix()))
                except FileNotFoundError:
                    # Deleted since the folder was listed.
                    continue
        return entries

    def _is_included(self, name: str) -> bool:
        return self._hidden or not name.startswith(".")

    def fetch(self, entry: Entry, target: Path, progress: Progress) -> None:
        """Copy one file. Raises Changed if it has changed since it was listed."""
        path = self._path if self._path.is_file() else self._path / entry.name
        try:
            with path.open("rb") as source, target.open("xb") as copy:
                while chunk := source.read(_CHUNK):
                    copy.write(chunk)
                    progress.add(len(chunk))
                copy.flush()
                os.fsync(copy.fileno())
            shutil.copymode(path, target)
            if _entry(path, entry.name) != entry:
                raise Changed
        except FileNotFoundError as error:
            raise Changed from error


def _entry(path: Path, name: str) -> Entry:
    status = path.stat()
    return Entry(name, status.st_size, f"{status.st_mtime_ns}-{status.st_size}-{status.st_ino}")


def _raise(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        raise error
