"""Type tensorflow in a replica: workers that share TensorFlow Serving, and a model served without code."""

import shutil

import httpx
import pytest

HANDLER = """
import sys

class Handler:
    def __init__(self, tensorflow_client, config):
        self.client = tensorflow_client

    def handle_post(self, payload, query_params):
        return self.client.predict(payload, query_params.get("model"), query_params.get("version"))

    def handle_get(self):
        return {"tensorflow": "tensorflow" in sys.modules}
"""
ONES = {"a": [[1.0, 1.0, 1.0]], "b": [[1.0, 1.0, 1.0]]}


@pytest.fixture(params=["in process", "server"])
def way(request, monkeypatch):
    address = ""
    if request.param == "server":
        address = f"127.0.0.1:{request.getfixturevalue('double').port}"
    monkeypatch.setenv("CORTEX_TENSORFLOW_SERVING", address)
    return request.param


def test_a_handler_selects_models_by_name_and_version(serve, models, way):
    paths = [{"name": name, "path": str(models / name)} for name in ("sum", "words")]
    api = serve(HANDLER, type="tensorflow", models={"paths": paths}, wait=False)
    # The import of TensorFlow takes seconds.
    api.until(lambda: (ready := api.ready()) is not None and ready.status_code == 200, 120)
    answer = api.post(ONES, params={"model": "sum", "version": "2"})
    assert answer.json() == {"best": [0], "scores": [[3.0, 3.0, 3.0]]}
    assert answer.headers["x-model-version"] == "sum=2"
    assert api.post({"text": ["a"]}, params={"model": "words"}).json()["upper"] == ["A"]
    unknown = api.post(ONES, params={"model": "product"})
    assert (unknown.status_code, "available: sum, words" in unknown.json()["error"]) == (404, True)
    wrong = api.post({"a": [[1, 2]]}, params={"model": "sum"})
    assert (wrong.status_code, "missing input b" in wrong.json()["error"]) == (400, True)
    assert httpx.get(api.url).json()["tensorflow"] == (way == "in process")
    listed = {entry["name"]: entry["loaded"] for entry in httpx.get(f"{api.url}/info").json()["models"]}
    assert listed == {"sum": ["1", "2", "10"], "words": ["1"]}
    # Every line of the log is JSON.
    assert api.lines()


def test_workers_share_the_server_and_follow_a_change(serve, models, double, monkeypatch, tmp_path):
    monkeypatch.setenv("CORTEX_TENSORFLOW_SERVING", f"127.0.0.1:{double.port}")
    folder = tmp_path / "sum"
    shutil.copytree(models / "sum" / "1", folder / "1")
    spec = {"path": str(folder), "pollInterval": "100ms"}
    api = serve(HANDLER, type="tensorflow", processesPerReplica=2, models=spec)
    assert len(double.available()) == 1
    shutil.copytree(models / "sum" / "2", tmp_path / "incoming")
    (tmp_path / "incoming").rename(folder / "2")
    # The kernel chooses the worker of a connection.
    api.until(lambda: all(api.post(ONES).json()["scores"][0][0] == 3.0 for _ in range(10)))
    assert len(double.available()) == 2


def test_an_unavailable_server_causes_503_until_it_is_back(serve, models, double, monkeypatch):
    monkeypatch.setenv("CORTEX_TENSORFLOW_SERVING", f"127.0.0.1:{double.port}")
    api = serve(HANDLER, type="tensorflow", models={"path": str(models / "sum")})
    double.down()
    try:
        away = api.post(ONES)
        assert (away.status_code, away.headers["retry-after"]) == (503, "1")
    finally:
        double.up()
    api.until(lambda: api.post(ONES).status_code == 200)


@pytest.mark.parametrize(
    ("source", "payload", "expected"),
    [
        (None, ONES, {"best": [0], "scores": [[11.0, 11.0, 11.0]]}),
        (
            "def pre_inference(payload, signature):\n"
            "    return {name: [payload] for name in signature['inputs']}\n"
            "def post_inference(prediction):\n"
            "    return prediction['scores'][0]\n",
            [1, 1, 1],
            [11.0, 11.0, 11.0],
        ),
    ],
)
def test_a_model_is_served_as_it_is_or_with_something_around_it(
    serve, models, double, monkeypatch, source, payload, expected
):
    monkeypatch.setenv("CORTEX_TENSORFLOW_SERVING", f"127.0.0.1:{double.port}")
    path = {} if source else {"path": None}
    api = serve(source, type="tensorflow", models={"path": str(models / "sum")}, **path)
    answer = api.post(payload)
    assert (answer.status_code, answer.json()) == (200, expected)
