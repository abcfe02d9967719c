"""The resident memory of this process."""

import os


def resident_bytes() -> int | None:
    """Return the resident memory of this process in bytes, including what it shares with others; None outside of Linux."""
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return None
