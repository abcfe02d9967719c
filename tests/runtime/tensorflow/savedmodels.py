"""Small SavedModels, exported by TensorFlow itself."""

import shutil
from pathlib import Path

import tensorflow as tf

TYPES = (
    *("float16", "bfloat16", "float32", "float64", "int8", "int16", "int32", "int64"),
    *("uint8", "uint16", "uint32", "uint64", "bool", "complex64", "complex128", "string"),
)


class Sum(tf.Module):
    """scores = a + factor * b, and the index of the highest one."""

    def __init__(self, factor):
        super().__init__()
        self.factor = tf.Variable(float(factor))

    @tf.function(
        input_signature=[tf.TensorSpec([None, 3], tf.float32, "a"), tf.TensorSpec([None, 3], tf.float32, "b")]
    )
    def serve(self, a, b):
        scores = a + self.factor * b
        return {"scores": scores, "best": tf.argmax(scores, axis=1)}


class Words(tf.Module):
    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "text")])
    def serve(self, text):
        return {"upper": tf.strings.upper(text), "length": tf.cast(tf.strings.length(text), tf.int64)}


class Scalar(tf.Module):
    @tf.function(input_signature=[tf.TensorSpec([], tf.int64, "x")])
    def serve(self, x):
        return {"y": x + 1, "text": tf.strings.as_string(x)}


class AnyShape(tf.Module):
    @tf.function(input_signature=[tf.TensorSpec(None, tf.float32, "x")])
    def serve(self, x):
        return {"y": -x}


class Picky(tf.Module):
    """Refuses at run time what its signature allows."""

    @tf.function(input_signature=[tf.TensorSpec([None], tf.int32, "x")])
    def serve(self, x):
        with tf.control_dependencies([tf.debugging.assert_positive(x, "x must be positive")]):
            return {"y": tf.identity(x)}


class Echo(tf.Module):
    """One input of each type, returned unchanged."""

    @tf.function(input_signature=[tf.TensorSpec([None], tf.as_dtype(name), name) for name in TYPES])
    def serve(self, *values):
        return {f"{name}_out": tf.identity(value) for name, value in zip(TYPES, values, strict=True)}


class Several(tf.Module):
    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, "x")])
    def double(self, x):
        return {"y": 2 * x}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, "x")])
    def half(self, x):
        return {"z": x / 2}


class NoInputs(tf.Module):
    @tf.function(input_signature=[])
    def serve(self):
        return {"y": tf.constant(1)}


def write_all(root: Path) -> None:
    """Write all models below a folder: <name>/<version>/."""
    for version in (1, 2, 10):
        write_sum(root / "sum" / str(version), version)
    modules = {"words": Words(), "scalar": Scalar(), "anyshape": AnyShape(), "picky": Picky(), "echo": Echo()}
    for name, module in {**modules, "noinputs": NoInputs()}.items():
        _save(module, root / name / "1")
    several = Several()
    keys = {
        "several": ("half", "double"),
        "predicting": ("half", "predict"),
        "default": ("half", "serving_default"),
    }
    for name, (first, second) in keys.items():
        functions = {first: several.half, second: several.double}
        tf.saved_model.save(several, str(root / name / "1"), signatures=functions)
    tf.saved_model.save(several, str(root / "unsigned" / "1"), signatures={})
    shutil.copytree(root / "sum" / "1", root / "broken" / "1")
    damage(root / "broken" / "1")


def write_sum(path: Path, factor: float) -> None:
    """Write the model of `Sum`."""
    _save(Sum(factor), path)


def damage(path: Path) -> None:
    """Cut a SavedModel in half."""
    file = path / "saved_model.pb"
    content = file.read_bytes()
    file.unlink()
    file.write_bytes(content[: len(content) // 2])


def _save(module: tf.Module, path: Path) -> None:
    tf.saved_model.save(module, str(path), signatures=module.serve)
