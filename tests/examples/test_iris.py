"""examples/iris-onnx: the files are consistent, and the model predicts the right species."""

import base64
import importlib.util
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import yaml

from cortex_api import parse

FOLDER = Path(__file__).resolve().parents[2] / "examples" / "iris-onnx"


class Client:
    """A fake of the runtime's onnx_client."""

    def __init__(self) -> None:
        self.session = onnxruntime.InferenceSession(FOLDER / "iris.onnx")

    def predict(self, model_input):
        return self.session.run(None, {self.session.get_inputs()[0].name: model_input})


@pytest.fixture(scope="module")
def handler():
    spec = importlib.util.spec_from_file_location("iris_handler", FOLDER / "handler.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.Handler(Client(), {})


# Flowers 1, 51 and 101 of Fisher's data.
@pytest.mark.parametrize(
    ("measurements", "label"),
    [
        ((5.1, 3.5, 1.4, 0.2), "setosa"),
        ((7.0, 3.2, 4.7, 1.4), "versicolor"),
        ((6.3, 3.3, 6.0, 2.5), "virginica"),
    ],
)
def test_species_is_predicted(handler, measurements, label):
    names = ("sepal_length", "sepal_width", "petal_length", "petal_width")
    answer = handler.handle_post(dict(zip(names, measurements, strict=True)))
    assert answer["label"] == label
    assert 0.5 < answer["probability"] <= 1
    assert np.isfinite(answer["probability"])


def test_config_map_contains_the_files_in_the_folder():
    code = yaml.safe_load((FOLDER / "code.yaml").read_text())
    assert code["data"] == {"handler.py": (FOLDER / "handler.py").read_text()}
    assert base64.b64decode(code["binaryData"]["iris.onnx"]) == (FOLDER / "iris.onnx").read_bytes()


def test_api_refers_to_the_config_map_and_its_files():
    code = yaml.safe_load((FOLDER / "code.yaml").read_text())
    handler = parse(yaml.safe_load((FOLDER / "api.yaml").read_text())).spec.handler
    assert handler.source.config_map.name == code["metadata"]["name"]
    assert handler.path in code["data"]
    assert handler.models.path in code["binaryData"]
