"""The work that every peer is given, written once: whatever a peer's file adds to it is the peer's own interface.

Runs in the environment of each peer; needs numpy and onnxruntime, and MODEL in the environment for the two that have one.
"""

import os
from typing import Any

import numpy as np
import onnxruntime

MEASUREMENTS = ("sepal_length", "sepal_width", "petal_length", "petal_width")
LABELS = ("setosa", "versicolor", "virginica")
BATCH_ROWS = 16
BATCH_WAIT_S = 0.005


def trivial(payload: dict[str, Any]) -> dict[str, Any]:
    return {"items": len(payload["items"]), "ok": True}


class _Model:
    """A session with one thread: each server has one core."""

    def __init__(self) -> None:
        onnxruntime.disable_telemetry_events()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(
            os.environ["MODEL"], options, providers=["CPUExecutionProvider"]
        )
        self.input = self.session.get_inputs()[0].name


class Iris(_Model):
    """One flower in, its species out."""

    def __call__(self, payload: dict[str, float]) -> dict[str, Any]:
        flower = np.array([[payload[name] for name in MEASUREMENTS]], dtype=np.float32)
        _, probabilities = self.session.run(None, {self.input: flower})
        best = int(probabilities[0].argmax())
        return {"label": LABELS[best], "probability": round(float(probabilities[0][best]), 4)}


class Network(_Model):
    """Rows of numbers in, the class of each out."""

    def __call__(self, rows: Any) -> list[int]:
        rows = np.asarray(rows, dtype=np.float32)
        classes: list[int] = self.session.run(None, {self.input: rows})[0].argmax(axis=1).tolist()
        return classes
