"""File locks between threads, processes and pods that share a volume.

They use flock, which is released when the process exits. On NFS it locks on the server.
"""

import contextlib
import fcntl
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

_PAUSE = 0.05


class Busy(Exception):
    """Another thread or process has the lock."""


@contextlib.contextmanager
def locked(
    path: Path, *, shared: bool = False, wait: Callable[[float], object] | None = None
) -> Iterator[None]:
    """Acquire the lock of a file, which is created if it does not exist, and release it at the end.

    shared: acquire it together with other shared owners. wait: called with a number of seconds to pause while it is locked; may
    raise to give up. None raises Busy at once.
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
            if _is_same_file(descriptor, path):
                return descriptor
            # The previous owner has deleted the file. Try again with a new one.
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


def _is_same_file(descriptor: int, path: Path) -> bool:
    try:
        return os.fstat(descriptor).st_ino == path.stat().st_ino
    except FileNotFoundError:
        return False


def sleep(seconds: float) -> None:
    """Wait, without a way to give up."""
    time.sleep(seconds)
