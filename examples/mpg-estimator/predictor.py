"""Predict the fuel efficiency of a car in miles per gallon. The query parameter `version` selects the model version."""

import json
from pathlib import Path
from typing import Any, TypedDict

import numpy as np

FEATURES = ("cylinders", "displacement", "horsepower", "weight", "acceleration")


class Car(TypedDict):
    cylinders: float
    displacement: float
    horsepower: float
    weight: float
    acceleration: float


class LinearRegression:
    def __init__(self, weights: list[float], intercept: float) -> None:
        self.weights = np.array(weights)
        self.intercept = intercept

    def predict(self, cars: np.ndarray) -> np.ndarray:
        return cars @ self.weights + self.intercept


class PythonPredictor:
    def __init__(self, config: dict[str, Any], python_client: Any) -> None:
        self.client = python_client

    def load_model(self, model_path: str) -> LinearRegression:
        return LinearRegression(**json.loads((Path(model_path) / "model.json").read_text()))

    def predict(self, payload: Car, query_params: Any) -> dict[str, Any]:
        model_version = query_params.get("version")
        model_input = np.array([[payload[name] for name in FEATURES]])
        model = self.client.get_model(model_version=model_version)
        result = model.predict(model_input)
        return {"prediction": result[0], "model": {"version": model_version}}
