"""The examples of every age: the old cortex.yaml, converted, is the api.yaml beside it, and `cortex run` serves that."""

import functools
import http.server
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from click.testing import CliRunner

from cortex_cli.__main__ import main

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
NAMES = ("request-handler", "init-predict", "mpg-estimator", "text-analyzer", "onnx-multi-model")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Callable[..., tuple[str, str]]]:
    """Serves an example; gives the URLs of the API and of its metrics."""
    processes = []

    def start(name: str, prepare: list[str] | None = None) -> tuple[str, str]:
        # A copy, so that nothing is written beside the example.
        folder = tmp_path / name
        shutil.copytree(EXAMPLES / name, folder)
        if prepare is not None:
            subprocess.run(prepare, cwd=folder, check=True)
        port, admin_port = free_port(), free_port()
        command = [sys.executable, "-m", "cortex_cli", "run", "--port", str(port)]
        command += ["--admin-port", str(admin_port), str(folder / "api.yaml")]
        log = tmp_path / "log"
        with log.open("wb") as output:
            environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
            process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=environment)
        processes.append(process)
        pause = threading.Event()
        while f"http://127.0.0.1:{port}" not in log.read_text():
            assert process.poll() is None, log.read_text()
            pause.wait(0.05)
        return f"http://127.0.0.1:{port}", f"http://127.0.0.1:{admin_port}/metrics"

    yield start
    for process in processes:
        process.send_signal(signal.SIGINT)
        process.wait(60)


def post(url: str, payload: object, **query: str) -> httpx.Response:
    return httpx.post(url, json=payload, params=query, timeout=30)


@pytest.mark.parametrize("name", NAMES)
def test_the_old_file_becomes_the_manifest(name: str) -> None:
    done = CliRunner().invoke(main, ["convert", "--source=image", str(EXAMPLES / name / "cortex.yaml")])
    assert done.exit_code == 0, done.stderr
    assert done.stdout == (EXAMPLES / name / "api.yaml").read_text()


def test_what_the_readme_says_is_there() -> None:
    for name in NAMES:
        readme = (EXAMPLES / name / "README.md").read_text()
        assert f"cortex run examples/{name}/api.yaml" in readme
        for file in re.findall(rf"examples/{name}/(\S+?)`?(?:\s|$)", readme):
            assert (EXAMPLES / name / file).exists(), file


def test_functions_around_a_model(run: Callable[..., tuple[str, str]]) -> None:
    url, metrics = run("request-handler")
    names = ("sepal_length", "sepal_width", "petal_length", "petal_width")
    answer = post(url, dict(zip(names, (5.1, 3.5, 1.4, 0.2), strict=True)))
    assert answer.json()["label"] == "setosa"
    assert 0.5 < answer.json()["probability"] <= 1
    post(url, dict(zip(names, (6.3, 3.3, 6.0, 2.5), strict=True)))
    text = httpx.get(metrics).text
    assert 'cortex_tracker_predictions_total{class="setosa"} 1.0' in text
    assert 'cortex_tracker_predictions_total{class="virginica"} 1.0' in text


def test_functions_of_a_module(run: Callable[..., tuple[str, str]]) -> None:
    url, metrics = run("init-predict")
    assert post(url, {"measurements": [5.1, 3.5, 1.4, 0.2]}).text == "setosa"
    assert 'cortex_tracker_predictions_total{class="setosa"} 1.0' in httpx.get(metrics).text


def test_versions_of_a_python_model(run: Callable[..., tuple[str, str]]) -> None:
    url, _ = run("mpg-estimator")
    sample = json.loads((EXAMPLES / "mpg-estimator" / "sample.json").read_text())
    first, second = post(url, sample, version="1").json(), post(url, sample, version="2").json()
    assert (first["model"], second["model"]) == ({"version": "1"}, {"version": "2"})
    assert second["prediction"] == pytest.approx(first["prediction"] + 1)
    latest = post(url, sample)
    assert latest.json() == {"prediction": pytest.approx(first["prediction"] + 3), "model": {"version": None}}
    assert latest.headers["x-model-version"] == "4"
    unknown = post(url, sample, version="9")
    assert (unknown.status_code, "1, 2, 3, 4" in unknown.json()["error"]) == (404, True)


def test_several_models_in_one_predictor(run: Callable[..., tuple[str, str]]) -> None:
    url, _ = run("text-analyzer")
    assert post(url, {"text": "I love it."}, model="sentiment").json()["label"] == "POSITIVE"
    summary = post(url, {"text": "Rain falls. Rain and more rain fell today."}, model="summarizer")
    assert (summary.text, summary.headers["content-type"]) == (
        "Rain and more rain fell today.",
        "text/plain; charset=utf-8",
    )
    unknown = post(url, {"text": ""}, model="other")
    assert (unknown.status_code, unknown.json()) == (400, {"error": "unknown model: other"})


def test_several_onnx_models_by_name(run: Callable[..., tuple[str, str]]) -> None:
    url, _ = run("onnx-multi-model")
    files = functools.partial(http.server.SimpleHTTPRequestHandler, directory=EXAMPLES / "onnx-multi-model")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), files) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        image = {"url": f"http://127.0.0.1:{server.server_address[1]}/digit.pgm"}
        for name in ("resnet50", "mobilenet", "shufflenet"):
            answer = post(url, image, model=name)
            assert (answer.json(), answer.headers["x-model-version"]) == ({"label": "0"}, f"{name}=1")
        unknown = post(url, image, model="inception")
        unnamed = post(url, image)
        server.shutdown()
    assert (unknown.status_code, "mobilenet, resnet50, shufflenet" in unknown.text) == (404, True)
    # The predictor's own KeyError.
    assert unnamed.status_code == 500
    assert {model["name"] for model in httpx.get(f"{url}/info").json()["models"]} == {
        "resnet50", "mobilenet", "shufflenet",
    }  # fmt: skip
