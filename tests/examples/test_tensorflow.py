"""examples/tensorflow-*: as they are committed, `cortex run` serves them, with the models in its own process."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from sklearn.datasets import load_digits, load_iris, load_wine

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
LIMIT = 150
"""Seconds; the import of TensorFlow takes most of them when this machine has much to do."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Callable[[str], tuple[str, str]]]:
    """Serves an example; gives the URLs of the API and of its metrics, once it is ready."""
    processes = []

    def start(name: str) -> tuple[str, str]:
        # A copy, so that nothing is written beside the example.
        shutil.copytree(EXAMPLES / name, tmp_path / name)
        port, admin_port = free_port(), free_port()
        command = [sys.executable, "-m", "cortex_cli", "run", "--port", str(port)]
        command += ["--admin-port", str(admin_port), str(tmp_path / name / "api.yaml")]
        environment = {**os.environ, "PYTHONUNBUFFERED": "1", "CORTEX_TENSORFLOW_SERVING": ""}
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
        )
        processes.append(process)
        late = threading.Timer(LIMIT, process.kill)
        late.start()
        said = []
        for line in process.stdout:
            said.append(line)
            if f"http://127.0.0.1:{port}" in line:
                late.cancel()
                threading.Thread(target=process.stdout.read, daemon=True).start()
                return f"http://127.0.0.1:{port}", f"http://127.0.0.1:{admin_port}/metrics"
        raise AssertionError("".join(said))

    yield start
    for process in processes:
        process.send_signal(signal.SIGINT)
        process.wait(LIMIT)


@pytest.mark.timeout(LIMIT + 60)
def test_the_query_says_which_model_answers(run):
    url, _ = run("tensorflow-multi-model")

    def ask(model: str, **payload):
        return httpx.post(f"{url}?model={model}", json=payload, timeout=30)

    assert ask("iris", measurements=list(load_iris().data[0])).json()["label"] == "setosa"
    assert ask("wine", analysis=list(load_wine().data[0])).json()["label"] == "class_0"
    digits = load_digits()
    answer = ask("digits", pixels=digits.images[3].tolist())
    assert answer.json()["label"] == "3"
    assert 0.5 < answer.json()["probability"] <= 1
    assert answer.headers["x-model-version"] == "digits=1"
    unknown = ask("resnet50", pixels=[])
    assert (unknown.status_code, "available: digits, iris, wine" in unknown.text) == (404, True)
    unnamed = httpx.post(url, json={"pixels": []})
    assert (unnamed.status_code, "digits, iris, wine" in unnamed.text) == (404, True)


@pytest.mark.timeout(LIMIT + 60)
def test_functions_around_a_model(run):
    url, metrics = run("tensorflow-iris")
    names = ("sepal_length", "sepal_width", "petal_length", "petal_width")
    for flower, label in (((5.1, 3.5, 1.4, 0.2), "setosa"), ((6.3, 3.3, 6.0, 2.5), "virginica")):
        answer = httpx.post(url, json=dict(zip(names, flower, strict=True)), timeout=30)
        assert answer.json() == {"label": label}
    assert 'class="virginica"' in httpx.get(metrics).text


@pytest.mark.timeout(LIMIT + 60)
def test_a_job_of_a_batch_of_pictures(run):
    url, _ = run("tensorflow-async")
    sample = json.loads((EXAMPLES / "tensorflow-async" / "sample.json").read_text())
    accepted = httpx.post(url, json=sample, timeout=30)
    assert accepted.status_code == 202
    identity = accepted.json()["id"]
    end = time.monotonic() + LIMIT
    while (job := httpx.get(f"{url}/{identity}", timeout=30).json())["status"] != "completed":
        assert job["status"] in ("in_queue", "in_progress"), job
        assert time.monotonic() < end, job
        time.sleep(0.05)
    assert [entry["label"] for entry in job["result"]] == ["zero", "one"]
    assert {entry["job"] for entry in job["result"]} == {identity}
