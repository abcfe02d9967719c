"""Classify iris flowers by the nearest mean of each species: as JSON at "/", and as tensors of the Open Inference Protocol."""

from typing import Any, ClassVar, TypedDict

import numpy as np

MEASUREMENTS = ("sepal_length", "sepal_width", "petal_length", "petal_width")
SPECIES = np.array(["setosa", "versicolor", "virginica"], object)
MEANS = np.array([[5.01, 3.43, 1.46, 0.25], [5.94, 2.77, 4.26, 1.33], [6.59, 2.97, 5.55, 2.03]], np.float32)


class Flower(TypedDict):
    """Measurements in centimeters."""

    sepal_length: float
    sepal_width: float
    petal_length: float
    petal_width: float


class Handler:
    # Metadata for clients. A request with another datatype or shape gets 400.
    inputs: ClassVar[list[dict[str, Any]]] = [{"name": "flowers", "datatype": "FP32", "shape": [-1, 4]}]
    outputs: ClassVar[list[dict[str, Any]]] = [
        {"name": "species", "datatype": "BYTES", "shape": [-1]},
        {"name": "distance", "datatype": "FP32", "shape": [-1]},
    ]

    def handle_post(self, payload: Flower) -> dict[str, Any]:
        """Classify one flower, with named measurements in centimeters."""
        species, distance = self.classify(np.array([[payload[name] for name in MEASUREMENTS]], np.float32))
        return {"species": species[0], "distance": round(float(distance[0]), 2)}

    def handle_infer(
        self, inputs: dict[str, np.ndarray], parameters: dict[str, Any]
    ) -> dict[str, np.ndarray]:
        """Classify any number of flowers, one in each row."""
        species, distance = self.classify(inputs["flowers"])
        return {"species": species, "distance": distance}

    def classify(self, flowers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        distances = np.linalg.norm(flowers[:, None] - MEANS, axis=2)
        return SPECIES[distances.argmin(axis=1)], distances.min(axis=1)
