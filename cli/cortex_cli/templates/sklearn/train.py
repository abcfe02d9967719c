"""Train the model: `python train.py` writes model.joblib."""

from pathlib import Path
from typing import Any

import joblib
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression


def train() -> Any:
    """Return a classifier of iris flowers."""
    flowers = load_iris()
    return LogisticRegression(max_iter=1000).fit(flowers.data, flowers.target_names[flowers.target])


if __name__ == "__main__":
    joblib.dump(train(), Path(__file__).with_name("model.joblib"))
