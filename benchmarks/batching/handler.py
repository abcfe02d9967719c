"""A network with three layers (512, 2048, 2048, 100) that is faster with batches of rows."""

from itertools import pairwise

import numpy as np

ROWS = 8
SHAPE = (512, 2048, 2048, 100)


class Handler:
    def __init__(self) -> None:
        random = np.random.default_rng(1)
        self.layers = [
            random.standard_normal(pair, dtype=np.float32) / np.float32(pair[0] ** 0.5)
            for pair in pairwise(SHAPE)
        ]

    def handle_post(self, payload: list[list[float]]) -> list[int]:
        rows = np.array(payload, dtype=np.float32)
        for layer in self.layers:
            rows = np.maximum(rows @ layer, 0)
        return rows.argmax(axis=1).tolist()
