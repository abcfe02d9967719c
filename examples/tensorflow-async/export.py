"""Train the model and write it to model/ as a SavedModel.

python examples/tensorflow-async/export.py    (requires scikit-learn and tensorflow-cpu)
"""

import shutil
from pathlib import Path

import numpy as np
import tensorflow as tf
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

FOLDER = Path(__file__).resolve().parent / "model"


class Digits(tf.Module):
    """A softmax regression on images with 8 x 8 pixels from 0 to 16."""

    def __init__(self) -> None:
        super().__init__()
        digits = load_digits()
        regression = LogisticRegression(max_iter=2000).fit(digits.data / 16, digits.target)
        self.weights = tf.Variable((regression.coef_.T / 16).astype(np.float32))
        self.bias = tf.Variable(regression.intercept_.astype(np.float32))

    @tf.function(input_signature=[tf.TensorSpec([None, 8, 8], tf.float32, "pixels")])
    def serve(self, pixels: tf.Tensor) -> dict[str, tf.Tensor]:
        """Return the most likely digit of each image and its probability."""
        probabilities = tf.nn.softmax(tf.reshape(pixels, [-1, 64]) @ self.weights + self.bias)
        return {
            "digit": tf.argmax(probabilities, axis=1),
            "probability": tf.reduce_max(probabilities, axis=1),
        }


if __name__ == "__main__":
    model = Digits()
    shutil.rmtree(FOLDER, ignore_errors=True)
    tf.saved_model.save(model, str(FOLDER), signatures=model.serve)
    print(f"{FOLDER} is written")
