"""Find, measure and stop all processes of a server, using /proc."""

import os
import signal
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")
_MIB = 1024
END_S = 10.0


@dataclass(frozen=True)
class Member:
    """A process.

    began: start time in clock ticks, which distinguishes it from a later process with the same pid.
    cpu: CPU time in seconds, including terminated children.
    """

    pid: int
    parent: int
    began: int
    cpu: float


def family(root: int) -> list[Member]:
    """Return a process and all its descendants."""
    members = {member.pid: member for member in map(_read, _pids()) if member is not None}
    found, level = [], {root}
    while level:
        found += [members[pid] for pid in level if pid in members]
        level = {member.pid for member in members.values() if member.parent in level}
    return found


def memory(members: list[Member]) -> tuple[float, float]:
    """Return the total resident set size (RSS) and proportional set size (PSS) of processes in MiB."""
    resident = share = 0
    for member in members:
        with suppress(OSError):
            lines = Path(f"/proc/{member.pid}/smaps_rollup").read_text().splitlines()
            sizes = {
                name: int(rest.split()[0]) for name, _, rest in (line.partition(":") for line in lines[1:])
            }
            resident, share = resident + sizes["Rss"], share + sizes["Pss"]
    return resident / _MIB, share / _MIB


def end(process: subprocess.Popen[bytes]) -> None:
    """Terminate a process, then kill its remaining descendants."""
    members = family(process.pid)
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(END_S)
    for member in members:
        now = _read(member.pid)
        if now is not None and now.began == member.began:
            with suppress(ProcessLookupError):
                os.kill(member.pid, signal.SIGKILL)
    process.wait()
    deadline = time.monotonic() + END_S
    while any(_exists(member) for member in members) and time.monotonic() < deadline:
        time.sleep(0.05)


def _exists(member: Member) -> bool:
    now = _read(member.pid)
    return now is not None and now.began == member.began


def _pids() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def _read(pid: int) -> Member | None:
    """Return a running process, or None if it has exited or is a zombie."""
    try:
        # The name is in parentheses and may contain spaces.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    if fields[0] in "ZX":
        return None
    return Member(pid, int(fields[1]), int(fields[19]), sum(map(int, fields[11:15])) / _TICKS)
