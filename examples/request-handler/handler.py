"""Around the model: from a flower's measurements to its input, and from its output to a name."""

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
