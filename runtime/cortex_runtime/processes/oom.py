"""The number of out-of-memory kills in this container, from its cgroup."""

from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")
_COUNTERS = ("memory.events", "memory/memory.oom_control")
"""Files of cgroup v2 and v1."""


def count_kills() -> int:
    """Return the number of processes that the kernel has killed for memory; 0 without a cgroup."""
    for name in _COUNTERS:
        try:
            lines = (CGROUP / name).read_text().splitlines()
        except OSError:
            continue
        for line in lines:
            key, _, value = line.partition(" ")
            if key == "oom_kill":
                return int(value)
    return 0
