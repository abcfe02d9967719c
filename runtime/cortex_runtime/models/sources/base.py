"""What a location holds, and the interface of the places that it may be in. Names are checked here before any touches a disk."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from cortex_runtime.errors import StartError
from cortex_runtime.models.download_progress import Progress

_DRIVE = re.compile(r"^[A-Za-z]:").match


@dataclass(frozen=True)
class Entry:
    """One file. name: relative to the location, with "/" between folders. size: bytes, None when the server doesn't tell.
    tag: changes with the content; an ETag, or time and size."""

    name: str
    size: int | None
    tag: str


@dataclass(frozen=True)
class Listing:
    """All files of a location. is_file: the location names one file, which is the only entry then."""

    entries: tuple[Entry, ...]
    is_file: bool = False


class Source(Protocol):
    """A place that models or code are fetched from. Everything raises StartError when it goes wrong for good."""

    shown: str
    """The location for messages: without what may be secret in it."""
    local: Path | None
    """The path, when it is on this machine already."""

    def listing(self, below: str = "") -> Listing:
        """What is there now. below: at least all names that begin with it. Raises StartError: ModelNotFound for nothing."""

    def fetch(self, entry: Entry, target: Path, progress: Progress) -> None:
        """Write the content of one entry to a new file. Raises Changed when it is no longer what was listed."""


class Changed(Exception):
    """What was listed has changed since; list again."""


def safe_name(name: str) -> bool:
    """Whether a relative name stays in the folder that it is put into: no "..", no drive, nothing absolute or empty."""
    if not name or "\\" in name or "\0" in name or _DRIVE(name):
        return False
    return all(part not in ("", ".", "..") for part in name.split("/"))


def require_safe(name: str, where: str) -> str:
    """The name. Raises StartError (ModelInvalid) when it would leave its folder."""
    if not safe_name(name):
        raise StartError(
            "ModelInvalid", f"{where}: the entry {name!r} would lie outside of the model's folder; refused"
        )
    return name
