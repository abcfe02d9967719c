"""The files of a project in development mode: the current version, and each file by its checksum, so that it is sent only once.

.cortex-development/files/<sha256>    each file that was received
.cortex-development/project.json      the version that the replica last loaded
handler.py, ...                       the files of that version, or of the one that is being loaded
"""

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from cortex_runtime.models.sources.base import safe_name

FOLDER = ".cortex-development"
_INCOMPLETE = "received-"
_LINKED_BYTES = 1 << 20
"""Size from which a file is a hard link to the received one instead of a copy, which code of the user could change."""


class ProjectFile(NamedTuple):
    """A file of a version. sha256: its checksum in hexadecimal digits. executable: whether its owner may execute it."""

    sha256: str
    executable: bool = False


Version = dict[str, ProjectFile]
"""The files of a project by relative path."""


class InvalidFiles(ValueError):
    """A version has a path outside of the project, or received content does not have its checksum."""


class ProjectFiles:
    """The files of one project. Not safe for concurrent use."""

    def __init__(self, project: Path) -> None:
        self._project = project
        self._store = project / FOLDER / "files"
        self._saved = project / FOLDER / "project.json"
        self._store.mkdir(parents=True, exist_ok=True)
        for incomplete in self._store.parent.glob(f"{_INCOMPLETE}*"):
            incomplete.unlink()
        self._placed: Version = {}

    def saved(self) -> Version | None:
        """Return the version that was last saved, or None. It outlives a restart of the container."""
        try:
            content = json.loads(self._saved.read_bytes())
        except (OSError, ValueError):
            return None
        return {path: ProjectFile(*file) for path, file in content.items()}

    def missing(self, checksums: Iterable[str]) -> list[str]:
        """Return the checksums of the files that were not received yet."""
        return sorted({each for each in checksums if _is_sha256(each) and not (self._store / each).is_file()})

    def receive(self) -> "ReceivedFile":
        """Return a new file to write the content of one file to."""
        return ReceivedFile(self._store)

    def place(self, version: Version) -> None:
        """Write the files of a version into the project and remove those of the previous one. All must have been received.

        Each file is replaced at once, so that a reader finds the previous or the new content. Raises OSError.
        """
        for path in self._placed.keys() - version.keys():
            self._remove(path)
        for path, file in version.items():
            if self._placed.get(path) != file:
                self._write(path, file)
                self._placed[path] = file

    def save(self, version: Version) -> None:
        """Record a version as the last one that was loaded, and remove the received files that it does not contain."""
        content = json.dumps(version).encode()
        fresh = self._saved.with_suffix(".new")
        fresh.write_bytes(content)
        fresh.replace(self._saved)
        used = {file.sha256 for file in version.values()}
        for file in self._store.iterdir():
            if file.name not in used:
                file.unlink()

    def _write(self, path: str, file: ProjectFile) -> None:
        target, content = self._project / path, self._store / file.sha256
        for parent in reversed(target.relative_to(self._project).parents[:-1]):
            folder = self._project / parent
            if folder.is_symlink() or folder.is_file():
                folder.unlink()
            folder.mkdir(exist_ok=True)
        if target.is_dir() and not target.is_symlink():
            shutil.rmtree(target)
        fresh = self._project / FOLDER / "placed"
        fresh.unlink(missing_ok=True)
        if content.stat().st_size >= _LINKED_BYTES and not file.executable:
            os.link(content, fresh)
        else:
            shutil.copyfile(content, fresh)
            fresh.chmod(0o755 if file.executable else 0o644)
        fresh.replace(target)

    def _remove(self, path: str) -> None:
        del self._placed[path]
        with contextlib.suppress(OSError):
            (self._project / path).unlink()
            for parent in (self._project / path).parents:
                if parent == self._project:
                    break
                # Fails for a folder that is not empty.
                parent.rmdir()


class ReceivedFile:
    """The content of a file while it is received. Use as a context manager: an incomplete file is removed."""

    def __init__(self, store: Path) -> None:
        self._store = store
        self._digest = hashlib.sha256()
        descriptor, name = tempfile.mkstemp(dir=store.parent, prefix=_INCOMPLETE)
        self._file, self._path = os.fdopen(descriptor, "wb"), Path(name)

    def __enter__(self) -> "ReceivedFile":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self._path.unlink(missing_ok=True)

    def write(self, content: bytes | memoryview) -> None:
        """Append content. Raises OSError."""
        self._digest.update(content)
        self._file.write(content)

    def finish(self, sha256: str) -> None:
        """Keep the file. Raises InvalidFiles if it does not have this checksum."""
        if self._digest.hexdigest() != sha256:
            raise InvalidFiles(f"the content of {sha256} was damaged on the way; send it again")
        self._file.close()
        # Read-only, because large files are linked into the project.
        self._path.chmod(0o444)
        self._path.replace(self._store / sha256)


def parse_version(content: object) -> Version:
    """Return the version of a message: {PATH: [SHA256, EXECUTABLE]}. Raises InvalidFiles."""
    if not isinstance(content, dict):
        raise InvalidFiles("expected an object with the files of the project")
    version: Version = {}
    for path, file in content.items():
        if not safe_name(path) or path.split("/")[0] == FOLDER:
            raise InvalidFiles(f"{path!r} is not a path in the project")
        match file:
            case [str(checksum), bool(executable)] if _is_sha256(checksum):
                version[path] = ProjectFile(checksum, executable)
            case _:
                raise InvalidFiles(f"{path}: expected its checksum and whether it is executable")
    return version


def _is_sha256(text: str) -> bool:
    return len(text) == 64 and all(character in "0123456789abcdef" for character in text)
