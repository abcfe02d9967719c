"""Predict the species of an iris flower from four measurements in centimeters."""

from typing import Any

import numpy as np

MEASUREMENTS = ("sepal_length", "sepal_width", "petal_length", "petal_width")
LABELS = ("setosa", "versicolor", "virginica")


class Handler:
    def __init__(self, onnx_client: Any, config: dict[str, Any]) -> None:
        self.client = onnx_client

    def handle_post(self, payload: dict[str, float]) -> dict[str, Any]:
        flower = np.array([[payload[name] for name in MEASUREMENTS]], dtype=np.float32)
        _, probabilities = self.client.predict(flower)
        best = int(probabilities[0].argmax())
        return {"label": LABELS[best], "probability": round(float(probabilities[0][best]), 4)}
