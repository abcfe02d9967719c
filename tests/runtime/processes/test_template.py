"""Workers are forked from a template process: each starts with clean state, its exit is noticed, and nothing of it remains."""

import asyncio
import gc
import json
import os
import signal
import subprocess
import sys
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from cortex_runtime.processes.launcher import Launcher
from cortex_runtime.processes.template_process import UNKNOWN_STATUS, Refused, Template
from cortex_runtime.processes.worker_arguments import WorkerArguments

HERE = "tests.runtime.processes"
WORKER = f"{HERE}.reporting_worker"
NOT_AT_START = (
    *(
        "click",
        "grpc",
        "h2corn",
        "boto3",
        "tensorflow",
        "multiprocessing",
        "numpy",
        "onnxruntime",
        "prometheus_client",
    ),
    *("pydantic", "watchfiles"),
    *("configparser", "email.parser", "html.entities", "importlib.resources", "logging.handlers"),
)
ARGUMENTS = WorkerArguments("api.json", ".", ".", "")


def is_gone(pid):
    """Whether a process has exited; a zombie has not been reaped."""
    return not Path(f"/proc/{pid}").exists()


def children(template):
    return Path(f"/proc/{template.pid}/task/{template.pid}/children").read_text().split()


async def until(condition):
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110 (no event reports it)
            await asyncio.sleep(0.01)


@pytest.fixture
async def template():
    template = Template.start(WORKER)
    yield template
    await template.close()


@pytest.fixture
async def launcher(template):
    launcher = Launcher(WORKER, template)
    yield launcher
    await launcher.close()


@asynccontextmanager
async def launched(launcher, folders=(), arguments=ARGUMENTS):
    """A worker and its reports. It exits with status 0 by default."""
    spawned = await launcher.launch(arguments, folders)
    try:
        line = await spawned.reports.readline()
        assert line, "the worker has exited"
        yield spawned, json.loads(line)
    finally:
        spawned.control.close()
        await spawned.process.wait()


async def test_a_forked_worker_starts_like_a_fresh_interpreter(launcher):
    async with launched(launcher) as (one, first), launched(launcher) as (_, second):
        assert first["is_fork"]
        assert first["pid"] == one.process.pid == first["session"]
        assert first["argv"] == [str(Path(__file__).parent / "reporting_worker.py")]
        assert first["stdin"] == ""
        # The standard streams, the control channel, and the two files that the report opens.
        assert first["descriptors"] == second["descriptors"] == 6
        assert first["random"] != second["random"]


@pytest.mark.parametrize("status", [0, 7, -signal.SIGKILL, -signal.SIGSEGV])
async def test_the_exit_status_of_a_forked_worker_is_reported(launcher, status):
    async with launched(launcher) as (worker, report):
        if status < 0:
            worker.process.send_signal(-status)
        else:
            worker.control.write(f"{status}\n".encode())
        assert await worker.process.wait() == worker.process.returncode == status
        assert is_gone(report["pid"])
        worker.process.kill()  # Does nothing, because the pid may have been reused.


async def test_a_hundred_restarts_leak_no_descriptor_and_no_zombie(launcher, template):
    folders = [Path(f"/proc/{pid}/fd") for pid in (os.getpid(), template.pid)]

    def count():
        return [len(os.listdir(folder)) for folder in folders]

    async with launched(launcher):
        pass
    gc.collect()
    before = count()
    for _ in range(100):
        async with launched(launcher) as (worker, _):
            worker.process.kill()
    # In this process, threads that earlier tests have left may open a few connections.
    await until(lambda: count()[0] < before[0] + 10 and count()[1] == before[1])
    assert children(template) == []


async def test_more_files_than_one_message_can_carry_reach_the_worker(launcher):
    ends = [os.pipe() for _ in range(150)]
    try:
        arguments = WorkerArguments("api.json", ".", ".", "", mailboxes=ends)
        async with launched(launcher, (), arguments) as (_, report):
            assert report["mailboxes"] == [[os.fstat(end).st_ino for end in pair] for pair in ends]
    finally:
        for end in (each for pair in ends for each in pair):
            os.close(end)


async def test_many_workers_start_at_the_same_time(launcher):
    many = await asyncio.gather(*(launcher.launch(ARGUMENTS, []) for _ in range(40)))
    reports = [json.loads(await each.reports.readline()) for each in many]
    assert len({report["pid"] for report in reports}) == 40
    for each in many:
        each.control.close()
    assert {await each.process.wait() for each in many} == {0}


async def test_workers_survive_their_template_and_the_next_one_gets_another(launcher, template):
    async with launched(launcher) as (worker, report):
        os.kill(template.pid, signal.SIGKILL)
        await until(lambda: not template.is_alive)
        assert is_gone(template.pid)
        async with launched(launcher) as (_, second):
            assert second["is_fork"]
            assert worker.process.returncode is None
        worker.process.kill()
        # Its status is known only where its supervisor has adopted it.
        assert await worker.process.wait() in (UNKNOWN_STATUS, -signal.SIGKILL)
        assert worker.process.returncode is not None
        await until(lambda: is_gone(report["pid"]))


async def test_a_template_that_is_killed_during_a_request_is_replaced(launcher, template):
    for _ in range(3):
        async with launched(launcher) as (_, report):
            assert report["is_fork"]
        os.kill(launcher.template.pid, signal.SIGSTOP)
        starting = asyncio.create_task(launcher.launch(ARGUMENTS, []))
        await asyncio.sleep(0)
        os.kill(launcher.template.pid, signal.SIGKILL)
        worker = await starting
        assert await worker.reports.readline()
        worker.control.close()
        assert await worker.process.wait() == 0


async def test_a_worker_whose_start_is_cancelled_is_killed(launcher, template):
    async with launched(launcher):
        pass
    os.kill(template.pid, signal.SIGSTOP)
    starting = asyncio.create_task(launcher.launch(ARGUMENTS, []))
    await asyncio.sleep(0)
    starting.cancel()
    await asyncio.gather(starting, return_exceptions=True)
    os.kill(template.pid, signal.SIGCONT)
    async with launched(launcher) as (_, report):
        await until(lambda: children(template) == [str(report["pid"])])


@pytest.mark.parametrize("name", ["json.py", "random/__init__.py"])
async def test_a_project_with_a_module_that_is_already_imported_gets_a_fresh_interpreter(
    launcher, template, tmp_path, name
):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).touch()
    with pytest.raises(Refused, match=f"has a module {name[:4]}"):
        await template.fork_worker(WORKER, ARGUMENTS, [str(tmp_path)])
    async with launched(launcher, [str(tmp_path)]) as (_, report):
        assert not report["is_fork"]


async def test_folders_of_data_may_have_the_name_of_a_module(launcher, tmp_path):
    (tmp_path / "json").mkdir()
    (tmp_path / "json" / "data.json").touch()
    (tmp_path / "random.txt").touch()
    async with launched(launcher, [str(tmp_path)]) as (_, report):
        assert report["is_fork"]


async def test_a_library_that_has_started_a_thread_is_never_forked(launcher):
    launcher.preload([f"{HERE}.threaded_module"])
    async with launched(launcher) as (_, report):
        assert not report["is_fork"]


async def test_a_preloaded_numpy_has_a_thread_for_each_cpu(launcher, monkeypatch):
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        monkeypatch.delenv(variable, raising=False)
    await launcher.renew()
    launcher.preload(["numpy"])
    for _ in range(2):
        async with launched(launcher) as (_, report):
            assert report["is_fork"]
            assert report["threads"] == len(os.sched_getaffinity(0))


async def test_a_module_that_cannot_be_preloaded_is_skipped(launcher):
    launcher.preload(["nothing_like_it", "json.decoder"])
    async with launched(launcher) as (_, report):
        assert report["is_fork"]


async def test_a_renewed_template_has_the_current_environment(launcher, monkeypatch):
    monkeypatch.setenv("CORTEX_TEST", "set later")
    await launcher.renew()
    async with launched(launcher) as (_, report):
        assert report["is_fork"]
        assert report["environment"] == "set later"


async def test_where_processes_cannot_be_forked_a_fresh_interpreter_is_started():
    async with launched(Launcher(WORKER, None)) as (_, report):
        assert not report["is_fork"]
        assert report["session"] == report["pid"]
        assert report["stdin"] == ""


def test_neither_a_supervisor_nor_a_template_imports_what_it_does_not_need():
    """These take a third of the CPU time of a start, or must not be imported before a fork."""
    code = f"""
import sys
import cortex_runtime.jobs.worker_main, cortex_runtime.replica.supervisor, cortex_runtime.serving.worker_main
print(*sorted({set(NOT_AT_START)!r} & sys.modules.keys()))
import cortex_runtime.jobs.consumer
assert not {{"boto3", "grpc", "h2corn", "nats", "numpy", "onnxruntime"}} & sys.modules.keys()
import uvicorn
assert uvicorn.run.__module__ == uvicorn.main.callback.__module__ == "uvicorn.main"
"""
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        == "\n"
    )
