"""Train three small classifiers and write them to models/ as SavedModels, and a sample image digit.pgm.

python examples/tensorflow-multi-model/export.py    (requires scikit-learn and tensorflow-cpu)
"""

import shutil
from pathlib import Path

import numpy as np
import tensorflow as tf
from sklearn.datasets import load_digits, load_iris
from sklearn.linear_model import LogisticRegression

HERE = Path(__file__).resolve().parent

DATA = {
    "inception": (load_digits, "images", (8, 8), 0.01),
    "iris": (load_iris, "measurements", (4,), 1.0),
    "resnet50": (load_digits, "pixels", (8, 8), 1.0),
}
"""Data, input name, item shape and inverse regularization strength of each model."""


class Classifier(tf.Module):
    """A softmax regression that returns labels (strings) and probabilities for a batch of items."""

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


def export(name: str) -> None:
    """Write models/<name>/1."""
    load, argument, shape, strength = DATA[name]
    data = load()
    # Scale the pixels from 0..16 to 0..1.
    features = data.data / 16 if load is load_digits else data.data
    regression = LogisticRegression(C=strength, max_iter=2000).fit(features, data.target)
    labels = [str(label) for label in data.target_names]
    classifier = Classifier(regression.coef_.T, regression.intercept_, labels)
    items = tf.TensorSpec([None, *shape], tf.float32, argument)
    signature = tf.function(classifier.predict, input_signature=[items]).get_concrete_function()
    folder = HERE / "models" / name / "1"
    shutil.rmtree(folder, ignore_errors=True)
    tf.saved_model.save(classifier, str(folder), signatures=signature)
    print(f"{name}: {regression.score(features, data.target):.3f} right")


if __name__ == "__main__":
    for model in DATA:
        export(model)
    image = load_digits().data[0].astype(np.uint8)
    (HERE / "digit.pgm").write_bytes(b"P5 8 8 16\n" + image.tobytes())
