"""Models on this machine: in the project, at an absolute path, or on a volume claim that is mounted into the pod."""

import os
import shutil
from pathlib import Path

from cortex_api.contract import CLAIMS_FOLDER
from cortex_runtime.errors import StartError
from cortex_runtime.models.download_progress import Progress
from cortex_runtime.models.sources.base import Changed, Entry, Listing

CLAIMS = Path(CLAIMS_FOLDER)
"""Where the pod has its volume claims, each under its name."""

_CHUNK = 1024 * 1024


class LocalSource:
    """A file or a folder. hidden: whether entries that begin with a dot count."""

    def __init__(self, shown: str, path: Path, *, hidden: bool = False) -> None:
        self.shown = shown
        self._hidden = hidden
        self.local: Path | None = path
        self._path = path

    def listing(self, below: str = "") -> Listing:
        """What is there now. Raises StartError: ModelNotFound, ModelAccessDenied, ModelUnavailable."""
        path = self._path
        try:
            if path.is_file():
                return Listing((_entry(path, path.name),), is_file=True)
            if not path.is_dir():
                raise StartError("ModelNotFound", f"{path} does not exist")
            return Listing(tuple(self._walk()))
        except PermissionError as error:
            raise StartError(
                "ModelAccessDenied", f"{error.filename or path} can't be read: permission denied"
            ) from error
        except OSError as error:
            raise StartError("ModelUnavailable", f"{path} can't be read: {error}") from error

    def _walk(self) -> list[Entry]:
        entries = []
        real = {str(self._path): os.path.realpath(self._path)}
        for folder, folders, files in os.walk(self._path, onerror=_raise, followlinks=True):
            above = [real[str(path)] for path in (Path(folder), *Path(folder).parents) if str(path) in real]
            folders[:] = sorted(filter(self._counts, folders))
            for name in folders[:]:
                inside = os.path.join(folder, name)
                real[inside] = os.path.realpath(inside)
                if real[inside] in above:
                    # A link to a folder around it.
                    folders.remove(name)
            for name in sorted(filter(self._counts, files)):
                file = Path(folder, name)
                try:
                    # Nothing that blocks who opens it.
                    if file.is_file():
                        entries.append(_entry(file, file.relative_to(self._path).as_posix()))
                except FileNotFoundError:
                    # Gone since the folder was read.
                    continue
        return entries

    def _counts(self, name: str) -> bool:
        return self._hidden or not name.startswith(".")

    def fetch(self, entry: Entry, target: Path, progress: Progress) -> None:
        """Copy one file. Raises Changed when it is another one by now."""
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
