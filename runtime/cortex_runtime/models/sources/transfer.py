"""Carries one file over a network that may break: what has arrived is kept, and the rest is asked for again after a pause.

What a server says of the content is checked: its size and, where it is known, its MD5.
"""

import hashlib
import os
import random
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TypeVar

from cortex_runtime.errors import StartError
from cortex_runtime.models.download_progress import Progress
from cortex_runtime.models.sources.base import Changed

R = TypeVar("R")

PAUSES = (0.2, 0.5, 1.0, 2.0, 4.0, 8.0)
"""Seconds between attempts of which none got further."""
_LONGEST_ASKED = 30.0


class TransientError(Exception):
    """What may go better soon. after: seconds, when the server asks for them. whole: what has arrived is wrong."""

    def __init__(self, problem: str, after: float | None = None, whole: bool = False) -> None:
        super().__init__(problem)
        self.after = after
        self.whole = whole


@dataclass(frozen=True)
class ContentPart:
    """The content from an offset on: the one that was asked for, or 0. md5: of all of it, in hexadecimal, when it is known."""

    offset: int
    chunks: Iterator[bytes]
    md5: str | None = None


class RetryPauses:
    """Counts the attempts. where: for messages. wait: pauses for seconds, and may raise to give up."""

    def __init__(self, where: str, wait: Callable[[float], object]) -> None:
        self._where = where
        self._wait = wait
        self._used = 0

    def again(self, problem: TransientError) -> None:
        """Pause before the next attempt. Raises StartError (ModelUnavailable) when there have been enough."""
        if self._used == len(PAUSES):
            tries = self._used + 1
            raise StartError("ModelUnavailable", f"{self._where}: {problem} ({tries} attempts)") from problem
        pause = PAUSES[self._used] * random.uniform(0.5, 1.0)
        self._used += 1
        self._wait(max(pause, min(problem.after or 0.0, _LONGEST_ASKED)))

    def restored(self) -> None:
        """It went on, so later problems are new ones."""
        self._used = 0


def retry(attempt: Callable[[], R], where: str, wait: Callable[[float], object]) -> R:
    """The result of the first attempt that doesn't raise TransientError. Raises StartError (ModelUnavailable)."""
    pauses = RetryPauses(where, wait)
    while True:
        try:
            return attempt()
        except TransientError as problem:
            pauses.again(problem)


def transfer(
    read: Callable[[int], AbstractContextManager[ContentPart]],
    target: Path,
    size: int | None,
    where: str,
    progress: Progress,
) -> None:
    """Write a content to a new file, and to the disk under it.

    read: opens the content from an offset on. size: in bytes, when it is known.
    Raises StartError (ModelUnavailable), and what `read` and `progress` raise.
    """
    pauses = RetryPauses(where, progress.wait)
    furthest = 0
    with target.open("xb") as file:
        content = _Content(file, progress)
        while True:
            try:
                with read(content.size) as part:
                    if part.offset != content.size:
                        # A server that knows no ranges begins at the beginning.
                        content.restart()
                    for chunk in part.chunks:
                        content.add(chunk)
                        if content.size > furthest:
                            furthest = content.size
                            pauses.restored()
                    content.check(size, part.md5)
                break
            except TransientError as problem:
                pauses.again(problem)
                if problem.whole:
                    content.restart()
        file.flush()
        os.fsync(file.fileno())


class _Content:
    """What has arrived of a file. size: in bytes."""

    def __init__(self, file: BinaryIO, progress: Progress) -> None:
        self._file = file
        self._progress = progress
        self._digest = hashlib.md5(usedforsecurity=False)
        self.size = 0

    def add(self, chunk: bytes) -> None:
        self._file.write(chunk)
        self._digest.update(chunk)
        self.size += len(chunk)
        self._progress.add(len(chunk))

    def restart(self) -> None:
        self._file.seek(0)
        self._file.truncate()
        self._progress.add(-self.size)
        self._digest = hashlib.md5(usedforsecurity=False)
        self.size = 0

    def check(self, size: int | None, md5: str | None) -> None:
        if size is not None and self.size > size:
            raise Changed
        if size is not None and self.size < size:
            raise TransientError(f"the answer ended after {self.size} of {size} bytes")
        if md5 is not None and md5 != self._digest.hexdigest():
            raise TransientError("what arrives has another checksum (MD5) than the server says", whole=True)
