"""Predict the species of an iris flower from four measurements in centimeters."""

from typing import Any

from cortex_runtime import UserError

MEASUREMENTS = ("sepal_length", "sepal_width", "petal_length", "petal_width")
LABELS = ("setosa", "versicolor", "virginica")


class Handler:
    """The constructor runs once in each worker process. `tensorflow_client` sends the inputs to the model of api.yaml."""

    def __init__(self, tensorflow_client: Any) -> None:
        self.client = tensorflow_client

    def handle_post(self, payload: dict[str, float]) -> dict[str, str]:
        """Return the response to a POST. payload: the parsed JSON body. A UserError becomes a response with status 400."""
        missing = [name for name in MEASUREMENTS if name not in payload]
        if missing:
            raise UserError(f"missing: {', '.join(missing)}")
        outputs = self.client.predict([[payload[name] for name in MEASUREMENTS]])
        return {"label": LABELS[int(outputs["class_ids"][0])]}
