"""Predict the species of an iris flower with a scikit-learn classifier."""

from pathlib import Path
from typing import Any

import joblib

from cortex_runtime import UserError

MEASURES = ("sepal_length", "sepal_width", "petal_length", "petal_width")


class Handler:
    def __init__(self, python_client: Any) -> None:
        self.client = python_client

    def load_model(self, model_path: str) -> Any:
        return joblib.load(Path(model_path) / "classifier.joblib")

    def handle_post(self, payload: dict[str, float]) -> dict[str, str]:
        missing = [name for name in MEASURES if name not in payload]
        if missing:
            raise UserError(f"missing: {', '.join(missing)}")
        (label,) = self.client.get_model().predict([[payload[name] for name in MEASURES]])
        return {"label": str(label)}
