"""Convert a request to the input of the model, and its output to the response."""

from typing import Any

MEASUREMENTS = ("sepal_length", "sepal_width", "petal_length", "petal_width")
LABELS = ("setosa", "versicolor", "virginica")


def pre_inference(sample: dict[str, float], signature: dict[str, Any]) -> dict[str, Any]:
    (name,) = signature["inputs"]
    return {name: [[sample[measurement] for measurement in MEASUREMENTS]]}


def post_inference(prediction: dict[str, Any]) -> dict[str, Any]:
    return {"label": LABELS[prediction["class_ids"][0]]}
