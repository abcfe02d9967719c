"""A network with three layers on a batch of rows. `make bench-peers` writes mlp.onnx next to this file."""

from typing import Any

import numpy as np


class Handler:
    def __init__(self, onnx_client: Any, config: dict[str, Any]) -> None:
        self.client = onnx_client

    def handle_post(self, payload: list[list[float]]) -> list[dict[str, int]]:
        (scores,) = self.client.predict(np.array(payload, dtype=np.float32))
        return [{"class": found} for found in scores.argmax(axis=1).tolist()]
