"""A network of three layers on as many rows as there are; beside it lies mlp.onnx, which `make bench-peers` makes."""

from typing import Any

import numpy as np


class Handler:
    def __init__(self, onnx_client: Any, config: dict[str, Any]) -> None:
        self.client = onnx_client

    def handle_post(self, payload: list[list[float]]) -> list[dict[str, int]]:
        (scores,) = self.client.predict(np.array(payload, dtype=np.float32))
        return [{"class": found} for found in scores.argmax(axis=1).tolist()]
