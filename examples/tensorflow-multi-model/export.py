"""Trains three small classifiers and writes them into models/, as SavedModels.

python examples/tensorflow-multi-model/export.py    (needs scikit-learn and tensorflow-cpu)
"""

import shutil
from pathlib import Path

import numpy as np
import tensorflow as tf
from sklearn.datasets import load_digits, load_iris, load_wine
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

MODELS = Path(__file__).resolve().parent / "models"

DATA = {
    "iris": (load_iris, "measurements", (4,)),
    "wine": (load_wine, "analysis", (13,)),
    "digits": (load_digits, "pixels", (8, 8)),
}
"""Model to its data, the name of its input and the shape of one item."""


class Classifier(tf.Module):
    """A softmax regression: labels (texts) and their probabilities, for a batch of items."""

    def __init__(self, weights: np.ndarray, bias: np.ndarray, labels: list[str]) -> None:
        super().__init__()
        self.weights = tf.Variable(weights.astype(np.float32))
        self.bias = tf.Variable(bias.astype(np.float32))
        self.labels = tf.Variable(labels)

    def predict(self, items: tf.Tensor) -> dict[str, tf.Tensor]:
        """items: [batch, ...] of float32."""
        features = tf.reshape(items, [-1, self.weights.shape[0]])
        probabilities = tf.nn.softmax(features @ self.weights + self.bias)
        best = tf.argmax(probabilities, axis=1)
        return {"label": tf.gather(self.labels, best), "probability": tf.reduce_max(probabilities, axis=1)}


def train(name: str) -> Classifier:
    """The classifier of a data set, its scaling folded into the weights."""
    data = DATA[name][0]()
    scaler, regression = StandardScaler(), LogisticRegression(max_iter=1000)
    make_pipeline(scaler, regression).fit(data.data, data.target)
    weights = regression.coef_.T / scaler.scale_[:, None]
    bias = regression.intercept_ - scaler.mean_ @ weights
    return Classifier(weights, bias, [str(label) for label in data.target_names])


def export(name: str) -> None:
    """Write models/<name>/1."""
    _, argument, shape = DATA[name]
    classifier = train(name)
    items = tf.TensorSpec([None, *shape], tf.float32, argument)
    signature = tf.function(classifier.predict, input_signature=[items]).get_concrete_function()
    folder = MODELS / name / "1"
    shutil.rmtree(folder, ignore_errors=True)
    tf.saved_model.save(classifier, str(folder), signatures=signature)
    print(f"{folder} is written")


if __name__ == "__main__":
    for model in DATA:
        export(model)
