"""The kernel kills a worker for memory while its container keeps running: the reason is OutOfMemory."""

import asyncio
import socket
import sys

import pytest

from cortex_runtime.errors import StartError
from cortex_runtime.processes import oom
from cortex_runtime.processes.child_process import ChildProcess


@pytest.fixture
def counted(tmp_path, monkeypatch):
    """Return a function that sets the number of out-of-memory kills of the cgroup."""
    monkeypatch.setattr(oom, "CGROUP", tmp_path)

    def write(kills):
        (tmp_path / "memory.events").write_text(f"low 0\nhigh 0\nmax 7\noom 1\noom_kill {kills}\n")

    write(3)
    return write


@pytest.mark.parametrize(
    ("kills", "reason", "words"),
    [(4, "OutOfMemory", "raise compute.mem"), (3, "HandlerInitError", "was killed by SIGKILL")],
)
async def test_the_oom_counter_of_the_cgroup_decides_the_reason(counted, kills, reason, words):
    ours, theirs = socket.socketpair()
    with theirs:
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", "input()", stdin=-1)
        reports, control = await asyncio.open_connection(sock=ours)
        worker = ChildProcess(process, control, reports, 0)
        counted(kills)
        process.kill()
    with pytest.raises(StartError) as raised:
        await worker.wait_until_ready()
    assert raised.value.reason == reason
    assert words in raised.value.message
    control.close()


def test_without_a_cgroup_the_oom_count_is_zero(tmp_path, monkeypatch):
    monkeypatch.setattr(oom, "CGROUP", tmp_path / "nowhere")
    assert oom.count_kills() == 0
