"""Predict the species of an iris flower from four measurements in centimeters."""

from pathlib import Path
from typing import Any

import joblib

from cortex_runtime import UserError
from train import train

MEASUREMENTS = ("sepal_length", "sepal_width", "petal_length", "petal_width")
MODEL = Path(__file__).with_name("model.joblib")


class Handler:
    """The constructor runs once in each worker process. It loads the file that `python train.py` writes, or trains the model."""

    def __init__(self, config: dict[str, Any]) -> None:
        self.model = joblib.load(MODEL) if MODEL.exists() else train()

    def handle_post(self, payload: dict[str, float]) -> dict[str, str]:
        """Return the response to a POST. payload: the parsed JSON body. A UserError becomes a response with status 400."""
        missing = [name for name in MEASUREMENTS if name not in payload]
        if missing:
            raise UserError(f"missing: {', '.join(missing)}")
        (label,) = self.model.predict([[payload[name] for name in MEASUREMENTS]])
        return {"label": str(label)}
