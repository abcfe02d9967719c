"""Predict the species of an iris flower. The model is a file of weights, so that two versions of it are easy to compare."""

import json
from pathlib import Path
from typing import Any, TypedDict

SPECIES = ("setosa", "versicolor", "virginica")


class Flower(TypedDict):
    """Measurements in centimeters."""

    sepal_length: float
    sepal_width: float
    petal_length: float
    petal_width: float


class Handler:
    def __init__(self, config: dict[str, Any]) -> None:
        self.model = json.loads((Path(__file__).parent / config["model"]).read_text())

    def handle_post(self, payload: Flower) -> dict[str, Any]:
        flower = [payload[name] for name in self.model["measurements"]]
        scores = [
            bias + sum(weight * value for weight, value in zip(weights, flower, strict=True))
            for weights, bias in zip(self.model["weights"], self.model["biases"], strict=True)
        ]
        best = max(range(len(SPECIES)), key=scores.__getitem__)
        return {"label": SPECIES[best], "score": round(scores[best], 3)}
