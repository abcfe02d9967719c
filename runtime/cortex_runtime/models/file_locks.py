"""Locks between processes and threads, in files: what several pods share on a volume is fetched once, and not removed while it
is read.

flock: it ends with its process, and on NFS it becomes a lock of the server.
"""

import contextlib
import fcntl
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

_PAUSE = 0.05


class Busy(Exception):
    """Somebody else has the lock."""


@contextlib.contextmanager
def locked(
    path: Path, *, shared: bool = False, wait: Callable[[float], object] | None = None
) -> Iterator[None]:
    """Hold the lock of a file, which is made when it isn't there.

    shared: with others that hold it shared. wait: is called with seconds for which to pause while somebody else has it, and may
    raise to give up; None gives up at once, by Busy.
    """
    descriptor = _acquire(path, fcntl.LOCK_SH if shared else fcntl.LOCK_EX, wait)
    try:
        yield
    finally:
        os.close(descriptor)


def _acquire(path: Path, kind: int, wait: Callable[[float], object] | None) -> int:
    pause = _PAUSE / 10
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
            if _same(descriptor, path):
                return descriptor
            # Removed by who held it before; the next try makes a new one.
            os.close(descriptor)
            continue
        except BlockingIOError:
            os.close(descriptor)
        except BaseException:
            os.close(descriptor)
            raise
        if wait is None:
            raise Busy
        wait(pause)
        pause = min(pause * 2, _PAUSE)


def _same(descriptor: int, path: Path) -> bool:
    try:
        return os.fstat(descriptor).st_ino == path.stat().st_ino
    except FileNotFoundError:
        return False


def sleep(seconds: float) -> None:
    """The plain way to wait."""
    time.sleep(seconds)
