"""Every interface of every release: what a file may define, the arguments that it receives, and the messages for mistakes."""

import asyncio

import httpx
import pytest

from cortex_runtime.errors import StartError
from cortex_runtime.handler import interfaces
from cortex_runtime.handler.interfaces import JOB, construct, methods
from cortex_runtime.handler.recognition import load_code


def write(tmp_path, source):
    path = tmp_path / "handler.py"
    path.write_text(source)
    return path


def made(tmp_path, source, handler_type="python", kind="RealtimeAPI", **values):
    """Return the methods of the handler in a source, by verb."""
    values = {"config": {"a": 1}, "metadata": {"a": 1}, "metrics_client": "metrics", **values}
    code = load_code(write(tmp_path, source), handler_type, kind)
    return methods(code, construct(code, values), values)


CLASSES = [
    ("Handler", "python", "handle_post", {}),
    ("Handler", "onnx", "handle_post", {"onnx_client": "client"}),
    ("Handler", "tensorflow", "handle_post", {"tensorflow_client": "client"}),
    ("PythonPredictor", "python", "predict", {}),
    ("PythonPredictor", "python", "predict", {"python_client": "client"}),
    ("PythonPredictor", "python", "predict", {"model_client": "client"}),
    ("TensorFlowPredictor", "tensorflow", "predict", {"tensorflow_client": "client"}),
    ("ONNXPredictor", "onnx", "predict", {"onnx_client": "client"}),
]


@pytest.mark.parametrize(("name", "kind", "method", "client"), CLASSES)
def test_a_class_gets_the_arguments_that_it_names_in_any_order(tmp_path, name, kind, method, client):
    names = ", ".join(["metrics_client", *client, "config"])
    source = f"""
class {name}:
    def __init__(self, {names}):
        self.got = [{names}]
    def {method}(self, headers, payload):
        return [*self.got, headers, payload]
"""
    found = made(tmp_path, source, kind, **client)
    assert list(found) == ["POST"]
    assert set(found["POST"].arguments) == {"headers", "payload"}
    result = found["POST"].function(payload="p", headers="h")
    assert result == ["metrics", *client.values(), {"a": 1}, "h", "p"]


def test_all_verbs(tmp_path):
    verbs = ("post", "get", "put", "patch", "delete")
    source = "class Handler:\n" + "".join(f"    def handle_{v}(self): return {v!r}\n" for v in verbs)
    found = made(tmp_path, source)
    assert {verb: method.function() for verb, method in found.items()} == {v.upper(): v for v in verbs}


def test_functions_of_a_module(tmp_path):
    source = """
state = {}
def init(metadata):
    state["metadata"] = metadata
def predict(sample, metadata):
    return [sample, metadata, state["metadata"]]
"""
    post = made(tmp_path, source)["POST"]
    assert post.arguments == ("payload",)
    assert post.function(payload=5) == [5, {"a": 1}, {"a": 1}]


def test_init_is_optional_and_config_is_another_name_for_metadata(tmp_path):
    found = made(tmp_path, "def predict(payload, config): return [payload, config]\n")
    assert found["POST"].function(payload=5) == [5, {"a": 1}]


def test_inherited_imported_decorated_and_async_methods(tmp_path):
    source = """
import functools
def traced(function):
    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        return function(*args, **kwargs)
    return wrapper
class Base:
    @traced
    def handle_post(self, payload):
        return payload
class Handler(Base):
    async def handle_get(self, query_params=None, *, headers=7):
        return [query_params, headers]
"""
    found = made(tmp_path, source)
    assert found["POST"].function(payload=1) == 1
    assert found["GET"].is_async
    assert asyncio.run(found["GET"].function(headers=2)) == [None, 2]


@pytest.mark.parametrize("word", ["def", "async def"])
def test_post_predict_runs_afterwards_with_the_response(tmp_path, word):
    source = f"""
seen = []
class PythonPredictor:
    def __init__(self, config): pass
    {word} predict(self, payload): return payload * 2
    def post_predict(self, response, payload, headers): seen.append((response, payload, headers))
    def get(self): return seen
"""
    post = made(tmp_path, source)["POST"]
    assert set(post.arguments) == {"payload", "headers"}
    result = post.function(payload=2, headers="h")
    value, callback = asyncio.run(result) if post.is_async else result
    callback()
    assert value == 4
    assert callback.func.__globals__["seen"] == [(4, 2, "h")]


@pytest.mark.parametrize("source", [
    "class Handler:\n    def handle_async(self, payload, request_id): return [payload, request_id]\n",
    "class PythonPredictor:\n    def predict(self, payload, request_id): return [payload, request_id]\n",
    "def predict(payload, request_id): return [payload, request_id]\n",
])  # fmt: skip
def test_the_methods_of_an_async_api(tmp_path, source):
    found = made(tmp_path, source, kind="AsyncAPI")
    assert found[JOB].function(payload=1, request_id="id") == [1, "id"]


BROKEN = [
    (
        "class Handler:\n    def handler_async(self): pass\n",
        "python",
        "AsyncAPI",
        "did you mean handle_async?",
    ),
    (
        "class Handler:\n    def handle_post(self): pass\n",
        "python",
        "AsyncAPI",
        "is a method of kind RealtimeAPI",
    ),
    (
        "class Handler:\n    def handle_async(self): pass\n",
        "python",
        "RealtimeAPI",
        "is a method of kind AsyncAPI",
    ),
    ("class handler: pass\n", "python", "RealtimeAPI", "did you mean handler?"),
    ("class Predictor: pass\n", "python", "RealtimeAPI", "did you mean Predictor?"),
    ("class ONNXPredictor: pass\n", "python", "RealtimeAPI", "requires handler.type onnx"),
    ("def predit(payload): pass\n", "python", "RealtimeAPI", "did you mean predit?"),
    ("def handle_post(payload): pass\n", "python", "RealtimeAPI", "must be a method of class Handler"),
    (
        "def pre_inference(sample): pass\n",
        "python",
        "RealtimeAPI",
        "requires handler.type onnx or tensorflow",
    ),
    ("def predict(payload): pass\n", "onnx", "RealtimeAPI", "requires handler.type python"),
    ("def init(config): pass\n", "python", "RealtimeAPI", "function predict"),
    ("Handler = 3\n", "python", "RealtimeAPI", "must be a class"),
    ("class Handler:\n    handle_post = 3\n", "python", "RealtimeAPI", "must be a method"),
    (
        "class Handler:\n    def handle_post(self): pass\nclass PythonPredictor:\n    def predict(self): pass\n",
        "python",
        "RealtimeAPI",
        "must define only one handler class",
    ),
    (
        "class Handler:\n    def __init__(self, tensorflow_client): pass\n    def handle_post(self): pass\n",
        "python",
        "RealtimeAPI",
        "require another handler.type",
    ),
    ("def predict(payload, sampel): pass\n", "python", "RealtimeAPI", "did you mean sample?"),
    ("def post_inference(): pass\n", "onnx", "RealtimeAPI", "its input as the first argument"),
    ("def pre_inference(x, signatur): pass\n", "onnx", "RealtimeAPI", "did you mean signature?"),
]


@pytest.mark.parametrize(("source", "handler_type", "kind", "words"), BROKEN)
def test_mistakes_are_reported_with_a_suggestion(tmp_path, source, handler_type, kind, words):
    with pytest.raises(StartError) as error:
        load_code(write(tmp_path, source), handler_type, kind)
    assert error.value.reason in ("HandlerInvalid", "HandlerNotFound")
    assert words in error.value.message


def test_every_interface_is_tried_here():
    tried = {name for name, *_ in CLASSES}
    named = {interface.name for interface in interfaces.INTERFACES if interface.form is interfaces.Form.CLASS}
    assert named == tried


class Model:
    """Answers as a client does."""

    argument = "onnx_client"

    def predict(self, model_input, model_name=None, model_version=None):
        return ["answer to", model_input, model_name, model_version]

    def signature(self, model_name=None, model_version=None):
        return {"inputs": {"x": {"shape": [1], "type": "float32"}}, "outputs": {}}


def pipeline(tmp_path, source, kind="RealtimeAPI"):
    from cortex_runtime.handler import pipeline

    path = write(tmp_path, source) if source else None
    return pipeline.methods(load_code(path, "onnx", kind), Model(), {"unit": "cm"})


QUERY = {"model": "iris", "version": "3"}


@pytest.mark.parametrize(
    ("source", "answer"),
    [
        ("", ["answer to", 1, "iris", "3"]),
        ("def pre_inference(sample): return sample + 1\n", ["answer to", 2, "iris", "3"]),
        ("def post_inference(prediction): return prediction[1]\n", 1),
        ("def pre_inference(x, metadata): return sorted(metadata)\n", ["answer to", ["inputs", "outputs"], "iris", "3"]),
        (
            "def pre_inference(x, signature, metadata): return [signature['inputs']['x']['type'], metadata]\n",
            ["answer to", ["float32", {"unit": "cm"}], "iris", "3"],
        ),
        ("def post_inference(x, *, config, query_params): return [config, query_params['version']]\n", [{"unit": "cm"}, "3"]),
    ],
)  # fmt: skip
def test_a_model_with_and_without_functions_around_it(tmp_path, source, answer):
    post = pipeline(tmp_path, source)["POST"]
    given = {"payload": 1, "query_params": QUERY, "headers": {}}
    assert post.function(**{name: given[name] for name in post.arguments}) == answer


def test_a_model_as_it_is_works_on_jobs(tmp_path):
    job = pipeline(tmp_path, "", "AsyncAPI")[JOB]
    assert job.function(payload=1) == ["answer to", 1, None, None]


def test_an_async_stage_is_refused(tmp_path):
    with pytest.raises(StartError, match="plain function"):
        pipeline(tmp_path, "async def pre_inference(x): return x\n")


PYTHON_MODELS = """
import pathlib
import numpy as np
loads = []
class PythonPredictor:
    def __init__(self, config, python_client):
        self.client = python_client
    def load_model(self, model_path):
        loads.append(model_path)
        path = pathlib.Path(model_path)
        return float(next(path.iterdir()).read_text() if path.is_dir() else path.read_text())
    def predict(self, payload, query_params):
        version = query_params.get("version")
        model = self.client.get_model(model_version=version)
        return {"prediction": np.float64(model) * np.array(payload), "model": {"version": version}, "loads": len(loads)}
"""


def test_versions_of_a_python_model_are_chosen_by_the_query(serve, tmp_path):
    for version in (1, 2, 10):
        folder = tmp_path / "linreg" / str(version)
        folder.mkdir(parents=True)
        (folder / "factor.txt").write_text(str(version))
    api = serve(PYTHON_MODELS, models={"path": f"{tmp_path}/linreg/"})
    second = api.post(json=[1, 2], params={"version": "2"})
    assert second.json() == {"prediction": [2.0, 4.0], "model": {"version": "2"}, "loads": 3}
    assert second.headers["x-model-version"] == "2"
    latest = api.post([1])
    assert (latest.json()["prediction"], latest.headers["x-model-version"]) == ([10.0], "10")
    missing = api.post(json=[1], params={"version": "3"})
    assert (missing.status_code, "1, 2, 10" in missing.json()["error"]) == (404, True)
    assert api.post(json=[1], params={"version": "new"}).status_code == 400
    info = httpx.get(f"{api.url}/info").json()
    assert info["models"][0]["versions"] == ["1", "2", "10"]
    assert info["interface"] == "PythonPredictor"


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (PYTHON_MODELS.replace("load_model", "load_it"), "load_model"),
        (PYTHON_MODELS.replace("config, python_client", "config").replace("= python_client", "= None"), "python_client"),
        (PYTHON_MODELS.replace("return float(", "raise ValueError("), "ValueError"),
    ],
)  # fmt: skip
def test_a_python_model_that_cannot_be_served_is_reported(serve, tmp_path, source, words):
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "factor.txt").write_text("3")
    reason, message = serve(source, wait=False, models={"path": f"{tmp_path}/m"}).cause_of_death()
    assert reason in ("HandlerInvalid", "ModelInvalid")
    assert words in message


class Doubling(Model):
    """y = 2 x for any number of rows of two; counts its calls."""

    def __init__(self, rows="n"):
        self.calls = []
        self.rows = rows

    def predict(self, model_input, model_name=None, model_version=None):
        import numpy as np

        array = np.asarray(model_input["x"] if isinstance(model_input, dict) else model_input, np.float32)
        self.calls.append((model_name, len(array)))
        if (array > 99).any():
            raise ValueError("too large")
        return [array * 2]

    def signature(self, model_name=None, model_version=None):
        return {"inputs": {"x": {"shape": [self.rows, 2], "type": "float32"}}, "outputs": {}}


@pytest.mark.parametrize(
    ("rows", "calls"), [("n", [("a", 3), ("b", 1)]), (1, [("a", 1), ("a", 1), ("a", 1), ("b", 1)])]
)
def test_requests_for_one_model_run_as_one(tmp_path, rows, calls):
    from cortex_runtime.handler.pipeline import Pipeline

    model = Doubling(rows)
    pipeline = Pipeline(load_code(None, "onnx"), model, {})
    payloads = [[[1, 2]], [[3, 4]], [[5, 6]], [[7, 8]]]
    queries = [{"model": "a"}, {"model": "b"}, {"model": "a"}, {"model": "a"}]
    results = pipeline.predict_many(payload=payloads, query_params=queries)
    assert [result[0].tolist() for result in results] == [[[2, 4]], [[6, 8]], [[10, 12]], [[14, 16]]]
    assert sorted(model.calls) == calls


def test_a_refused_input_does_not_affect_the_others_in_its_batch():
    from cortex_runtime.handler.pipeline import Pipeline

    pipeline = Pipeline(load_code(None, "onnx"), Doubling(), {})
    results = pipeline.predict_many(payload=[[[1, 2]], [[100, 0]], [["x", 2]]], query_params=[{}, {}, {}])
    assert results[0][0].tolist() == [[2, 4]]
    assert [type(result).__name__ for result in results[1:]] == ["ValueError", "UserError"]
