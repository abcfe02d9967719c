"""The first process of a container reaps the processes that it adopts, and none that it waits for itself."""

import os
import subprocess
import sys

import pytest

from cortex_runtime.processes.orphans import OrphanReaper

CONTAINER = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]
PROGRAM = """
import os, subprocess, time
from cortex_runtime.processes.orphans import OrphanReaper, _children
assert os.getpid() == 1
reaper = OrphanReaper()
waited_for = subprocess.Popen(["sh", "-c", "exit 7"])
subprocess.run(["sh", "-c", "true & exit 0"], check=True)
os.waitid(os.P_PID, waited_for.pid, os.WEXITED | os.WNOWAIT)
while len(_children()) < 2:
    time.sleep(0.01)
reaper.reap()
assert waited_for.wait() == 7
(orphan,) = _children()
os.waitid(os.P_PID, orphan, os.WEXITED | os.WNOWAIT)
reaper.reap()
reaper.reap()
assert _children() == []
"""


def can_make_namespaces():
    try:
        return subprocess.run([*CONTAINER, "true"], capture_output=True).returncode == 0
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not can_make_namespaces(), reason="needs permission to create a PID namespace")
def test_adopted_processes_are_reaped():
    subprocess.run([*CONTAINER, sys.executable, "-c", PROGRAM], check=True, timeout=60)


def test_other_processes_reap_no_child():
    child = subprocess.Popen(["sh", "-c", "exit 3"])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    reaper = OrphanReaper()
    reaper.reap()
    reaper.reap()
    assert child.wait() == 3
