"""The heap of the C library. It keeps what was freed, for example the file of a model that has been read."""

import sys


def return_freed_memory() -> None:
    """Return unused pages of the heap to the system. Does nothing without glibc. Takes milliseconds."""
    # Without ctypes, no large library is loaded, and the heap is small.
    if "ctypes" not in sys.modules:
        return
    import ctypes

    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
