"""Huge pages for the weights of models.

A model on the CPU reads all its weights for each call. With pages of 4 KiB, the CPU spends up to a third of that time on the
translation of addresses. Linux collapses pages into huge pages on request (`MADV_COLLAPSE`, Linux 6.1).
"""

import logging
import mmap
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter, sleep

log = logging.getLogger("cortex")

HUGE = 2 << 20
_PAGE = 4096
MINIMUM = 16 << 20
"""Bytes of a mapping. Smaller ones matter less than the time that this takes."""
DELAY = 2.0
"""Seconds until a thread begins: a start does not wait for it, and the first requests are not slowed down."""
_MADV_COLLAPSE = 25
_PRESENT_EXCLUSIVE = 0x81
"""The highest byte of an entry of /proc/self/pagemap for a page in memory that no other process shares."""
_SETTING = Path("/sys/kernel/mm/transparent_hugepage/enabled")


def use_huge_pages(delay: float = DELAY) -> threading.Thread | None:
    """Move the large blocks of memory that are in use now to huge pages, in a thread after `delay` seconds.

    Returns the thread; None if there are no large blocks, or the system does not allow it.
    """
    if not _is_allowed() or not list(_large_mappings()):
        return None
    timer = threading.Timer(delay, _collapse_all)
    timer.name, timer.daemon = "huge-pages", True
    timer.start()
    return timer


def _is_allowed() -> bool:
    if sys.platform != "linux" or mmap.PAGESIZE != _PAGE:
        return False
    try:
        # With "always", the kernel does it without a request.
        return "[madvise]" in _SETTING.read_text()
    except OSError:
        return False


def _large_mappings() -> Iterator[tuple[int, int]]:
    """Yield start and end of each large block of anonymous memory that this process may write."""
    with open("/proc/self/maps", encoding="utf-8", errors="replace") as file:
        for line in file:
            fields = line.split()
            if fields[1] == "rw-p" and fields[4] == "0" and (len(fields) == 5 or fields[5] == "[heap]"):
                start, end = (int(address, 16) for address in fields[0].split("-"))
                if end - start >= MINIMUM:
                    yield start, end


def _collapse_all() -> None:
    import ctypes

    try:
        madvise = ctypes.CDLL(None).madvise
        madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
        for start, end in list(_large_mappings()):
            for block in _filled_blocks(start, end):
                began = perf_counter()
                # Fails on older kernels, and where no huge page is free.
                if madvise(block, HUGE, _MADV_COLLAPSE) != 0:
                    return
                # Half of the time is left to the requests.
                sleep(perf_counter() - began)
    except (OSError, AttributeError):
        log.debug("no huge pages are used", exc_info=True)


def _filled_blocks(start: int, end: int) -> Iterator[int]:
    """Yield the address of each aligned block of 2 MiB whose pages are all in memory, and are not shared with other processes.

    A huge page for another block would use more memory than before.
    """
    first = -(-start // HUGE) * HUGE
    pages = HUGE // _PAGE
    wanted = bytes((_PRESENT_EXCLUSIVE,)) * pages
    with open("/proc/self/pagemap", "rb", buffering=0) as file:
        file.seek(first // _PAGE * 8)
        for block in range(first, end - HUGE + 1, HUGE):
            if file.read(pages * 8)[7::8] == wanted:
                yield block
