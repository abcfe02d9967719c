"""Classify the sentiment of a text with a model from the Hugging Face Hub."""

from typing import Any

from transformers import pipeline

from cortex_runtime import UserError


class Handler:
    """The constructor runs once in each worker process. It downloads the model that handler.config of api.yaml names."""

    def __init__(self, config: dict[str, Any]) -> None:
        self.classify = pipeline("text-classification", model=config["model"])

    def handle_post(self, payload: Any) -> dict[str, Any]:
        """Return the response to a POST. payload: the parsed JSON body. A UserError becomes a response with status 400."""
        if not isinstance(payload, dict) or not isinstance(payload.get("text"), str):
            raise UserError('the body must be {"text": "..."}')
        (result,) = self.classify(payload["text"])
        return {"label": result["label"], "score": round(float(result["score"]), 4)}
