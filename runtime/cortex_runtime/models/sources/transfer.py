"""Download one file over an unreliable network: after a failure, continue from the last byte after a pause.

Checks the size and, if known, the MD5 of the content.
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
"""Seconds between consecutive attempts that made no progress."""
_MAX_RETRY_AFTER = 30.0


class TransientError(Exception):
    """An error that a retry may solve. after: seconds to wait, if the server sent them. restart: download all content again."""

    def __init__(self, problem: str, after: float | None = None, restart: bool = False) -> None:
        super().__init__(problem)
        self.after = after
        self.restart = restart


@dataclass(frozen=True)
class ContentPart:
    """Content from an offset: the requested one, or 0. md5: of the whole content, in hexadecimal, if known."""

    offset: int
    chunks: Iterator[bytes]
    md5: str | None = None


class RetryPauses:
    """Counts attempts and pauses between them. where: for messages. wait: pauses for seconds; may raise to give up."""

    def __init__(self, where: str, wait: Callable[[float], object]) -> None:
        self._where = where
        self._wait = wait
        self._used = 0

    def again(self, problem: TransientError) -> None:
        """Pause before the next attempt. Raises StartError (ModelUnavailable) after the last one."""
        if self._used == len(PAUSES):
            tries = self._used + 1
            raise StartError("ModelUnavailable", f"{self._where}: {problem} ({tries} attempts)") from problem
        pause = PAUSES[self._used] * random.uniform(0.5, 1.0)
        self._used += 1
        self._wait(max(pause, min(problem.after or 0.0, _MAX_RETRY_AFTER)))

    def reset(self) -> None:
        """Start counting from zero, because the download made progress."""
        self._used = 0


def retry(attempt: Callable[[], R], where: str, wait: Callable[[float], object]) -> R:
    """Return the result of the first attempt that does not raise TransientError. Raises StartError (ModelUnavailable)."""
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
    """Write content to a new file and sync it to the disk.

    read: opens the content from an offset. size: bytes, if known. Raises StartError (ModelUnavailable), and the exceptions of
    `read` and `progress`.
    """
    pauses = RetryPauses(where, progress.wait)
    furthest = 0
    with target.open("xb") as file:
        content = _Content(file, progress)
        while True:
            try:
                with read(content.size) as part:
                    if part.offset != content.size:
                        # The server does not support ranges.
                        content.restart()
                    for chunk in part.chunks:
                        content.add(chunk)
                        if content.size > furthest:
                            furthest = content.size
                            pauses.reset()
                    content.check(size, part.md5)
                break
            except TransientError as problem:
                pauses.again(problem)
                if problem.restart:
                    content.restart()
        file.flush()
        os.fsync(file.fileno())


class _Content:
    """The downloaded part of a file. size: in bytes."""

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
            raise TransientError(f"the response ended after {self.size} of {size} bytes")
        if md5 is not None and md5 != self._digest.hexdigest():
            raise TransientError("the checksum (MD5) of the response is wrong", restart=True)
