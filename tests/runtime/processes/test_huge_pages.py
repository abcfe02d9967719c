"""Large blocks of memory are moved to huge pages, where the kernel can do it."""

import ctypes
import mmap
from pathlib import Path

import pytest

from cortex_runtime.processes import huge_pages

SIZE = 32 << 20


def huge_bytes(address):
    """Return the bytes of huge pages in the mapping at an address."""
    is_wanted = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        fields = line.split()
        if not fields[0].endswith(":"):
            start, end = (int(number, 16) for number in fields[0].split("-"))
            is_wanted = start <= address < end
        elif is_wanted and fields[0] == "AnonHugePages:":
            return int(fields[1]) << 10
    raise AssertionError("no such mapping")


def address_of(block):
    return ctypes.addressof(ctypes.c_char.from_buffer(block))


@pytest.fixture
def block():
    """Anonymous memory of its own: 32 MiB, none of it in use."""
    memory = mmap.mmap(-1, SIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    yield memory
    memory.close()


def collapse():
    thread = huge_pages.use_huge_pages(delay=0)
    if thread is None:
        pytest.skip("the system does not allow it")
    thread.join()


def can_collapse():
    """Return whether the kernel can do it, and a huge page is free."""
    with mmap.mmap(-1, 2 * huge_pages.HUGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        memory[:] = b"\1" * len(memory)
        first = -(-address_of(memory) // huge_pages.HUGE) * huge_pages.HUGE
        madvise = ctypes.CDLL(None).madvise
        madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
        return madvise(first, huge_pages.HUGE, 25) == 0


def test_memory_in_use_is_moved_to_huge_pages_and_keeps_its_content(block):
    block[:] = bytes(range(256)) * (SIZE // 256)
    address = address_of(block)
    while True:
        # It gives up when no huge page is free, which may change at any moment.
        could = can_collapse()
        collapse()
        if huge_bytes(address) > 0:
            break
        if not (could and can_collapse()):
            pytest.skip("the kernel cannot collapse pages, or no huge page is free")
    assert block[:] == bytes(range(256)) * (SIZE // 256)


def test_memory_that_is_not_in_use_stays_unused(block):
    address = address_of(block)
    block[:: 1 << 20] = b"\1" * (SIZE >> 20)
    collapse()
    assert huge_bytes(address) == 0


def test_nothing_is_done_where_the_administrator_has_disabled_huge_pages(block, monkeypatch, tmp_path):
    block[:] = b"\1" * SIZE
    setting = tmp_path / "enabled"
    setting.write_text("always madvise [never]\n")
    monkeypatch.setattr(huge_pages, "_SETTING", setting)
    assert huge_pages.use_huge_pages(delay=0) is None
