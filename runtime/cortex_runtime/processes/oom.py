"""Whether the kernel has killed a process of this container for memory, as the container's cgroup counts it."""

from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")
_COUNTERS = ("memory.events", "memory/memory.oom_control")
"""Files of cgroup v2 and v1."""


def count() -> int:
    """How often it has; 0 where nobody counts."""
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
