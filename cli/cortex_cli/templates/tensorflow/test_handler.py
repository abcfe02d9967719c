import json
from pathlib import Path
from typing import Any

import pytest

from cortex_runtime import UserError
from handler import Handler

HERE = Path(__file__).parent


class Client:
    """Stand in for the model: record the inputs, and predict the first class."""

    def predict(self, value: Any) -> dict[str, Any]:
        self.inputs = value
        return {"class_ids": [0]}


def test_the_measurements_are_passed_in_the_order_of_the_model():
    client = Client()
    response = Handler(client).handle_post(json.loads((HERE / "sample.json").read_text()))
    assert (client.inputs, response) == ([[5.1, 3.5, 1.4, 0.2]], {"label": "setosa"})


def test_a_missing_measurement_is_refused():
    with pytest.raises(UserError, match="petal_width"):
        Handler(Client()).handle_post({"sepal_length": 5.1, "sepal_width": 3.5, "petal_length": 1.4})
