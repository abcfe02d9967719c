"""examples/tensorflow-*: `cortex run` serves them, with the models in the worker process."""

import functools
import http.server
import json
import threading
import time

import httpx
import pytest

from .conftest import EXAMPLES, LIMIT, metrics_with


@pytest.mark.timeout(LIMIT + 60)
def test_query_selects_the_model(run):
    url, _ = run("tensorflow-multi-model")
    folder = EXAMPLES / "tensorflow-multi-model"

    def ask(model, payload):
        return httpx.post(url, params={"model": model}, json=payload)

    flower = ask("iris", json.loads((folder / "sample-iris.json").read_text()))
    assert (flower.json(), flower.headers["x-model-version"]) == ({"label": "setosa"}, "iris=1")
    files = functools.partial(http.server.SimpleHTTPRequestHandler, directory=folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), files) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        image = {"url": f"http://127.0.0.1:{server.server_address[1]}/digit.pgm"}
        for model in ("inception", "resnet50"):
            assert ask(model, image).json() == {"label": "0"}
        unknown = ask("mobilenet", image)
        server.shutdown()
    assert (unknown.status_code, "available: inception, iris, resnet50" in unknown.text) == (404, True)


@pytest.mark.timeout(LIMIT + 60)
def test_functions_around_a_model(run):
    url, metrics = run("tensorflow-iris")
    names = ("sepal_length", "sepal_width", "petal_length", "petal_width")
    for flower, label in (((5.1, 3.5, 1.4, 0.2), "setosa"), ((6.3, 3.3, 6.0, 2.5), "virginica")):
        answer = httpx.post(url, json=dict(zip(names, flower, strict=True)))
        assert answer.json() == {"label": label}
    classes = ("setosa", "virginica")
    metrics_with(metrics, *(f'cortex_tracker_predictions_total{{class="{each}"}} 1.0' for each in classes))


@pytest.mark.timeout(LIMIT + 60)
def test_job_with_a_batch_of_images(run):
    url, _ = run("tensorflow-async")
    sample = json.loads((EXAMPLES / "tensorflow-async" / "sample.json").read_text())
    accepted = httpx.post(url, json=sample)
    assert accepted.status_code == 202
    identity = accepted.json()["id"]
    end = time.monotonic() + LIMIT
    while (job := httpx.get(f"{url}/{identity}").json())["status"] != "completed":
        assert job["status"] in ("in_queue", "in_progress"), job
        assert time.monotonic() < end, job
        time.sleep(0.05)
    assert [entry["label"] for entry in job["result"]] == ["zero", "one"]
    assert {entry["job"] for entry in job["result"]} == {identity}
