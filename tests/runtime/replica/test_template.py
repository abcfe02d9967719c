"""A replica whose workers are forked: user code finds what a fresh interpreter has, and the template may exit at any moment."""

import os
import signal
import time
from pathlib import Path

import httpx
import pytest

SOURCE = """
import multiprocessing, os, random, subprocess, sys, threading, uuid
import numpy as np

started = []
threading.Thread(target=started.append, args=(1,), daemon=True).start()
subprocess.run(["true"], check=True)
np.ones((500, 500)) @ np.ones((500, 500))

def child(pipe):
    pipe.send(os.getppid())

class Handler:
    def handle_get(self):
        parents = []
        for method in ("fork", "spawn"):
            context = multiprocessing.get_context(method)
            ours, theirs = context.Pipe()
            process = context.Process(target=child, args=(theirs,))
            process.start()
            parents.append(ours.recv())
            process.join()
        return {
            "pid": os.getpid(),
            "parents": parents,
            "blas threads": len(os.listdir("/proc/self/task")),
            "random": [random.random(), float(np.random.random()), str(uuid.uuid4())],
            "module": sys.modules["handler"].__name__ if "handler" in sys.modules else __name__,
            "omp": os.environ.get("OMP_NUM_THREADS"),
            "threads started": started,
        }
    def handle_post(self, payload):
        print("x" * 1000)
        return os.getpid()
    def handle_put(self):
        return os.getpid()
"""


def read(file):
    """Return the text of a file of /proc; "" if the process has exited."""
    try:
        return Path(file).read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def children(pid):
    return [int(each) for each in read(f"/proc/{pid}/task/{pid}/children").split()]


def named(name, pids):
    return [pid for pid in pids if read(f"/proc/{pid}/comm").strip() == name]


def template_of(api):
    return api.until(lambda: named("cortex-template", children(api.process.pid)))[0]


def kill_worker(api):
    """Kill the worker; return the pid of the one that answers next."""
    before = httpx.put(api.url).json()
    os.kill(before, signal.SIGKILL)

    def answer():
        try:
            return httpx.put(api.url).json()
        except httpx.TransportError:
            return None

    return api.until(lambda: (pid := answer()) != before and pid)


@pytest.fixture(scope="module")
def api(serve_for_module):
    return serve_for_module(SOURCE)


def test_user_code_runs_as_in_a_fresh_interpreter(api):
    first = httpx.get(api.url).json()
    assert first["parents"] == [first["pid"]] * 2
    assert first["threads started"] == [1]
    # The threads of a process do not survive its fork; OpenBLAS starts its own again.
    assert first["blas threads"] > os.cpu_count()
    assert first["pid"] in children(template_of(api))
    assert kill_worker(api) != first["pid"]
    second = httpx.get(api.url).json()
    assert not {*map(str, first["random"])} & {*map(str, second["random"])}


def test_log_lines_stay_complete_while_workers_are_forked(api):
    before = len(api.lines())
    for _ in range(3):
        for _ in range(20):
            httpx.post(api.url, json=None)
        kill_worker(api)
    api.until(lambda: sum(line["message"] == "x" * 1000 for line in api.lines()[before:]) == 60)


def test_a_killed_template_fails_no_request_and_is_replaced(api):
    for _ in range(2):
        template = template_of(api)
        worker = httpx.put(api.url).json()
        os.kill(template, signal.SIGKILL)
        api.until(lambda: not named("cortex-template", children(api.process.pid)))
        assert httpx.put(api.url).json() == worker
        new = kill_worker(api)
        assert template_of(api) != template
        assert new in children(template_of(api))


def test_workers_that_are_killed_as_soon_as_they_start_are_replaced_while_the_other_one_answers(serve):
    api = serve(SOURCE, processesPerReplica=2)
    template = template_of(api)
    kept, *killed = children(template)
    for _ in range(4):
        for worker in killed:
            os.kill(worker, signal.SIGKILL)
        assert httpx.put(api.url).json() == kept
        gone = set(killed)
        killed = api.until(lambda gone=gone: set(children(template)) - gone - {kept})
    api.until(lambda: api.metric("cortex_workers_ready") == 2)
    assert api.ready().status_code == 200


def test_a_template_exits_with_its_supervisor(serve):
    api = serve("class Handler:\n    def handle_get(self):\n        return 1\n")
    pids = [template_of(api), *children(template_of(api))]
    api.process.kill()
    end = time.monotonic() + 60
    while any(Path(f"/proc/{pid}").exists() for pid in pids):
        assert time.monotonic() < end
        time.sleep(0.02)


def test_variables_of_a_project_are_set_before_any_library_is_imported(serve, tmp_path):
    """The template is a fork of the supervisor, which has started without them."""
    project = tmp_path / "with-variables"
    project.mkdir()
    (project / ".env").write_text("OMP_NUM_THREADS=1\nPYTHONUTF8=1\n")
    source = SOURCE.replace('"module":', '"utf8": sys.flags.utf8_mode, "module":')
    api = serve(source, project=project)
    found = httpx.get(api.url).json()
    assert (found["omp"], found["utf8"]) == ("1", 1)


def test_a_module_of_the_project_with_the_name_of_an_imported_one_is_used_as_in_a_fresh_interpreter(
    serve, tmp_path
):
    """`numpy` is imported before the project is searched only in a fork."""
    project = tmp_path / "with-module"
    project.mkdir()
    (project / "numpy.py").write_text("VALUE = 7\n")
    source = "import numpy\nclass Handler:\n    def handle_get(self):\n        return numpy.VALUE\n"
    assert httpx.get(serve(source, project=project).url).json() == 7


@pytest.mark.parametrize("seconds", [0.0, 0.1, 0.2, 0.3, 0.4, 0.6])
def test_sigterm_at_any_moment_of_the_start_ends_all_processes(serve, seconds):
    api = serve("class Handler:\n    def handle_get(self):\n        return 1\n", wait=False)
    time.sleep(seconds)
    descendants = [child for pid in children(api.process.pid) for child in (pid, *children(pid))]
    api.process.terminate()
    # Before the handler of the signal is installed, the signal ends the process.
    assert api.process.wait(60) in (0, -signal.SIGTERM)
    end = time.monotonic() + 60
    while any(Path(f"/proc/{pid}").exists() for pid in descendants):
        assert time.monotonic() < end
        time.sleep(0.02)
    assert "Traceback" not in api.log.read_text()
