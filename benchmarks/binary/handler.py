"""Double each number of an array that is sent as bytes, and return it as bytes."""

import numpy as np


class Handler:
    def handle_post(self, payload: bytes) -> bytes:
        return (np.frombuffer(payload, dtype=np.float32) * 2).tobytes()
