"""Handlers of type tensorflow, in each form that the documentation of a release had, and jobs with SavedModels."""

import shutil

import httpx
import pytest
import yaml
from click.testing import CliRunner

from cortex_cli.__main__ import main
from tests.runtime.compatibility.forms import Ask, Form
from tests.runtime.jobs.conftest import api  # noqa: F401

LABELS = {"config": {"labels": ["first", "second", "third"]}}
SIZES = [0.0, 0.25, 0.75]
"""Values that a float32 holds exactly."""

FORMS = [
    Form(
        "response-mapping",
        "0.6 to 0.7",
        "labels = ['first', 'second', 'third']\n"
        "def pre_inference(sample, metadata):\n    return {'x': [sample['sizes']]}\n"
        "def post_inference(prediction, metadata):\n"
        "    index = int(prediction['response']['class_ids'][0])\n"
        "    return {'index': index, 'label': labels[index]}\n",
        [Ask({"json": {"sizes": SIZES}}, {"index": 2, "label": "third"})],
    ),
    Form(
        "signature-def-map",
        "0.6 to 0.9",
        "def pre_inference(sample, metadata):\n"
        "    ((name, tensor),) = metadata['predict']['inputs'].items()\n"
        "    sizes = [int(dim['size']) for dim in tensor['tensorShape']['dim']]\n"
        "    assert (list(metadata), tensor['dtype'], sizes) == (['predict'], 'DT_FLOAT', [-1, 3])\n"
        "    return {name: [sample]}\n"
        "def post_inference(prediction, metadata):\n"
        "    return sorted(metadata['predict']['outputs']), int(prediction['class_ids'][0])\n",
        [Ask({"json": SIZES}, [["class_ids", "classes", "probabilities"], 2])],
    ),
    Form(
        "flat-outputs",
        "0.6 to 0.11",
        "import json, math\n"
        "def post_inference(prediction, metadata):\n"
        "    assert all(type(values) is list for values in prediction.values())\n"
        "    labels = ['first', 'second', 'third']\n"
        "    return {\n"
        "        'label': labels[prediction['class_ids'][0]],\n"
        "        'highest': max(prediction['probabilities']),\n"
        "        'count': len(prediction['probabilities']),\n"
        "        'text': prediction['classes'],\n"
        "        'json': json.loads(json.dumps(prediction['probabilities'])),\n"
        "    }\n",
        [
            Ask(
                {"json": {"x": [SIZES]}},
                {"label": "third", "highest": 0.75, "count": 3, "text": ["2"], "json": SIZES},
            )
        ],
    ),
    Form(
        "signature-and-metadata",
        "0.10 to 0.11",
        "def pre_inference(sample, signature, metadata):\n"
        "    (name,) = signature['predict']['inputs']\n    return {name: [sample]}\n"
        "def post_inference(prediction, signature, metadata):\n"
        "    return [metadata['labels'][int(prediction['class_ids'][0])], len(signature['predict']['outputs'])]\n",
        [Ask({"json": SIZES}, ["third", 3])],
        LABELS,
    ),
    Form(
        "tensorflow-predictor",
        "0.12 to 0.33",
        "import numpy as np\n"
        "class TensorFlowPredictor:\n"
        "    def __init__(self, tensorflow_client, config):\n"
        "        self.client, self.labels = tensorflow_client, config['labels']\n"
        "    def predict(self, payload):\n"
        "        prediction = self.client.predict({'x': [payload]})\n"
        "        order = np.argsort(prediction['probabilities'])\n"
        "        rows = np.array(prediction['probabilities']).reshape((-1, 3))\n"
        "        return [self.labels[int(prediction['class_ids'][0])], order[-2:].tolist(), len(rows), prediction]\n",
        [
            Ask(
                {"json": SIZES},
                ["third", [1, 2], 1, {"class_ids": [2], "classes": ["2"], "probabilities": SIZES}],
            )
        ],
        LABELS,
    ),
    Form(
        "tensorflow-input-signature",
        "0.12 to 0.17",
        "class TensorFlowPredictor:\n"
        "    def __init__(self, tensorflow_client, config):\n        self.client = tensorflow_client\n"
        "    def predict(self, payload):\n        return self.client.input_signature\n",
        [Ask({"json": 1}, {"x": {"shape": [-1, 3], "type": "float32"}})],
    ),
    Form(
        "tensorflow-names",
        "0.18 to 0.33",
        "class TensorFlowPredictor:\n"
        "    def __init__(self, config, tensorflow_client):\n"
        "        self.client, self.names = tensorflow_client, sorted(tensorflow_client.input_signatures)\n"
        "    def predict(self, payload, query_params):\n"
        "        result = self.client.predict(payload, query_params['model'])\n"
        "        return [self.names, list(self.client.input_signatures[query_params['model']]), result]\n",
        [
            Ask(
                {"json": {"x": 41}, "params": {"model": "scalar"}},
                [["flowers", "scalar"], ["x"], {"y": [42], "text": ["41"]}],
            )
        ],
        {"models": {"paths": [{"name": "flowers", "path": "flowers"}, {"name": "scalar", "path": "scalar"}]}},
    ),
    Form(
        "tensorflow-versions",
        "0.22 to 0.33",
        "class TensorFlowPredictor:\n"
        "    def __init__(self, tensorflow_client, config):\n        self.client = tensorflow_client\n"
        "    def predict(self, payload, query_params, headers):\n"
        "        version = query_params.get('version', 'latest')\n"
        "        return self.client.predict(payload, 'sum', version)['scores']\n"
        "    def post_predict(self, response, payload, query_params, headers):\n"
        "        print(response)\n",
        [
            Ask({"json": {"a": [[0, 0, 0]], "b": [[1, 1, 1]]}}, [10.0, 10.0, 10.0]),
            Ask({"json": {"a": [[0, 0, 0]], "b": [[1, 1, 1]]}, "params": {"version": "2"}}, [2.0, 2.0, 2.0]),
        ],
        {"models": {"paths": [{"name": "sum", "path": "sum"}]}},
    ),
    Form(
        "tensorflow-handler",
        "0.34 to 0.35",
        "class Handler:\n"
        "    def __init__(self, tensorflow_client, config):\n        self.client = tensorflow_client\n"
        "    def handle_post(self, payload, query_params):\n"
        "        return self.client.predict(payload, query_params['model'], query_params['version'])\n",
        [
            Ask(
                {"json": {"x": [SIZES]}, "params": {"model": "any", "version": "1"}},
                {"class_ids": [[2]], "classes": [["2"]], "probabilities": [SIZES]},
            )
        ],
    ),
]


@pytest.fixture(scope="module")
def project(tf, models, tmp_path_factory):
    """A project with SavedModels; flowers returns, for x of [n, 3], class_ids and classes of [n, 1] and probabilities."""

    class Flowers(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None, 3], tf.float32, "x")])
        def predict(self, x):
            best = tf.argmax(x, 1)[:, None]
            return {"class_ids": best, "classes": tf.strings.as_string(best), "probabilities": x}

    folder = tmp_path_factory.mktemp("project")
    flowers = Flowers()
    tf.saved_model.save(flowers, str(folder / "flowers" / "1"), signatures={"predict": flowers.predict})
    for name in ("scalar", "sum"):
        (folder / name).symlink_to(models / name)
    return folder


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_a_documented_tensorflow_handler_runs(serve, project, double, monkeypatch, form):
    monkeypatch.setenv("CORTEX_TENSORFLOW_SERVING", f"127.0.0.1:{double.port}")
    handler = {"type": "tensorflow", "models": {"path": "flowers"}, **form.handler}
    replica = serve(form.source, project=project, **handler)
    for ask in form.asks:
        ask.check(httpx.request, replica.url)


JOBS = [
    Form(
        "tensorflow-predictor-job",
        "0.32 to 0.33",
        "class TensorFlowPredictor:\n"
        "    def __init__(self, config, tensorflow_client, metrics_client):\n"
        "        self.client, self.metrics, self.labels = tensorflow_client, metrics_client, config['labels']\n"
        "    def predict(self, payload, request_id):\n"
        "        self.metrics.increment('seen')\n"
        "        return {'label': self.labels[self.client.predict(payload)['class_ids'][0]], 'id': request_id}\n",
        [Ask({"json": {"x": [SIZES]}}, {"label": "third"})],
        LABELS,
    ),
    Form(
        "tensorflow-handler-job",
        "0.34 to 0.35",
        "class Handler:\n"
        "    def __init__(self, config, tensorflow_client, metrics_client):\n"
        "        self.client, self.labels = tensorflow_client, config['labels']\n"
        "    def handle_async(self, payload, request_id):\n"
        "        best = self.client.predict(payload, 'flowers', 'latest')['class_ids'].ravel()\n"
        "        return {'label': self.labels[best[0]], 'id': request_id}\n",
        [Ask({"json": {"x": [SIZES]}}, {"label": "third"})],
        LABELS,
    ),
]


@pytest.mark.parametrize("form", JOBS, ids=str)
def test_a_documented_tensorflow_handler_works_on_jobs(api, project, double, form):  # noqa: F811
    handler = {"type": "tensorflow", "models": {"path": str(project / "flowers")}, **form.handler}
    made = api(form.source, **handler)
    made.gateway()
    made.consumer(CORTEX_TENSORFLOW_SERVING=f"127.0.0.1:{double.port}")
    for ask in form.asks:
        identity = made.submit(**ask.request)
        assert made.end(identity)["result"] == {**ask.answer, "id": identity}


JOB = """
class Handler:
    def __init__(self, tensorflow_client, config):
        self.client = tensorflow_client

    def handle_async(self, payload):
        return self.client.predict(payload)
"""


@pytest.mark.parametrize(
    ("model", "key", "result"),
    [
        ("words", {}, {"upper": ["A"], "length": [1]}),
        ("predicting", {}, {"y": [6.0]}),
        ("several", {"signatureKey": "half"}, {"z": [1.5]}),
    ],
)
def test_jobs_are_answered_from_the_signature_that_is_chosen(
    api,  # noqa: F811
    models,
    double,
    model,
    key,
    result,
):
    made = api(JOB, type="tensorflow", models={"path": str(models / model), **key})
    made.gateway()
    made.consumer(CORTEX_TENSORFLOW_SERVING=f"127.0.0.1:{double.port}")
    payload = {"text": ["a"]} if model == "words" else {"x": [3]}
    job = made.end(made.submit(payload))
    assert (job["status"], job.get("result")) == ("completed", result), job


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ({}, "several signatures; set signatureKey to one of double, half"),
        ({"signatureKey": "third"}, 'no signature "third" (signatureKey); it has double, half'),
    ],
)
def test_an_ambiguous_signature_fails_the_start_and_lists_the_keys(
    api,  # noqa: F811
    models,
    double,
    key,
    words,
):
    made = api(JOB, type="tensorflow", models={"path": str(models / "several"), **key})
    made.gateway()
    job = made.submit({"x": [3]})
    consumer = made.consumer(wait=False, CORTEX_TENSORFLOW_SERVING=f"127.0.0.1:{double.port}")
    reason, message = consumer.cause_of_death()
    assert (reason, words in message) == ("ModelInvalid", True), message
    assert made.get(job)["status"] == "in_queue"


@pytest.mark.parametrize(
    "model", ["exported.zip", "versions.zip", "exported", "exported/", "versions", "versions/"]
)
def test_an_exported_model_without_a_format_is_served_by_tensorflow(
    serve, models, double, monkeypatch, tmp_path, model
):
    source = tmp_path / "source"
    shutil.copytree(models / "sum" / "2", source / "exported")
    shutil.copytree(models / "sum" / "2", source / "versions" / "2")
    if model.endswith(".zip"):
        folder = model.removesuffix(".zip")
        shutil.make_archive(str(source / folder), "zip", source / folder)
        shutil.rmtree(source / folder)
    (source / "cortex.yaml").write_text(f"- kind: api\n  name: sums\n  model: {model}\n")
    command = ["convert", "--source", "image", str(source / "cortex.yaml")]
    handler = yaml.safe_load(CliRunner().invoke(main, command).stdout)["spec"]["handler"]
    assert handler["type"] == "tensorflow"
    monkeypatch.setenv("CORTEX_TENSORFLOW_SERVING", f"127.0.0.1:{double.port}")
    replica = serve(None, project=source, **{"path": None, **handler})
    answer = replica.post({"a": [[0, 0, 0]], "b": [[1, 0, 0]]})
    assert answer.json() == {"best": [0], "scores": [[2.0, 0.0, 0.0]]}
    # It was loaded by the server and not by another runtime.
    assert len(double.available()) == 1
