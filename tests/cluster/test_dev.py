"""`cortex dev`: a copy of an API in the cluster follows the files of a local folder, and is deleted at the end."""

import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from .conftest import Kubectl, Operator, eventually, free_port

CODE = "class Handler:\n    def handle_get(self):\n        return {}\n"
JOBS = "class Handler:\n    def handle_async(self, payload):\n        return {}\n"
SECONDS = 60


def manifest(kind: str = "RealtimeAPI", **handler: Any) -> str:
    spec = {"handler": {"type": "python", "path": "handler.py", **handler}, "replicas": 3}
    metadata = {"name": "iris"}
    return json.dumps({"apiVersion": "cortex.dev/v1alpha1", "kind": kind, "metadata": metadata, "spec": spec})


class Dev:
    """A running `cortex dev` whose output can be awaited."""

    def __init__(self, kubeconfig: Path, namespace: str, project: Path, *options: str) -> None:
        self.port = free_port()
        self.project = project
        command = [sys.executable, "-m", "cortex_cli", "dev", str(project / "api.yaml")]
        command += ["--kubeconfig", str(kubeconfig), "-n", namespace, "--port", str(self.port), *options]
        self.process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
            # A shell starts background jobs with SIGINT ignored, and so would everything below the tests be.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        self.seen: list[str] = []
        self._lines: queue.Queue[str | None] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.put(line)
        self._lines.put(None)

    def until(self, words: str) -> str:
        """Wait for a line that contains these words and return it."""
        while (line := self._lines.get(timeout=SECONDS)) is not None:
            self.seen.append(line)
            if words in line:
                return line
        raise AssertionError(f"no line contains {words!r}:\n{''.join(self.seen)}")

    def end(self, number: int = signal.SIGINT) -> str:
        """Send a signal, wait for the end, and return the whole output."""
        self.process.send_signal(number)
        while (line := self._lines.get(timeout=SECONDS)) is not None:
            self.seen.append(line)
        self.process.wait(SECONDS)
        return "".join(self.seen)

    def write(self, answer: str) -> None:
        (self.project / "handler.py").write_text(CODE.format(repr(answer)))

    def answer(self) -> str:
        try:
            return httpx.get(f"http://127.0.0.1:{self.port}", timeout=60, trust_env=False).text
        except httpx.TransportError as error:
            return repr(error)

    def wait_answer(self, text: str) -> None:
        eventually(self.answer, lambda found: found == text)


@pytest.fixture
def develop(
    operator: Operator, kubeconfig: Path, kubectl: Kubectl, tmp_path: Path
) -> Iterator[Callable[..., Dev]]:
    started: list[Dev] = []

    def start(*options: str, text: str | None = None) -> Dev:
        if text is not None:
            (tmp_path / "api.yaml").write_text(text)
            (tmp_path / "handler.py").write_text(CODE.format("'first'"))
        started.append(Dev(kubeconfig, kubectl.namespace, tmp_path, *options))
        return started[-1]

    yield start
    for dev in started:
        if dev.process.poll() is None:
            dev.process.kill()
        dev.process.wait()


def copies(kubectl: Kubectl) -> list[str]:
    return [each["metadata"]["name"] for each in kubectl.list("realtimeapi,asyncapi")]


def test_changes_are_served_and_broken_ones_are_reported_until_the_copy_is_deleted(develop, kubectl):
    dev = develop(text=manifest())
    dev.until("iris-dev is ready")
    assert dev.answer() == "first"
    live = kubectl.get("realtimeapi", "iris-dev")
    assert (live["spec"]["replicas"], live["metadata"]["labels"]["cortex.dev/development"]) == (1, "iris")
    dev.write("second")
    assert "handler.py" in dev.until("the new code serves after")
    assert dev.answer() == "second"
    (dev.project / "handler.py").write_text("import nothing_like_it\n")
    assert "the previous code keeps serving" in dev.until("HandlerImportError")
    assert 'File "handler.py", line 1' in dev.until("File")
    dev.until("No module named 'nothing_like_it'")
    assert dev.answer() == "second"
    dev.write("fixed")
    dev.wait_answer("fixed")
    assert "iris-dev is deleted" in dev.end()
    assert copies(kubectl) == []
    eventually(lambda: kubectl.list("pods"), lambda found: not found)


def test_a_changed_manifest_replaces_the_pod_and_an_invalid_one_is_ignored(develop, kubectl):
    dev = develop(text=manifest())
    dev.until("iris-dev is ready")
    (dev.project / "api.yaml").write_text(manifest(config={"color": "red"}))
    dev.until("the pods are replaced")
    code = "class Handler:\n    def __init__(self, config):\n        self.color = config.get('color')\n"
    code += "    def handle_get(self):\n        return self.color\n"
    (dev.project / "handler.py").write_text(code)
    dev.wait_answer("red")
    (dev.project / "api.yaml").write_text(manifest(nothing="like it"))
    assert "nothing" in dev.until("is ignored")
    assert dev.answer() == "red"
    dev.end()


def test_an_expired_copy_is_deleted_and_created_again_while_the_command_runs(develop, kubectl):
    dev = develop(text=manifest())
    dev.until("iris-dev is ready")
    uid = kubectl.get("realtimeapi", "iris-dev")["metadata"]["uid"]
    past = {"cortex.dev/development-expires": "2020-01-01T00:00:00Z"}
    kubectl.patch("realtimeapi", "iris-dev", {"metadata": {"annotations": past}})
    dev.until("was deleted; creating it again")
    eventually(lambda: kubectl.get("realtimeapi", "iris-dev")["metadata"]["uid"], lambda now: now != uid)
    dev.write("again")
    dev.wait_answer("again")
    dev.end()


def test_a_copy_has_one_user_and_one_that_was_left_behind_is_adopted(develop, kubectl):
    killed = develop(text=manifest())
    killed.until("iris-dev is ready")
    killed.end(signal.SIGKILL)
    assert copies(kubectl) == ["iris-dev"]
    first = develop()
    first.until("iris-dev is ready")
    refused = develop()
    refused.until("is in use by")
    assert refused.process.wait(SECONDS) == 1
    other = develop("--as", "iris-other-dev")
    other.until("iris-other-dev is ready")
    other.end()
    second = develop("--take-over")
    first.until("was taken over by")
    assert first.process.wait(SECONDS) == 1
    second.until("iris-dev is ready")
    assert copies(kubectl) == ["iris-dev"]
    second.end()
    assert copies(kubectl) == []


def test_jobs_run_the_changed_code(develop, kubectl):
    dev = develop(text=manifest("AsyncAPI"))
    (dev.project / "handler.py").write_text(JOBS.format("'one'"))
    dev.until("iris-dev is ready")

    def result() -> Any:
        url = f"http://127.0.0.1:{dev.port}"
        identity = httpx.post(url, json={}, timeout=60, trust_env=False).json()["id"]
        return httpx.get(f"{url}/{identity}?wait=10s", timeout=20, trust_env=False).json()["result"]

    assert result() == "one"
    (dev.project / "handler.py").write_text(JOBS.format("'two'"))
    dev.until("the new code serves after")
    assert result() == "two"
    dev.end()
    eventually(lambda: copies(kubectl), lambda found: not found)
