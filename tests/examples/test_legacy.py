"""Examples of the original Cortex: `cortex convert` converts cortex.yaml to api.yaml, and `cortex run` serves it."""

import functools
import http.server
import json
import re
import threading

import httpx
import pytest
from click.testing import CliRunner

from cortex_cli.__main__ import main

from .conftest import EXAMPLES, Run, metrics_with, post

OLD = sorted(path.parent.name for path in EXAMPLES.glob("*/cortex.yaml"))
READMES = sorted(path.parent.name for path in EXAMPLES.glob("*/README.md"))


@pytest.mark.parametrize("name", OLD)
def test_cortex_yaml_is_converted_to_the_manifest(name: str) -> None:
    done = CliRunner().invoke(main, ["convert", "--source=image", str(EXAMPLES / name / "cortex.yaml")])
    assert done.exit_code == 0, done.stderr
    assert done.stdout == (EXAMPLES / name / "api.yaml").read_text()


@pytest.mark.parametrize("name", READMES)
def test_files_in_the_readme_exist(name: str) -> None:
    readme = (EXAMPLES / name / "README.md").read_text()
    assert f"cortex run examples/{name}/api.yaml" in readme or f"kubectl apply -f examples/{name}/" in readme
    for file in re.findall(rf"examples/{name}/([\w./-]+)", readme):
        assert (EXAMPLES / name / file).exists(), file


def test_functions_around_a_model(run: Run) -> None:
    url, metrics = run("request-handler")
    names = ("sepal_length", "sepal_width", "petal_length", "petal_width")
    answer = post(url, dict(zip(names, (5.1, 3.5, 1.4, 0.2), strict=True)))
    assert answer.json()["label"] == "setosa"
    assert 0.5 < answer.json()["probability"] <= 1
    post(url, dict(zip(names, (6.3, 3.3, 6.0, 2.5), strict=True)))
    classes = ("setosa", "virginica")
    metrics_with(metrics, *(f'cortex_tracker_predictions_total{{class="{each}"}} 1.0' for each in classes))


def test_functions_of_a_module(run: Run) -> None:
    url, metrics = run("init-predict")
    assert post(url, {"measurements": [5.1, 3.5, 1.4, 0.2]}).text == "setosa"
    metrics_with(metrics, 'cortex_tracker_predictions_total{class="setosa"} 1.0')


def test_versions_of_a_python_model(run: Run) -> None:
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


def test_several_models_in_one_predictor(run: Run) -> None:
    url, _ = run("text-analyzer")
    assert post(url, {"text": "I love it."}, model="sentiment").json()["label"] == "POSITIVE"
    summary = post(url, {"text": "Rain falls. Rain and more rain fell today."}, model="summarizer")
    assert (summary.text, summary.headers["content-type"]) == (
        "Rain and more rain fell today.",
        "text/plain; charset=utf-8",
    )
    unknown = post(url, {"text": ""}, model="other")
    assert (unknown.status_code, unknown.json()["error"]) == (400, "unknown model: other")


def test_several_onnx_models_by_name(run: Run) -> None:
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
    assert unnamed.status_code == 404
    assert {model["name"] for model in httpx.get(f"{url}/info").json()["models"]} == {
        "resnet50", "mobilenet", "shufflenet",
    }  # fmt: skip
