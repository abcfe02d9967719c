"""Convert measurements to the input of the model, and its output to the name of a species."""

from typing import Any

LABELS = ("setosa", "versicolor", "virginica")


def pre_inference(sample: dict[str, float], metadata: dict[str, Any]) -> dict[str, Any]:
    (name,) = metadata["inputs"]
    flower = [sample[key] for key in ("sepal_length", "sepal_width", "petal_length", "petal_width")]
    return {name: [flower]}


def post_inference(prediction: list[Any], metadata: dict[str, Any]) -> dict[str, Any]:
    _, probabilities = prediction
    best = int(probabilities[0].argmax())
    return {"label": LABELS[best], "probability": probabilities[0][best]}
