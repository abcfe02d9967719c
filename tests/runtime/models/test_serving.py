"""A replica with models: from their locations to responses, and through changes at their locations."""

import pickle

import httpx
import pytest

ONNX = """
class Handler:
    def __init__(self, onnx_client, config):
        self.client = onnx_client
    def handle_post(self, payload, query_params):
        return self.client.predict(payload, query_params.get("model"), query_params.get("version"))[0]
"""
PYTHON = """
import os, pickle
class PythonPredictor:
    def __init__(self, config, python_client):
        self.client = python_client
        self.offset = config.get("offset", 0)
    def load_model(self, model_path):
        with open(os.path.join(model_path, "model.pkl"), "rb") as file:
            return pickle.load(file) + self.offset
    def predict(self, payload, query_params):
        return {"value": self.client.get_model(query_params.get("model"), query_params.get("version"))}
"""


def info(api):
    return httpx.get(f"{api.url}/info").json()


def test_versions_in_a_bucket_come_and_go_while_requests_are_answered(serve, s3, onnx_bytes):
    s3.put("serving", {"onnx/1/m.onnx": onnx_bytes(1.0)})
    api = serve(ONNX, type="onnx", models={"path": "s3://serving/onnx/", "pollInterval": "200ms"})
    assert api.post([[1, 2]]).json() == [[1.0, 2.0]]
    s3.put("serving", {"onnx/2/m.onnx": onnx_bytes(2.0)})
    api.until(lambda: api.post([[1, 2]]).json() == [[2.0, 4.0]])
    assert api.post([[1, 2]], params={"version": "1"}).json() == [[1.0, 2.0]]
    assert info(api)["models"][0]["versions"] == ["1", "2"]
    # A truncated third version is reported everywhere, and the second one remains in use.
    s3.put("serving", {"onnx/3/m.onnx": onnx_bytes(3.0)[:-30]})
    api.until(lambda: info(api)["problems"])
    assert "failed to load" in info(api)["problems"]["model 3"]
    assert api.post([[1, 2]]).json() == [[2.0, 4.0]]
    assert api.post([[1, 2]], params={"version": "3"}).status_code == 500
    api.wait_metric('cortex_model_load_failures_total{model="model"}')
    assert api.ready().status_code == 200
    s3.put("serving", {"onnx/3/m.onnx": onnx_bytes(3.0)})
    api.until(lambda: api.post([[1, 2]]).json() == [[3.0, 6.0]])
    api.until(lambda: not info(api)["problems"])
    s3.remove("serving", "onnx/3/")
    api.until(lambda: api.post([[1, 2]]).json() == [[2.0, 4.0]])


def test_a_replaced_worker_serves_the_last_loadable_model(serve, web, onnx_bytes):
    web.files["/m.onnx"] = onnx_bytes(1.0)
    handler = (
        ONNX
        + """
    def handle_delete(self):
        import os
        os.kill(os.getpid(), 9)
"""
    )
    api = serve(handler, type="onnx", models={"path": f"{web.url}/m.onnx", "pollInterval": "200ms"})
    web.files["/m.onnx"] = onnx_bytes(2.0)[:-30]
    api.until(lambda: info(api)["problems"])
    with pytest.raises(httpx.TransportError):
        httpx.delete(api.url)
    api.until(
        lambda: api.metric("cortex_worker_restarts_total") == 1 and api.metric("cortex_workers_ready") == 1
    )
    assert api.post([[1, 2]]).json() == [[1.0, 2.0]]
    assert "failed to load" in info(api)["problems"]["model 1"]
    web.files["/m.onnx"] = onnx_bytes(3.0)
    api.until(lambda: api.post([[1, 2]]).json() == [[3.0, 6.0]])


def test_python_models_by_name_and_version(serve, s3):
    s3.put("pickles", {f"{name}/{v}/model.pkl": pickle.dumps(f"{name}{v}") for name in "ab" for v in (1, 2)})
    models = {"paths": [{"name": name, "path": f"s3://pickles/{name}/"} for name in "ab"]}
    api = serve(PYTHON, models=models, config={"offset": "!"})
    for query, value in (("model=a", "a2!"), ("model=b&version=1", "b1!"), ("model=a&version=latest", "a2!")):
        assert httpx.post(f"{api.url}?{query}", json={}).json() == {"value": value}
    for query, words in (
        ("model=c", "available: a, b"),
        ("", "the request must name a model: a, b"),
        ("model=a&version=7", "1, 2"),
    ):
        answer = httpx.post(f"{api.url}?{query}", json={})
        assert (answer.status_code, words in answer.json()["error"]) == (404, True)
    assert [(m["name"], m["versions"], m["loaded"]) for m in info(api)["models"]] == [
        ("a", ["1", "2"], ["1", "2"]),
        ("b", ["1", "2"], ["1", "2"]),
    ]


def test_a_load_model_that_raises_is_reported_at_the_start(serve, s3):
    s3.put("broken", {"m/model.pkl": b"no pickle"})
    reason, message = serve(PYTHON, wait=False, models={"path": "s3://broken/m"}).cause_of_death()
    assert reason == "ModelInvalid"
    assert "UnpicklingError" in message


def test_models_need_a_load_model(serve, s3):
    s3.put("pickles", {"a/1/model.pkl": pickle.dumps(1)})
    handler = "class Handler:\n    def __init__(self, config): pass\n    def handle_post(self): return 1\n"
    reason, message = serve(handler, wait=False, models={"path": "s3://pickles/a"}).cause_of_death()
    assert reason == "HandlerInvalid"
    assert "load_model(self, model_path)" in message


@pytest.mark.parametrize(
    ("location", "key", "expected", "words"),
    [
        ("s3://serving/nothing", "tester", "ModelNotFound", "s3://serving/nothing does not exist"),
        ("s3://no-such-bucket/m", "tester", "ModelNotFound", "bucket no-such-bucket does not exist"),
        ("s3://serving/onnx", "reader", "ModelAccessDenied", "access denied"),
    ],
)
def test_an_unreadable_bucket_is_the_reason_of_the_exit(
    serve, s3, monkeypatch, location, key, expected, words
):
    s3.put("serving", {"other": b""})
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", f"{key}-secret")
    api = serve(ONNX, wait=False, type="onnx", models={"path": location})
    reason, message = api.cause_of_death()
    assert (reason, words in message) == (expected, True)


def test_a_cache_of_one_model_serves_many(serve, s3, onnx_bytes):
    s3.put("many", {f"all/m{i}/1/m.onnx": onnx_bytes(float(i)) for i in range(1, 5)})
    models = {"dir": "s3://many/all", "cacheSize": 1, "diskCacheSize": 2}
    api = serve(ONNX, type="onnx", models=models)
    assert [model["loaded"] for model in info(api)["models"]] == [[]] * 4
    for i in (1, 2, 1, 3, 4, 4):
        assert api.post([[1, 1]], params={"model": f"m{i}"}).json() == [[float(i)] * 2]
    assert [model["loaded"] for model in info(api)["models"]] == [[], [], [], ["1"]]
    fetched = list((api.project.parent / "models").rglob("*.onnx"))
    assert len(fetched) == 2


def test_readiness_reports_a_download(serve, web, onnx_bytes):
    web.files["/m.onnx"] = onnx_bytes(1.0)
    web.gate.clear()
    api = serve(ONNX, wait=False, type="onnx", models={"path": f"{web.url}/m.onnx"})
    api.until(lambda: (answer := api.ready()) is not None and answer.status_code == 503)
    web.gate.set()
    api.wait_ready()
    assert api.post([[1, 2]]).json() == [[1.0, 2.0]]
    assert any("downloading" in line["message"] and "done" in line["message"] for line in api.lines())


def test_a_stop_while_models_are_fetched_ends_the_replica(serve, web, onnx_bytes):
    web.files["/m.onnx"] = onnx_bytes(1.0)
    web.faults = [503] * 1000
    api = serve(ONNX, wait=False, type="onnx", models={"path": f"{web.url}/m.onnx"})
    api.until(lambda: web.seen)
    api.process.terminate()
    assert api.process.wait(60) == 0
