"""Several models in one API. The query parameter `model` selects one."""

from typing import Any, TypedDict
from urllib.request import urlopen

import numpy as np

from cortex_runtime import UserError


class Image(TypedDict):
    url: str


class Flower(TypedDict):
    """Length and width of the sepals, then of the petals, in centimeters."""

    measurements: tuple[float, float, float, float]


def preprocess(payload: Any) -> Any:
    """Return a batch of one item: the image at a URL (binary PGM, 8 x 8 pixels) from 0 to 1, or the numbers in the payload."""
    if "url" not in payload:
        return [payload["measurements"]]
    try:
        with urlopen(payload["url"], timeout=10) as answer:
            magic, width, height, most, pixels = answer.read().split(None, 4)
    except (OSError, ValueError) as error:
        raise UserError(f"the image cannot be read: {error}") from error
    if (magic, width, height) != (b"P5", b"8", b"8"):
        raise UserError("the image must be a binary PGM of 8 x 8 pixels")
    return np.frombuffer(pixels[:64], np.uint8).reshape(1, 8, 8) / float(most)


def postprocess(results: dict[str, Any]) -> str:
    return results["label"][0]


class TensorFlowPredictor:
    def __init__(self, tensorflow_client: Any, config: dict[str, Any]) -> None:
        self.client = tensorflow_client

    def predict(self, payload: Image | Flower, query_params: Any) -> dict[str, str]:
        model_name = query_params.get("model")
        model_input = preprocess(payload)
        results = self.client.predict(model_input, model_name)
        return {"label": postprocess(results)}
