"""Convert measurements to the input of the model, and its output to the name of a species."""

from typing import Any, TypedDict

LABELS = ("setosa", "versicolor", "virginica")


class Flower(TypedDict):
    """Measurements in centimeters."""

    sepal_length: float
    sepal_width: float
    petal_length: float
    petal_width: float


def pre_inference(sample: Flower, metadata: dict[str, Any]) -> dict[str, Any]:
    (name,) = metadata["inputs"]
    flower = [sample[key] for key in ("sepal_length", "sepal_width", "petal_length", "petal_width")]
    return {name: [flower]}


def post_inference(prediction: list[Any], metadata: dict[str, Any]) -> dict[str, Any]:
    _, probabilities = prediction
    best = int(probabilities[0].argmax())
    return {"label": LABELS[best], "probability": probabilities[0][best]}
