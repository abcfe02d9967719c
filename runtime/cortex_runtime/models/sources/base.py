"""The interface of sources, the listing of a location, and checks of names before they become paths."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from cortex_runtime.errors import StartError
from cortex_runtime.models.download_progress import Progress

_DRIVE = re.compile(r"^[A-Za-z]:").match


@dataclass(frozen=True)
class Entry:
    """A file.

    name: relative to the location, separated by "/". size: bytes; None if unknown. tag: changes with the content: an ETag, or
    time and size.
    """

    name: str
    size: int | None
    tag: str


@dataclass(frozen=True)
class Listing:
    """All files of a location. is_file: whether the location is a file, which is then the only entry."""

    entries: tuple[Entry, ...]
    is_file: bool = False


class Source(Protocol):
    """A location from which models or code are downloaded. All methods raise StartError after the last attempt."""

    shown: str
    """The location for messages, without secrets."""
    local: Path | None
    """The path, if it is on this machine."""

    def listing(self, below: str = "") -> Listing:
        """Return the existing files. below: a prefix; other names may be missing. Raises StartError (ModelNotFound if none)."""

    def fetch(self, entry: Entry, target: Path, progress: Progress) -> None:
        """Write the content of an entry to a new file. Raises Changed if it has changed since it was listed."""


class Changed(Exception):
    """The files have changed since they were listed. List them again."""


def safe_name(name: str) -> bool:
    """Return whether a relative name stays inside its folder: without "..", drive or empty part, and not absolute."""
    if not name or "\\" in name or "\0" in name or _DRIVE(name):
        return False
    return all(part not in ("", ".", "..") for part in name.split("/"))


def require_safe(name: str, where: str) -> str:
    """Return the name. Raises StartError (ModelInvalid) if it is outside of its folder."""
    if not safe_name(name):
        raise StartError(
            "ModelInvalid", f"{where}: the path of entry {name!r} is outside of the model's folder"
        )
    return name
