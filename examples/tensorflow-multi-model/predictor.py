"""Several models behind one endpoint; the query parameter `model` says which one answers."""

from typing import Any


class TensorFlowPredictor:
    def __init__(self, tensorflow_client: Any, config: dict[str, Any]) -> None:
        self.client = tensorflow_client

    def predict(self, payload: dict[str, Any], query_params: Any) -> dict[str, Any]:
        # A batch of one.
        model_input = {name: [value] for name, value in payload.items()}
        results = self.client.predict(model_input, query_params.get("model"), query_params.get("version"))
        return {"label": results["label"][0], "probability": round(float(results["probability"][0]), 4)}
