"""Recognize the digit in an image from a URL. The query parameter `model` selects the model."""

from typing import Any, TypedDict
from urllib.request import urlopen

import numpy as np

from cortex_runtime import UserError


class Image(TypedDict):
    url: str


def preprocess(url: str) -> np.ndarray:
    """Return the pixels of a grayscale image (binary PGM, 8 x 8 pixels), from 0 to 1."""
    try:
        with urlopen(url, timeout=10) as answer:
            magic, width, height, most, pixels = answer.read().split(None, 4)
    except (OSError, ValueError) as error:
        raise UserError(f"the image cannot be read: {error}") from error
    if (magic, width, height) != (b"P5", b"8", b"8"):
        raise UserError("the image must be a binary PGM of 8 x 8 pixels")
    return np.frombuffer(pixels[:64], np.uint8).astype(np.float32).reshape(1, 64) / float(most)


def postprocess(results: list[np.ndarray]) -> str:
    return str(results[0][0].argmax())


class ONNXPredictor:
    def __init__(self, onnx_client: Any, config: dict[str, Any]) -> None:
        self.client = onnx_client

    def predict(self, payload: Image, query_params: Any) -> dict[str, str]:
        model_name = query_params.get("model")
        model_input = preprocess(payload["url"])
        results = self.client.predict(model_input, model_name)
        return {"label": postprocess(results)}
