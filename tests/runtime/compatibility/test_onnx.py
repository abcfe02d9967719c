"""Handlers of type onnx, in each form that the documentation of a release had."""

import httpx
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from tests.runtime.compatibility.forms import Ask, Form

ONE = {"models": {"path": "flowers.onnx"}}
SEVERAL = {
    "models": {
        "paths": [
            {"name": "flowers", "path": "flowers.onnx"},
            {"name": "flat", "path": "flat.onnx"},
        ]
    }
}
SIZES = [0.1, 0.2, 0.7]

FORMS = [
    Form(
        "metadata-list",
        "0.6 to 0.9",
        "def pre_inference(sample, metadata):\n"
        "    assert (len(metadata), metadata[0].type, metadata[0].shape[1]) == (1, 'tensor(float)', 3)\n"
        "    return {metadata[0].name: sample['sizes']}\n"
        "def post_inference(prediction, metadata):\n"
        "    names = [output.name for output in metadata]\n"
        "    return {names[0]: int(prediction[0][0]), names[1]: prediction[1][0]}\n",
        [Ask({"json": {"sizes": SIZES}}, {"label": 2, "scores": pytest.approx(SIZES)})],
        ONE,
    ),
    Form(
        "signature-list",
        "0.10 to 0.11",
        "def pre_inference(sample, signature, metadata):\n"
        "    (only,) = signature\n"
        "    return {only.name: [size * metadata['scale'] for size in sample['sizes']]}\n"
        "def post_inference(prediction, signature, metadata):\n"
        "    return [signature[0].name, metadata['labels'][prediction[0][0]]]\n",
        [Ask({"json": {"sizes": SIZES}}, ["label", "third"])],
        {**ONE, "config": {"scale": 2, "labels": ["first", "second", "third"]}},
    ),
    Form(
        "pre-inference-only",
        "0.6 to 0.11",
        "def pre_inference(sample, metadata):\n    return [sample['a'], sample['b'], sample['c']]\n",
        [Ask({"json": {"a": 0, "b": 1, "c": 0}}, [[1], [[0.0, 1.0, 0.0]]])],
        ONE,
    ),
    Form(
        "post-inference-only",
        "0.6 to 0.11",
        "import numpy as np\n"
        "def post_inference(prediction, metadata):\n"
        "    return {'index': int(np.argmax(prediction[1].squeeze())), 'scores': prediction[1][0]}\n",
        [Ask({"json": {"x": [[0, 1, 0]]}}, {"index": 1, "scores": [0.0, 1.0, 0.0]})],
        ONE,
    ),
    Form(
        "onnx-predictor",
        "0.12 to 0.32",
        "class ONNXPredictor:\n"
        "    def __init__(self, onnx_client, config):\n        self.client = onnx_client\n"
        "    def predict(self, payload):\n"
        "        return int(self.client.predict(payload['sizes'])[0][0])\n",
        [Ask({"json": {"sizes": SIZES}}, 2)],
        ONE,
    ),
    Form(
        "onnx-session",
        "0.12 to 0.17",
        "class ONNXPredictor:\n"
        "    def __init__(self, onnx_client, config):\n"
        "        self.session = onnx_client.session\n        self.signature = onnx_client.input_signature\n"
        "    def predict(self, payload):\n"
        "        import numpy as np\n"
        "        (name,) = self.signature\n"
        "        array = np.array([payload], self.signature[name]['type'])\n"
        "        return [self.signature[name]['shape'][1], self.session.run(None, {name: array})[0]]\n",
        [Ask({"json": SIZES}, [3, [2]])],
        ONE,
    ),
    Form(
        "onnx-sessions-single",
        "0.18 to 0.21",
        "class ONNXPredictor:\n"
        "    def __init__(self, onnx_client, config):\n"
        "        (self.signature,) = onnx_client.input_signatures.values()\n"
        "        (self.session,) = onnx_client.sessions.values()\n"
        "    def predict(self, payload):\n"
        "        return [self.signature['x']['shape'][1], self.session.get_inputs()[0].name]\n",
        [Ask({"json": 1}, [3, "x"])],
        ONE,
    ),
    Form(
        "onnx-sessions",
        "0.18 to 0.21",
        "class ONNXPredictor:\n"
        "    def __init__(self, onnx_client, config):\n"
        "        self.client = onnx_client\n        self.names = sorted(onnx_client.sessions)\n"
        "    def predict(self, payload, query_params):\n"
        "        name = query_params['model']\n"
        "        output = self.client.predict(payload, name)[0]\n"
        "        return [self.names, list(self.client.input_signatures[name]), output.tolist()]\n",
        [Ask({"json": [1, 2], "params": {"model": "flat"}}, [["flat", "flowers"], ["x"], [[[2.0, 4.0]]]])],
        SEVERAL,
    ),
    Form(
        "onnx-get-model",
        "0.22 to 0.32",
        "class ONNXPredictor:\n"
        "    def __init__(self, onnx_client, config):\n"
        "        self.model = onnx_client.get_model('flowers', 'latest')\n"
        "        (self.signature,) = onnx_client.get_model('flowers')['input_signatures'].values()\n"
        "    def predict(self, payload):\n"
        "        nodes = self.model['session'].get_inputs()\n"
        "        return [self.signature['shape'][1], self.signature['type'], nodes[0].name, self.model['signatures'][0].name]\n",
        [Ask({"json": 1}, [3, "float32", "x", "x"])],
        SEVERAL,
    ),
    Form(
        "onnx-name-and-version",
        "0.22 to 0.32",
        "class ONNXPredictor:\n"
        "    def __init__(self, onnx_client, config):\n        self.client = onnx_client\n"
        "    def predict(self, payload, query_params, headers):\n"
        "        version = query_params.get('version', 'latest')\n"
        "        return self.client.predict(payload, query_params['model'], version)[0].tolist()\n",
        [
            Ask({"json": SIZES, "params": {"model": "flowers"}}, [2]),
            Ask({"json": SIZES, "params": {"model": "flowers", "version": "1"}}, [2]),
        ],
        SEVERAL,
    ),
    Form(
        "onnx-input-types",
        "0.6 to 0.32",
        "import numpy as np\n"
        "class ONNXPredictor:\n"
        "    def __init__(self, onnx_client, config):\n        self.client = onnx_client\n"
        "    def predict(self, payload):\n"
        "        # Without the batch, as an array of another type, and with one unknown dimension more than reshape can infer.\n"
        "        sizes = np.array(payload, dtype='float64')\n"
        "        return [self.client.predict({'x': sizes}, 'flowers')[0].tolist(),\n"
        "                self.client.predict(sizes[:2].astype('int64'), 'flat')[0].shape]\n",
        [Ask({"json": [1, 2, 3]}, [[2], [1, 1, 2]])],
        SEVERAL,
    ),
    Form(
        "onnx-post-predict",
        "0.19 to 0.32",
        "import threading\n"
        "class ONNXPredictor:\n"
        "    def __init__(self, onnx_client, config):\n"
        "        self.client, self.done, self.last = onnx_client, threading.Event(), None\n"
        "    def predict(self, payload):\n"
        "        if payload == 'last':\n            self.done.wait(10)\n            return self.last\n"
        "        return int(self.client.predict(payload)[0][0])\n"
        "    def post_predict(self, response, payload, query_params, headers):\n"
        "        if payload != 'last':\n            self.last = response\n            self.done.set()\n",
        [Ask({"json": SIZES}, 2), Ask({"json": "last"}, 2)],
        {**ONE, "threadsPerProcess": 2},
    ),
]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A project with two models: flowers.onnx takes x of [n, 3] and returns label and scores, flat.onnx doubles [n, m, 2]."""
    folder = tmp_path_factory.mktemp("files")

    def write(name, nodes, given, returned, constants=()):
        graph = helper.make_graph(nodes, "g", [given], returned, list(constants))
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        (folder / name).write_bytes(model.SerializeToString())

    tensor = helper.make_tensor_value_info
    write(
        "flowers.onnx",
        [
            helper.make_node("ArgMax", ["x"], ["label"], axis=1, keepdims=0),
            helper.make_node("Identity", ["x"], ["scores"]),
        ],
        tensor("x", TensorProto.FLOAT, ["n", 3]),
        [tensor("label", TensorProto.INT64, ["n"]), tensor("scores", TensorProto.FLOAT, ["n", 3])],
    )
    write(
        "flat.onnx",
        [helper.make_node("Mul", ["x", "two"], ["y"])],
        tensor("x", TensorProto.FLOAT, ["n", "m", 2]),
        [tensor("y", TensorProto.FLOAT, ["n", "m", 2])],
        [onnx.numpy_helper.from_array(np.array([2], np.float32), "two")],
    )
    return folder


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_a_documented_onnx_handler_runs(serve, files, form):
    api = serve(form.source, project=files, type="onnx", **form.handler)
    with httpx.Client(timeout=30) as client:
        for ask in form.asks:
            ask.check(client.request, api.url)
