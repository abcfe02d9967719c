"""The models of `served` as SavedModels: python served_tensorflow.py FOLDER

It is a program of its own because TensorFlow takes long to import.
"""

import sys
from pathlib import Path

import tensorflow as tf

TYPES = {
    "BOOL": tf.bool,
    "UINT8": tf.uint8,
    "UINT16": tf.uint16,
    "UINT32": tf.uint32,
    "UINT64": tf.uint64,
    "INT8": tf.int8,
    "INT16": tf.int16,
    "INT32": tf.int32,
    "INT64": tf.int64,
    "FP16": tf.float16,
    "FP32": tf.float32,
    "FP64": tf.float64,
    "BF16": tf.bfloat16,
    "BYTES": tf.string,
}


class Same(tf.Module):
    def serve(self, x):
        return {"y": tf.identity(x)}


class AddSub(tf.Module):
    def serve(self, a, b):
        return {"sum": a + b, "difference": a - b}


def save(module: tf.Module, folder: Path, **inputs: tf.TensorSpec) -> None:
    """Write a SavedModel with one signature."""
    serve = tf.function(module.serve).get_concrete_function(*inputs.values())
    tf.saved_model.save(module, str(folder), signatures={"serving_default": serve})


def main(folder: Path) -> None:
    for name, dtype in TYPES.items():
        for version in ("1", "2"):
            save(Same(), folder / f"same_{name.lower()}" / version, x=tf.TensorSpec([None, 2], dtype, "x"))
    both = {name: tf.TensorSpec([None, 16], tf.int32, name) for name in ("a", "b")}
    save(AddSub(), folder / "add_sub" / "1", **both)


main(Path(sys.argv[1]))
