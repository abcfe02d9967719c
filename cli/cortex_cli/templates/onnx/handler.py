"""Predict the species of an iris flower from four measurements in centimeters."""

from typing import Any

import numpy as np

from cortex_runtime import UserError

MEASUREMENTS = ("sepal_length", "sepal_width", "petal_length", "petal_width")
LABELS = ("setosa", "versicolor", "virginica")


class Handler:
    """The constructor runs once in each worker process. `onnx_client` has loaded the model of api.yaml."""

    def __init__(self, onnx_client: Any) -> None:
        self.client = onnx_client

    def handle_post(self, payload: dict[str, float]) -> dict[str, Any]:
        """Return the response to a POST. payload: the parsed JSON body. A UserError becomes a response with status 400."""
        missing = [name for name in MEASUREMENTS if name not in payload]
        if missing:
            raise UserError(f"missing: {', '.join(missing)}")
        flower = np.array([[payload[name] for name in MEASUREMENTS]], dtype=np.float32)
        _, probabilities = self.client.predict(flower)
        best = int(probabilities[0].argmax())
        return {"label": LABELS[best], "probability": round(float(probabilities[0][best]), 4)}
