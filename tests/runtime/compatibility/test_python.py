"""Handlers of type python, in each form that the documentation of a release had."""

import json

import httpx
import pytest

from cortex_runtime.errors import StartError
from cortex_runtime.handler.recognition import load_code
from tests.runtime.compatibility.forms import Ask, Form

METADATA = {"config": {"unit": "cm", "factor": 3}}
VERSIONS = {"models": {"path": "factors"}}
NAMED = {"models": {"paths": [{"name": "two", "path": "named/two"}, {"name": "five", "path": "named/five"}]}}
READ_FACTOR = """
    def load_model(self, model_path):
        with open(os.path.join(model_path, "factor.json")) as file:
            return json.load(file)["factor"]
"""
FORM_DATA = {"files": {"photo": ("p.bin", b"\x01\x02\x03")}, "data": {"title": "red"}}

FORMS = [
    Form(
        "inference-functions",
        "between 0.9 and 0.10",
        "unit = None\n"
        "def init(metadata):\n    global unit\n    unit = metadata['unit']\n"
        "def predict(sample, metadata):\n    return f\"{sample['size'] * metadata['factor']} {unit}\"\n",
        [Ask({"json": {"size": 2}}, "6 cm")],
        METADATA,
    ),
    Form(
        "predictor-functions",
        "0.10 to 0.11",
        "def predict(sample, metadata):\n    return {'double': 2 * sample, 'metadata': metadata}\n",
        [Ask({"json": 4}, {"double": 8, "metadata": {}})],
    ),
    Form(
        "init-model-path",
        "0.10 to 0.11",
        "import json\nfactor = None\n"
        "def init(model_path, metadata):\n    global factor\n"
        "    factor = json.load(open(model_path))['factor'] if model_path else 1\n"
        "def predict(sample, metadata):\n    return sample * factor\n",
        [Ask({"json": 3}, 15)],
        {"models": {"path": "named/five/factor.json"}},
    ),
    Form(
        "init-model-path-folder",
        "0.10 to 0.11",
        "import json, os\nfactor = None\n"
        "def init(model_path, metadata):\n    global factor\n"
        "    factor = json.load(open(os.path.join(model_path, 'factor.json')))['factor']\n"
        "def predict(sample, metadata):\n    return sample * factor\n",
        [Ask({"json": 3}, 15)],
        {"models": {"path": "named/five"}},
    ),
    Form(
        "init-model-path-none",
        "0.10 to 0.11",
        "path = 'not called'\n"
        "def init(model_path, metadata):\n    global path\n    path = model_path\n"
        "def predict(sample, metadata):\n    return {'path': path}\n",
        [Ask({"json": 3}, {"path": None})],
    ),
    Form(
        "python-predictor",
        "0.12 to 0.33",
        "class PythonPredictor:\n"
        "    def __init__(self, config):\n        self.factor = config['factor']\n"
        "    def predict(self, payload):\n        return [self.factor * value for value in payload['values']]\n",
        [Ask({"json": {"values": [1, 2]}}, [3, 6])],
        METADATA,
    ),
    Form(
        "predict-request-parts",
        "0.17 to 0.33",
        "class PythonPredictor:\n"
        "    def __init__(self, config):\n        pass\n"
        "    def predict(self, payload, query_params, headers):\n"
        "        return [payload, query_params['unit'], query_params.get('other'), headers['X-Trace']]\n",
        [Ask({"json": 1, "params": {"unit": "m"}, "headers": {"x-trace": "t"}}, [1, "m", None, "t"])],
    ),
    Form(
        "predict-any-order",
        "0.17 to 0.33",
        "class PythonPredictor:\n"
        "    def __init__(self, config):\n        pass\n"
        "    def predict(self, query_params, payload):\n        return [payload, query_params.get('unit')]\n",
        [Ask({"json": 1, "params": {"unit": "m"}}, [1, "m"])],
    ),
    Form(
        "predict-without-payload",
        "0.16 to 0.33",
        "class PythonPredictor:\n"
        "    def __init__(self, config):\n        self.calls = 0\n"
        "    def predict(self):\n        self.calls += 1\n        return self.calls\n",
        [Ask({"content": b"{"}, 1), Ask({}, 2)],
    ),
    Form(
        "payload-types",
        "0.16 to 0.35",
        "class PythonPredictor:\n"
        "    def __init__(self, config):\n        pass\n"
        "    def predict(self, payload):\n"
        "        if isinstance(payload, (str, bytes)):\n            return [type(payload).__name__, len(payload)]\n"
        "        if 'photo' in payload:\n"
        "            return [payload['title'], payload['photo'].filename, list(payload['photo'].file.read())]\n"
        "        return [type(payload).__name__, payload['title']]\n",
        [
            Ask({"json": {"title": "red"}}, ["dict", "red"]),
            Ask({"data": {"title": "red"}}, ["FormData", "red"]),
            Ask(FORM_DATA, ["red", "p.bin", [1, 2, 3]]),
            Ask({"content": "\u00e9\u00e9", "headers": {"content-type": "text/plain"}}, ["str", 2]),
            Ask({"content": b"\xff", "headers": {"content-type": "application/octet-stream"}}, ["bytes", 1]),
        ],
    ),
    Form(
        "return-types",
        "0.16 to 0.35",
        "from starlette.responses import JSONResponse, Response, StreamingResponse\n"
        "class PythonPredictor:\n"
        "    def __init__(self, config):\n        pass\n"
        "    def predict(self, payload):\n"
        "        return {\n"
        "            'text': 'class 1',\n            'bytes': b'raw',\n            'json': {'a': [1, None]},\n"
        "            'response': Response('teapot', status_code=418, media_type='text/plain'),\n"
        "            'error': JSONResponse({'error': 'unknown'}, status_code=400),\n"
        "            'stream': StreamingResponse(iter([b'a', b'b']), media_type='text/plain'),\n"
        "        }[payload]\n",
        [
            Ask({"json": "text"}, "class 1"),
            Ask({"json": "bytes"}, "raw"),
            Ask({"json": "json"}, {"a": [1, None]}),
            Ask({"json": "response"}, "teapot", 418),
            Ask({"json": "error"}, {"error": "unknown"}, 400),
            Ask({"json": "stream"}, "ab"),
        ],
    ),
    Form(
        "python-client",
        "0.22 to 0.33",
        "import json, os\n"
        "class PythonPredictor:\n"
        "    def __init__(self, config, python_client):\n        self.client = python_client\n"
        + READ_FACTOR
        + "    def predict(self, payload, query_params):\n"
        "        return payload * self.client.get_model(model_version=query_params.get('version', 'latest'))\n",
        [Ask({"json": 2}, 20), Ask({"json": 2, "params": {"version": "1"}}, 4)],
        VERSIONS,
    ),
    Form(
        "python-client-names",
        "0.22 to 0.33",
        "import json, os\n"
        "class PythonPredictor:\n"
        "    def __init__(self, python_client, config):\n"
        "        self.client = python_client\n        self.client.get_model('two')\n"
        + READ_FACTOR
        + "    def predict(self, payload, query_params):\n"
        "        model = self.client.get_model(query_params['model'], query_params.get('version', 'latest'))\n"
        "        return payload * model\n",
        [
            Ask({"json": 2, "params": {"model": "five"}}, 10),
            Ask({"json": 2, "params": {"model": "two", "version": "1"}}, 4),
        ],
        NAMED,
    ),
    Form(
        "python-batching",
        "0.25 to 0.33",
        "class PythonPredictor:\n"
        "    def __init__(self, config):\n        pass\n"
        "    def predict(self, payload, query_params, headers):\n"
        "        assert len(payload) == len(query_params) == len(headers)\n"
        "        return [2 * value + int(query.get('more', 0)) for value, query in zip(payload, query_params)]\n",
        [Ask({"json": 4}, 8), Ask({"json": 5, "params": {"more": "1"}}, 11)],
        {"serverSideBatching": {"maxBatchSize": 4, "batchInterval": "1ms"}},
    ),
    Form(
        "project-files",
        "0.9 to 0.35",
        "import json, os, scale\n"
        "with open('values.json') as file:\n    values = json.load(file)\n"
        "class PythonPredictor:\n"
        "    def __init__(self, config):\n        pass\n"
        "    def predict(self, payload):\n        return [values, scale.double(payload), os.environ['SHADE']]\n",
        [Ask({"json": 4}, [{"a": 1}, 8, "dark"])],
    ),
    Form(
        "handler-verbs",
        "0.34 to 0.35",
        "class Handler:\n"
        "    def __init__(self, config):\n        self.kept = {}\n"
        "    def handle_post(self, payload, query_params, headers):\n"
        "        self.kept = payload\n        return [query_params['unit'], headers['x-trace']]\n"
        "    def handle_get(self):\n        return self.kept\n"
        "    def handle_put(self, payload):\n        self.kept = payload\n"
        "    def handle_patch(self, payload):\n        self.kept.update(payload)\n        return self.kept\n"
        "    def handle_delete(self, query_params):\n        return self.kept.pop(query_params['name'])\n",
        [
            Ask({"json": {"a": 1}, "params": {"unit": "m"}, "headers": {"x-trace": "t"}}, ["m", "t"]),
            Ask({"method": "GET"}, {"a": 1}),
            Ask({"method": "PUT", "json": {"b": 2}}, None),
            Ask({"method": "PATCH", "json": {"c": 3}}, {"b": 2, "c": 3}),
            Ask({"method": "DELETE", "params": {"name": "b"}}, 2),
        ],
    ),
    Form(
        "handler-callback",
        "0.34 to 0.35",
        "import threading\n"
        "class Handler:\n"
        "    def __init__(self, config):\n        self.done = threading.Event()\n"
        "    def handle_post(self, payload):\n        return {'first': payload}, self.done.set\n"
        "    def handle_get(self):\n        return self.done.wait(60)\n",
        [Ask({"json": 1}, {"first": 1}), Ask({"method": "GET"}, True)],
        {"threadsPerProcess": 2},
    ),
    Form(
        "handler-model-client",
        "0.34 to 0.35",
        "import json, os\n"
        "class Handler:\n"
        "    def __init__(self, config, model_client):\n        self.client = model_client\n"
        + READ_FACTOR
        + "    def handle_post(self, payload, query_params):\n"
        "        return payload * self.client.get_model(query_params['model'])\n",
        [Ask({"json": 2, "params": {"model": "five"}}, 10)],
        NAMED,
    ),
    Form(
        "handler-python-client",
        "0.34 to 0.35",
        "import json, os\n"
        "class Handler:\n"
        "    def __init__(self, config, python_client):\n        self.client = python_client\n"
        + READ_FACTOR
        + "    def handle_post(self, query_params, payload):\n"
        "        return payload * self.client.get_model(model_version=query_params.get('version', 'latest'))\n",
        [Ask({"json": 2}, 20)],
        VERSIONS,
    ),
    Form(
        "handler-batching",
        "0.34 to 0.35",
        "class Handler:\n"
        "    def __init__(self, config):\n        pass\n"
        "    def handle_post(self, payload):\n        return [2 * value for value in payload]\n",
        [Ask({"json": 4}, 8)],
        {"serverSideBatching": {"maxBatchSize": 4, "batchInterval": "1ms"}},
    ),
]


@pytest.fixture
def project(tmp_path):
    """A project with files to read and import, and models: factors/ has two versions, named/ two models."""
    folder = tmp_path / "files"
    for path, factor in (("factors/1", 2), ("factors/2", 10), ("named/two/1", 2), ("named/five", 5)):
        (folder / path).mkdir(parents=True)
        (folder / path / "factor.json").write_text(json.dumps({"factor": factor}))
    (folder / "values.json").write_text('{"a": 1}')
    (folder / "scale.py").write_text("def double(value): return 2 * value\n")
    (folder / ".env").write_text("SHADE=dark\n")
    return folder


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_a_documented_python_handler_runs(serve, project, form):
    api = serve(form.source, project=project, **form.handler)
    with httpx.Client(timeout=30) as client:
        for ask in form.asks:
            ask.check(client.request, api.url)


LOGGING = [
    Form(
        "logger",
        "0.7 to 0.8",
        "from cortex.lib.log import get_logger\n"
        "logger = get_logger()\n"
        "def predict(sample, metadata):\n    logger.info(sample)\n",
        [Ask({"json": "seen"}, None)],
    ),
    Form(
        "structured-logger",
        "0.27 to 0.35",
        "from cortex_internal.lib.log import logger as cortex_logger\n"
        "class PythonPredictor:\n"
        "    def __init__(self, config):\n        pass\n"
        "    def predict(self, payload):\n        cortex_logger.info('seen', extra={'payload': payload})\n",
        [Ask({"json": "blue"}, None)],
    ),
]


@pytest.mark.parametrize("form", LOGGING, ids=str)
def test_the_documented_loggers_write_to_the_log_of_the_api(serve, form):
    api = serve(form.source)
    for ask in form.asks:
        ask.check(httpx.request, api.url)
    (line,) = api.until(lambda: [line for line in api.lines() if line["message"] == "seen"])
    assert (line["level"], bool(line["requestId"])) == ("info", True)
    assert line.get("payload") == ("blue" if form.name == "structured-logger" else None)


AFTERWARDS = Form(
    "post-predict",
    "0.19 to 0.33",
    "class PythonPredictor:\n"
    "    def __init__(self, config):\n        pass\n"
    "    def predict(self, payload):\n        return {'double': 2 * payload}\n"
    "    def post_predict(self, response, payload, query_params, headers):\n"
    "        print('after', response['double'], payload, query_params['unit'], headers['x-trace'])\n",
    [Ask({"json": 4, "params": {"unit": "m"}, "headers": {"x-trace": "t"}}, {"double": 8})],
)


def test_post_predict_runs_after_the_response_with_its_arguments(serve):
    api = serve(AFTERWARDS.source)
    for ask in AFTERWARDS.asks:
        ask.check(httpx.request, api.url)
    api.until(lambda: "after 8 4 m t" in [line["message"] for line in api.lines()])


METRICS = Form(
    "metrics-client",
    "0.30 to 0.35",
    "class Handler:\n"
    "    def __init__(self, config, metrics_client):\n        self.metrics = metrics_client\n"
    "    def handle_post(self, payload):\n"
    "        self.metrics.increment(metric='seen', value=payload, tags={'model': 'v1'})\n"
    "        self.metrics.gauge(metric='level', value=42, tags={'model': 'v1'})\n"
    "        self.metrics.histogram(metric='sizes', value=100, tags={'model': 'v1'})\n",
    [Ask({"json": 3}, None), Ask({"json": 4}, None)],
)


def test_the_metrics_client_is_called_by_name(serve):
    api = serve(METRICS.source)
    for ask in METRICS.asks:
        ask.check(httpx.request, api.url)
    assert api.wait_metric('seen_total{model="v1"}', 7) == 7
    assert api.wait_metric('level{model="v1"}', 42) == 42
    assert api.wait_metric('sizes_sum{model="v1"}', 200) == 200


NOT_SERVED = [
    (
        "class PythonPredictor:\n    def __init__(self, config, job_spec): pass\n    def predict(self, payload): pass\n",
        "BatchAPI is not supported",
    ),
    (
        "class PythonPredictor:\n    def predict(self, payload, batch_id): pass\n",
        "BatchAPI is not supported",
    ),
    ("class Handler:\n    def handle_batch(self, payload): pass\n", "BatchAPI is not supported"),
    ("class Task:\n    def __call__(self, config): pass\n", "TaskAPI is not supported"),
    (
        "class Handler:\n    def __init__(self, config, module_proto_pb2): pass\n    def Predict(self, payload): pass\n",
        "custom gRPC services are not supported",
    ),
    (
        "class PythonPredictor:\n    def predict(self, payload, context): pass\n",
        "custom gRPC services are not supported",
    ),
]


@pytest.mark.parametrize(("source", "words"), NOT_SERVED)
def test_a_handler_of_a_kind_that_is_not_served_is_refused_with_the_kind(tmp_path, source, words):
    path = tmp_path / "handler.py"
    path.write_text(source)
    with pytest.raises(StartError, match=words):
        load_code(path, "python")
