"""No process outlives its supervisor, even if the supervisor is killed while user code holds the interpreter lock; and no
process that a worker has started outlives the worker."""

import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import pytest

from cortex_api import Document, parse

STARTS_A_CHILD = """
import os, re, subprocess
def note():
    child = subprocess.Popen(["sleep", "600"])
    with open("pids", "w") as file:
        file.write(f"{os.getpid()} {child.pid}\\n")
def hold():
    re.match("(a+)+$", "a" * 60 + "b")  # No other thread runs meanwhile, and it takes years.
"""
WHILE_IMPORTED = STARTS_A_CHILD + "note()\nhold()\n"
WHILE_CALLED = (
    STARTS_A_CHILD
    + """
class Handler:
    def handle_post(self):
        note()
        hold()
    def handle_put(self):
        note()
"""
)


def runs(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def until(condition):
    end = time.monotonic() + 60
    while not (result := condition()):
        assert time.monotonic() < end
        time.sleep(0.02)
    return result


@contextmanager
def noted(project):
    """Wait for the output of note(): the processes that must exit."""
    file = project / "pids"
    pids = until(lambda: file.exists() and file.read_text().endswith("\n") and file.read_text().split())
    try:
        assert all(runs(pid) for pid in pids)
        yield pids
        until(lambda: not any(runs(pid) for pid in pids))
    finally:
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)


def test_a_starting_worker_exits_with_its_supervisor(serve):
    api = serve(WHILE_IMPORTED, wait=False)
    with noted(api.project):
        api.process.kill()


def test_a_worker_in_a_call_exits_with_its_supervisor(serve):
    api = serve(WHILE_CALLED)
    with socket.create_connection(("127.0.0.1", api.port)) as client:
        client.sendall(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n")
        with noted(api.project):
            api.process.kill()


def test_an_installation_exits_with_its_supervisor(serve, tmp_path):
    folder = tmp_path / "filled"
    folder.mkdir()
    (folder / "dependencies.sh").write_text('sleep 600 &\necho "$$ $!" > pids\nwait\n')
    api = serve(None, wait=False, project=folder)
    with noted(api.project):
        api.process.kill()


CONSUMER = """
import asyncio, dataclasses, sys
from cortex_runtime.metrics.shared_memory import SharedMetrics
from cortex_runtime.processes.launcher import Launcher
from cortex_runtime.processes.parent_pipe import ParentPipe
from cortex_runtime.processes.template_process import Template
from cortex_runtime.processes.worker_arguments import WorkerArguments
from cortex_runtime.processes.child_process import ChildProcess
async def main(launcher):
    folder, parent_pipe = sys.argv[1], ParentPipe()
    arguments = WorkerArguments(folder + "/api.json", folder, folder, parent_pipe.name)
    metrics = SharedMetrics.create(1)
    arguments = dataclasses.replace(arguments, metrics=metrics.descriptor, slots=1)
    spawned = await launcher.launch(arguments, [folder])
    await ChildProcess(*spawned, 0).wait_until_ready()
template = Template.fork("cortex_runtime.jobs.worker_main") if sys.argv[2] == "forked" else None
asyncio.run(main(Launcher("cortex_runtime.jobs.worker_main", template)))
"""


@pytest.mark.parametrize("start", ["forked", "spawned"])
def test_a_job_worker_exits_with_its_consumer(tmp_path, start):
    (tmp_path / "handler.py").write_text(WHILE_IMPORTED)
    manifest = {
        "apiVersion": "cortex.dev/v1alpha1",
        "kind": "AsyncAPI",
        "metadata": {"name": "tested"},
        "spec": {"handler": {"type": "python", "path": "handler.py"}},
    }
    (tmp_path / "api.json").write_bytes(Document.of(parse(manifest)).to_json())
    with subprocess.Popen([sys.executable, "-c", CONSUMER, str(tmp_path), start]) as consumer:
        try:
            with noted(tmp_path):
                consumer.kill()
        finally:
            consumer.kill()


def test_child_processes_of_a_worker_are_killed_with_it(serve):
    api = serve(WHILE_CALLED)
    httpx.put(api.url)
    with noted(api.project) as pids:
        os.kill(int(pids[0]), signal.SIGKILL)
    api.wait_ready()
