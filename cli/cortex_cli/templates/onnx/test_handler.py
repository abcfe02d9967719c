import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from cortex_runtime import UserError
from handler import Handler

HERE = Path(__file__).parent


class Client:
    """Run the model as the injected client does: inputs in, a list of outputs out."""

    def __init__(self) -> None:
        self.session = onnxruntime.InferenceSession(HERE / "iris.onnx")

    def predict(self, value: np.ndarray) -> list[np.ndarray]:
        return self.session.run(None, {self.session.get_inputs()[0].name: value})


def test_the_sample_is_a_setosa():
    response = Handler(Client()).handle_post(json.loads((HERE / "sample.json").read_text()))
    assert response["label"] == "setosa"


def test_a_missing_measurement_is_refused():
    with pytest.raises(UserError, match="petal_width"):
        Handler(Client()).handle_post({"sepal_length": 5.1, "sepal_width": 3.5, "petal_length": 1.4})
