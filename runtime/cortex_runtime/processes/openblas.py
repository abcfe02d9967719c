"""Imports numpy into a process that is forked, without the threads that OpenBLAS starts when it is loaded.

There is one for each further CPU, and each waits busily for about 0.1 seconds of CPU time. A forked process has the usual number
of threads: OpenBLAS starts them when they are first used.
"""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_VARIABLE = "OPENBLAS_NUM_THREADS"
_VARIABLES = {_VARIABLE, "GOTO_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_DEFAULT_NUM_THREADS"}
_NAMES = [(prefix, suffix) for prefix in ("scipy_openblas", "openblas") for suffix in ("64_", "")]
"""Prefixes and suffixes of the functions: in the wheels of numpy, and in other builds."""


class OpenBlas:
    """The OpenBLAS of this process."""

    def __init__(self) -> None:
        self._is_limited = False

    @contextlib.contextmanager
    def without_threads(self) -> Iterator[None]:
        """Import modules in the block. The environment of the user decides if it sets the number of threads."""
        if self._is_limited or _library() is not None or not _VARIABLES.isdisjoint(os.environ):
            yield
            return
        os.environ[_VARIABLE] = "1"
        try:
            yield
        finally:
            del os.environ[_VARIABLE]
        self._is_limited = _library() is not None

    def restore(self) -> bool:
        """Set the usual number of threads. Call it directly before a fork, which ends the threads of this process.

        Return False if that is not possible; then this process must not be forked.
        """
        if not self._is_limited:
            return True
        path = _library()
        if path is None:
            return False
        import ctypes

        library: Any = ctypes.CDLL(path)
        for prefix, suffix in _NAMES:
            set_threads = getattr(library, f"{prefix}_set_num_threads{suffix}", None)
            get_processors = getattr(library, f"{prefix}_get_num_procs{suffix}", None)
            if set_threads is not None and get_processors is not None:
                set_threads(get_processors())
                self._is_limited = False
                return True
        return False


def _library() -> str | None:
    """Return the path of OpenBLAS, if it is loaded."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        path = line.partition("/")[2]
        if "openblas" in path.rpartition("/")[2]:
            return f"/{path}"
    return None
