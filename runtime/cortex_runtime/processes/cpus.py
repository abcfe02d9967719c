"""How much CPU time the processes of this container may use."""

import os
from pathlib import Path


def available() -> float:
    """Return the number of CPUs, at most the limit of the container (cgroup v2), which may be a fraction."""
    cpus = float(len(os.sched_getaffinity(0)))
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return cpus if quota == "max" else min(cpus, int(quota) / int(period))
    except (OSError, ValueError):
        # Without cgroup v2 no limit can be read.
        return cpus
