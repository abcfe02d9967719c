"""Recognize handwritten digits. A job is a batch of images, and its result is a list of predictions."""

from typing import Any


class Handler:
    def __init__(self, config: dict[str, Any], tensorflow_client: Any, metrics_client: Any) -> None:
        self.client = tensorflow_client
        self.metrics = metrics_client
        self.labels = config["labels"]

    def handle_async(self, payload: dict[str, Any], request_id: str) -> list[dict[str, Any]]:
        prediction = self.client.predict({"pixels": payload["pictures"]})
        self.metrics.increment("pictures", len(payload["pictures"]))
        return [
            {"label": self.labels[digit], "probability": round(float(probability), 4), "job": request_id}
            for digit, probability in zip(prediction["digit"], prediction["probability"], strict=True)
        ]
