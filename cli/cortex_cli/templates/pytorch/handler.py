"""Predict the species of an iris flower from four measurements in centimeters."""

from pathlib import Path
from typing import Any

import torch

from cortex_runtime import UserError
from network import Network

MEASUREMENTS = ("sepal_length", "sepal_width", "petal_length", "petal_width")
LABELS = ("setosa", "versicolor", "virginica")
WEIGHTS = Path(__file__).with_name("weights.pt")


class Handler:
    """The constructor runs once in each worker process. It loads weights.pt; without the file, the network is untrained."""

    def __init__(self, config: dict[str, Any]) -> None:
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.network = Network().to(self.device).eval()
        if WEIGHTS.exists():
            self.network.load_state_dict(torch.load(WEIGHTS, map_location=self.device, weights_only=True))

    def handle_post(self, payload: dict[str, float]) -> dict[str, Any]:
        """Return the response to a POST. payload: the parsed JSON body. A UserError becomes a response with status 400."""
        missing = [name for name in MEASUREMENTS if name not in payload]
        if missing:
            raise UserError(f"missing: {', '.join(missing)}")
        with torch.inference_mode():
            flower = torch.tensor([[float(payload[name]) for name in MEASUREMENTS]], device=self.device)
            probabilities = torch.softmax(self.network(flower), dim=1)[0]
        best = int(probabilities.argmax())
        return {"label": LABELS[best], "probability": round(float(probabilities[best]), 4)}
