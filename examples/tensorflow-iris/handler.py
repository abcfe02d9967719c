"""Convert a request to the input of the model, and its output to the response."""

from typing import Any, TypedDict

MEASUREMENTS = ("sepal_length", "sepal_width", "petal_length", "petal_width")
LABELS = ("setosa", "versicolor", "virginica")


class Flower(TypedDict):
    """Measurements in centimeters."""

    sepal_length: float
    sepal_width: float
    petal_length: float
    petal_width: float


def pre_inference(sample: Flower, signature: dict[str, Any]) -> dict[str, Any]:
    (name,) = signature["inputs"]
    return {name: [[sample[measurement] for measurement in MEASUREMENTS]]}


def post_inference(prediction: dict[str, Any]) -> dict[str, Any]:
    return {"label": LABELS[prediction["class_ids"][0]]}
