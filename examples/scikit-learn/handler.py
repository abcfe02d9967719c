"""Predict the species of an iris flower with a scikit-learn classifier."""

from pathlib import Path
from typing import Any, TypedDict

import joblib

MEASURES = ("sepal_length", "sepal_width", "petal_length", "petal_width")


class Flower(TypedDict):
    """Measurements in centimeters."""

    sepal_length: float
    sepal_width: float
    petal_length: float
    petal_width: float


class Handler:
    def __init__(self, python_client: Any) -> None:
        self.client = python_client

    def load_model(self, model_path: str) -> Any:
        return joblib.load(Path(model_path) / "classifier.joblib")

    def handle_post(self, payload: Flower) -> dict[str, str]:
        (label,) = self.client.get_model().predict([[payload[name] for name in MEASURES]])
        return {"label": str(label)}
