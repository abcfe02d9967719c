"""`make demo` from end to end: a manifest becomes an API that classifies a flower, and no process remains."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

LIMIT = 150


def processes_with(marker: str) -> list[str]:
    """Return the command lines of processes that have a marker in their environment."""
    found = []
    for process in Path("/proc").iterdir():
        if process.name.isdecimal() and process.name != str(os.getpid()):
            try:
                environment = (process / "environ").read_bytes()
                if marker.encode() in environment:
                    found.append((process / "cmdline").read_bytes().replace(b"\0", b" ").decode())
            except OSError:
                continue  # It has exited, or belongs to another user.
    return found


COMMAND = [sys.executable, "-m", "cortex_devcluster.demo"]


def demo_process(tmp_path: Path, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        COMMAND,
        env={**os.environ, "TMPDIR": str(tmp_path), "KEEP": "", **environment},
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # Tests in the background ignore Ctrl-C, and the demo would inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def until(demo: subprocess.Popen[str], words: str) -> str:
    """Return the output up to these words."""
    said = ""
    for line in demo.stdout:
        said += line
        if words in line:
            return said
    raise AssertionError(f"{words!r} was not said:\n{said}")


def run_demo(
    tmp_path: Path, *words: str, python: str = sys.executable, **environment: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [python, *COMMAND[1:], *words],
        env={**os.environ, "TMPDIR": str(tmp_path), "KEEP": "", **environment},
        capture_output=True,
        text=True,
        timeout=LIMIT,
    )


@pytest.mark.timeout(LIMIT + 30)
def test_the_demo_ends_with_a_prediction_and_cleans_up(tmp_path):
    marker = f"TMPDIR={tmp_path}"
    demo = run_demo(tmp_path)
    assert demo.returncode == 0, demo.stdout + demo.stderr
    assert "realtimeapi.cortex.dev/iris condition met" in demo.stdout
    assert '"label":"setosa"' in demo.stdout
    assert "API ready" in demo.stdout
    assert "kubectl get realtimeapis -o wide" in demo.stdout
    assert processes_with(marker) == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.timeout(LIMIT + 30)
def test_without_curl_python_sends_the_request_and_ctrl_c_stops_the_cluster(tmp_path):
    (tmp_path / "empty").mkdir()
    marker = f"TMPDIR={tmp_path}"
    with demo_process(tmp_path, PATH=str(tmp_path / "empty"), KEEP="1") as demo:
        said = until(demo, "Ctrl-C stops the demo")
        assert '"label":"setosa"' in said
        kubeconfig = re.search(r"export KUBECONFIG=(\S+)", said)[1]
        assert Path(kubeconfig).exists()
        demo.send_signal(signal.SIGINT)
        assert demo.wait(LIMIT) == 0
    assert processes_with(marker) == []
    assert [path.name for path in tmp_path.iterdir()] == ["empty"]


@pytest.mark.timeout(LIMIT + 30)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_demo_cleans_up(tmp_path, number):
    with demo_process(tmp_path) as demo:
        until(demo, "kubectl wait")
        # As a terminal does: to the whole process group.
        os.killpg(demo.pid, number)
        assert demo.wait(LIMIT) == (130 if number == signal.SIGINT else -number)
    end = time.monotonic() + LIMIT
    while processes_with(f"TMPDIR={tmp_path}") or list(tmp_path.iterdir()):
        assert time.monotonic() < end, processes_with(f"TMPDIR={tmp_path}")
        time.sleep(0.1)


def with_other_kubectl(folder: Path, script: str) -> Path:
    """Return a Python like this one, with a kubectl that runs `script` first."""
    environment = Path(sys.prefix)
    (folder / "bin").mkdir(parents=True)
    (folder / "bin" / "python").symlink_to(sys.executable)
    (folder / "lib").symlink_to(environment / "lib")
    shutil.copy(environment / "pyvenv.cfg", folder)
    kubectl = folder / "bin" / "kubectl"
    kubectl.write_text(f'#!/bin/sh\n{script}\nexec {environment}/bin/kubectl "$@"\n')
    kubectl.chmod(0o755)
    return folder / "bin" / "python"


@pytest.mark.timeout(LIMIT + 30)
def test_a_failed_demo_shows_the_cause_and_cleans_up(tmp_path):
    refusing = 'if [ "$3" = examples/iris-onnx/ ]; then echo no way >&2; exit 7; fi'
    python = with_other_kubectl(tmp_path / "venv", refusing)
    demo = run_demo(tmp_path, python=str(python))
    assert demo.returncode == 1, demo.stdout
    assert "The demo failed: kubectl apply -f examples/iris-onnx/: no way" in demo.stderr
    assert "The end of the operator's log" in demo.stderr
    assert processes_with(f"TMPDIR={tmp_path}") == []
    assert [path.name for path in tmp_path.iterdir()] == ["venv"]


@pytest.mark.timeout(LIMIT + 30)
def test_the_demo_of_a_job_ends_with_its_result_and_cleans_up(tmp_path):
    demo = run_demo(tmp_path, "words")
    assert demo.returncode == 0, demo.stdout + demo.stderr
    assert "asyncapi.cortex.dev/words condition met" in demo.stdout
    assert '"status":"completed"' in demo.stdout
    assert '"words":{"to":2,"be":2' in demo.stdout
    assert processes_with(f"TMPDIR={tmp_path}") == []
    assert list(tmp_path.iterdir()) == []
