"""`cortex run`: serves on this machine until it is told to stop, and says why it can't."""

import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import pytest

HANDLER = "class Handler:\n    def handle_post(self, payload): return {'answer': %s}\n"
API = """\
apiVersion: cortex.dev/v1alpha1
kind: RealtimeAPI
metadata: {name: NAME}
spec:
  handler: {type: python, path: handler.py}
"""
TIMEOUT = 60


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Run:
    """A `cortex run` as a child process, whose lines can be awaited."""

    def __init__(self, *arguments: str) -> None:
        self.port = free_port()
        command = [sys.executable, "-m", "cortex_cli", "run", *arguments]
        command += ["--port", str(self.port), "--admin-port", str(free_port())]
        self.process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
        self.seen: list[str] = []
        self._lines: queue.Queue[str | None] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        for line in self.process.stdout:
            self._lines.put(line)
        self._lines.put(None)

    def until(self, words: str) -> None:
        """Wait for a line with these words."""
        while (line := self._lines.get(timeout=TIMEOUT)) is not None:
            self.seen.append(line)
            if words in line:
                return
        raise AssertionError(f"{words!r} was not said:\n{''.join(self.seen)}")

    def end(self) -> tuple[int, str]:
        """Exit status and everything that was said, once it and its runtime are gone."""
        while (line := self._lines.get(timeout=TIMEOUT)) is not None:
            self.seen.append(line)
        return self.process.wait(TIMEOUT), "".join(self.seen)

    def post(self) -> httpx.Response:
        return httpx.post(f"http://127.0.0.1:{self.port}", json={}, timeout=TIMEOUT)


@pytest.fixture
def run():
    started: list[Run] = []

    def start(*arguments: str) -> Run:
        started.append(Run(*arguments))
        return started[-1]

    yield start
    for one in started:
        try:
            os.killpg(one.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        one.process.wait()
        one.process.stdout.close()


@pytest.fixture
def project(tmp_path) -> Path:
    (tmp_path / "handler.py").write_text(HANDLER % 1)
    (tmp_path / "api.yaml").write_text(API.replace("NAME", "first"))
    return tmp_path


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_serves_until_it_is_told_to_stop(run, project, number):
    running = run(str(project / "api.yaml"))
    running.until(f"first is ready at http://127.0.0.1:{running.port}")
    assert running.post().json() == {"answer": 1}
    running.process.send_signal(number)
    status, output = running.end()
    assert status == 0, output
    with pytest.raises(httpx.ConnectError):
        running.post()


def test_reload_serves_the_changed_code(run, project):
    running = run(str(project / "api.yaml"), "--reload")
    running.until("first is ready")
    assert running.post().json() == {"answer": 1}
    (project / "handler.py").write_text(HANDLER % 22)
    end = time.monotonic() + TIMEOUT
    while running.post().json() != {"answer": 22}:
        assert time.monotonic() < end, "the change was never served"
        time.sleep(0.05)


def test_one_of_several_apis_is_chosen_by_name(run, project):
    both = API.replace("NAME", "first") + "---\n" + API.replace("NAME", "second")
    (project / "api.yaml").write_text(both)
    assert run(str(project / "api.yaml")).end() == (
        1,
        f"Error: {project}/api.yaml holds several APIs: choose one with --name (first, second)\n",
    )
    status, output = run(str(project / "api.yaml"), "--name", "third").end()
    assert (status, "has no API named third (it has first, second)" in output) == (1, True)
    run(str(project / "api.yaml"), "--name", "second").until("second is ready")


def test_code_in_the_manifest_is_served(run, project):
    inline = API.replace("NAME", "inline").replace(
        "path: handler.py", "path: h.py, source: {files: {h.py: CODE}}"
    )
    code = (HANDLER % 3).replace("\n", "\\n")
    (project / "api.yaml").write_text(inline.replace("CODE", f'"{code}"'))
    running = run(str(project / "api.yaml"))
    running.until("is ready at")
    assert running.post().json() == {"answer": 3}


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("import nothing_of_that_name\n", "HandlerImportError: "),
        ("x = 1\n", "HandlerNotFound: "),
        (HANDLER % 1 + "    def __init__(self): raise ValueError('no weights')\n", "no weights"),
    ],
)
def test_an_api_that_cannot_start_ends_with_reason_and_message(run, project, source, words):
    (project / "handler.py").write_text(source)
    status, output = run(str(project / "api.yaml")).end()
    assert status == 1
    assert words in output[output.index("Error: ") :]


def test_a_bad_manifest_starts_nothing(run, project):
    (project / "api.yaml").write_text(API.replace("NAME", "typo").replace("path:", "pth:"))
    status, output = run(str(project / "api.yaml")).end()
    assert (status, "spec.handler.pth: " in output) == (1, True)


def test_an_async_api_needs_a_cluster(run, project):
    (project / "api.yaml").write_text(API.replace("NAME", "later").replace("RealtimeAPI", "AsyncAPI"))
    status, output = run(str(project / "api.yaml")).end()
    assert (status, "needs a cluster" in output) == (1, True)
