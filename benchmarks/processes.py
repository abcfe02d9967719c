"""A server's processes, counted together from /proc: whom it has started, what memory and time they take, and their end."""

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
    """A process. began: its start, in ticks, which tells it from a later one with its number.

    cpu: seconds used, with those of its children that have ended.
    """

    pid: int
    parent: int
    began: int
    cpu: float


def family(root: int) -> list[Member]:
    """A process and all that descend from it."""
    members = {member.pid: member for member in map(_read, _numbers()) if member is not None}
    found, wanted = [], {root}
    while wanted:
        found += [members[pid] for pid in wanted if pid in members]
        wanted = {member.pid for member in members.values() if member.parent in wanted}
    return found


def memory(members: list[Member]) -> tuple[float, float]:
    """MiB that they have resident, added up, and their proportional share (what several of them map counts once)."""
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
    """Ask a process to end; then whatever of its family is still there is killed."""
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
    while any(_is_there(member) for member in members) and time.monotonic() < deadline:
        time.sleep(0.05)


def _is_there(member: Member) -> bool:
    now = _read(member.pid)
    return now is not None and now.began == member.began


def _numbers() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def _read(pid: int) -> Member | None:
    """A process that runs; none when it has ended (a zombie too)."""
    try:
        # The name, in parentheses, may have spaces.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    if fields[0] in "ZX":
        return None
    return Member(pid, int(fields[1]), int(fields[19]), sum(map(int, fields[11:15])) / _TICKS)
