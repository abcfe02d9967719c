"""Train the classifier and write it to model/ as a SavedModel.

python examples/tensorflow-iris/export.py    (requires scikit-learn and tensorflow-cpu)
"""

import shutil
from pathlib import Path

import tensorflow as tf
from sklearn.datasets import load_iris

FOLDER = Path(__file__).resolve().parent / "model"


class Iris(tf.Module):
    """Two dense layers on four measurements in centimeters."""

    def __init__(self) -> None:
        super().__init__()
        initial = tf.random.Generator.from_seed(1)
        self.hidden = tf.Variable(initial.normal([4, 8]))
        self.hidden_bias = tf.Variable(tf.zeros([8]))
        self.output = tf.Variable(initial.normal([8, 3]))
        self.output_bias = tf.Variable(tf.zeros([3]))

    def logits(self, flowers: tf.Tensor) -> tf.Tensor:
        """Return the logits: [batch, 4] to [batch, 3]."""
        return tf.tanh(flowers @ self.hidden + self.hidden_bias) @ self.output + self.output_bias

    @tf.function(input_signature=[tf.TensorSpec([None, 4], tf.float32, "flowers")])
    def serve(self, flowers: tf.Tensor) -> dict[str, tf.Tensor]:
        """The exported function."""
        logits = self.logits(flowers)
        return {"class_ids": tf.argmax(logits, axis=1), "probabilities": tf.nn.softmax(logits)}

    def train(self, steps: int = 2000, rate: float = 0.05) -> float:
        """Train by gradient descent on Fisher's data. Returns the accuracy."""
        data = load_iris()
        flowers, species = tf.constant(data.data, tf.float32), tf.constant(data.target)
        for _ in range(steps):
            with tf.GradientTape() as tape:
                losses = tf.nn.sparse_softmax_cross_entropy_with_logits(species, self.logits(flowers))
                loss = tf.reduce_mean(losses)
            weights = self.trainable_variables
            for weight, gradient in zip(weights, tape.gradient(loss, weights), strict=True):
                weight.assign_sub(rate * gradient)
        found = tf.argmax(self.logits(flowers), axis=1)
        return float(tf.reduce_mean(tf.cast(found == tf.cast(species, tf.int64), tf.float32)))


if __name__ == "__main__":
    model = Iris()
    print(f"accuracy {model.train():.3f}")
    shutil.rmtree(FOLDER, ignore_errors=True)
    tf.saved_model.save(model, str(FOLDER), signatures=model.serve)
    print(f"{FOLDER} is written")
