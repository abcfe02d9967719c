"""Predict the species of an iris flower from four measurements in centimeters."""

from typing import Any, TypedDict

import numpy as np

MEASUREMENTS = ("sepal_length", "sepal_width", "petal_length", "petal_width")
LABELS = ("setosa", "versicolor", "virginica")


class Flower(TypedDict):
    """Measurements in centimeters."""

    sepal_length: float
    sepal_width: float
    petal_length: float
    petal_width: float


class Prediction(TypedDict):
    label: str
    probability: float


class Handler:
    def __init__(self, onnx_client: Any, config: dict[str, Any]) -> None:
        self.client = onnx_client

    def handle_post(self, payload: Flower) -> Prediction:
        """Return the most probable species.

        Example:
            {"sepal_length": 5.1, "sepal_width": 3.5, "petal_length": 1.4, "petal_width": 0.2}
        """
        flower = np.array([[payload[name] for name in MEASUREMENTS]], dtype=np.float32)
        _, probabilities = self.client.predict(flower)
        best = int(probabilities[0].argmax())
        return {"label": LABELS[best], "probability": round(float(probabilities[0][best]), 4)}
