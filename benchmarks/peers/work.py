"""The work that all peers share. The other modules only adapt it to the interface of each peer.

Runs in the virtual environment of each peer. Requires numpy, onnxruntime and the environment variable MODEL (for the two
workloads with a model).
"""

import os
import socket
from typing import Any

import numpy as np
import onnxruntime

MEASUREMENTS = ("sepal_length", "sepal_width", "petal_length", "petal_width")
LABELS = ("setosa", "versicolor", "virginica")
BATCH_ROWS = 16
BATCH_WAIT_S = 0.005


def trivial(payload: dict[str, Any]) -> dict[str, Any]:
    return {"items": len(payload["items"]), "ok": True}


def double(tensor: Any) -> Any:
    return tensor * np.float32(2)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class _Model:
    """Return a session with one thread, because each server has one core."""

    def __init__(self) -> None:
        onnxruntime.disable_telemetry_events()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(
            os.environ["MODEL"], options, providers=["CPUExecutionProvider"]
        )
        self.input = self.session.get_inputs()[0].name


class Iris(_Model):
    """Predict the species of a flower."""

    def __call__(self, payload: dict[str, float]) -> dict[str, Any]:
        flower = np.array([[payload[name] for name in MEASUREMENTS]], dtype=np.float32)
        _, probabilities = self.session.run(None, {self.input: flower})
        best = int(probabilities[0].argmax())
        return {"label": LABELS[best], "probability": round(float(probabilities[0][best]), 4)}

    def tensors(self, flowers: Any) -> dict[str, Any]:
        """Return all outputs of the model by name."""
        names = [output.name for output in self.session.get_outputs()]
        return dict(zip(names, self.session.run(names, {self.input: flowers}), strict=True))


class Network(_Model):
    """Predict the class of each row of numbers."""

    def __call__(self, rows: Any) -> list[int]:
        rows = np.asarray(rows, dtype=np.float32)
        classes: list[int] = self.session.run(None, {self.input: rows})[0].argmax(axis=1).tolist()
        return classes
