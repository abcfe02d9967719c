"""SavedModels in this very process, where TensorFlow is installed and no server is configured: for development."""

import logging
import os
import tempfile
from collections.abc import Mapping
from typing import Any

import numpy as np

from cortex_runtime.clients.tfserving.model import Model
from cortex_runtime.clients.tfserving.signature import (
    NUMPY_TYPES,
    Signature,
    Tensor,
    check,
    choose_key,
    decode_text,
    invalid_input_text,
)
from cortex_runtime.errors import StartError
from cortex_runtime.models.repository import Version

log = logging.getLogger("cortex")


def _import() -> Any:
    """TensorFlow. What it writes about itself meanwhile is no JSON, and goes into the log at level debug."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    with tempfile.TemporaryFile() as written:
        stderr = os.dup(2)
        os.dup2(written.fileno(), 2)
        try:
            import tensorflow

            # It tells about the CPU at its first operation.
            tensorflow.constant(0)
        except ImportError as error:
            raise StartError(
                "InvalidSpec", f"tensorflow is installed, but can't be imported: {error}"
            ) from error
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
            written.seek(0)
            for line in written.read().decode(errors="replace").splitlines():
                log.debug("TensorFlow: %s", line)
    return tensorflow


tf = _import()


class InProcessBackend:
    """Loads and runs models here."""

    def load(self, version: Version, key: str | None) -> Model[Any]:
        """A version, in memory. key: of its signature, when that is configured.

        Raises StartError for a signature that can't be served, and whatever TensorFlow raises for a model that can't be loaded.
        """
        loaded = tf.saved_model.load(str(version.path))
        chosen = choose_key(loaded.signatures, key)
        function = loaded.signatures[chosen]
        inputs = function.structured_input_signature[1]
        signature = check(Signature(chosen, _tensors(inputs), _tensors(function.structured_outputs)))
        # The function alone would not keep the model's variables.
        return Model(version, signature, (loaded, function))

    def predict(self, model: Model[Any], feed: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Outputs by name. Raises UserError for what the model refuses."""
        _, function = model.handle
        inputs = model.signature.inputs
        try:
            outputs = function(
                **{name: _to_tensor(array, inputs[name].dtype) for name, array in feed.items()}
            )
        except tf.errors.InvalidArgumentError as error:
            raise invalid_input_text(error.message) from error
        return {name: _to_array(outputs[name]) for name in sorted(outputs)}

    def load_again(self, model: Model[Any]) -> None:
        """Whoever holds a model can use it."""

    def unload(self, model: Model[Any]) -> None:
        """The memory is free again once nobody holds the model."""

    def is_loaded(self, model: Model[Any]) -> bool:
        """It is."""
        return True

    def close(self) -> None:
        """Nothing is open."""


def _tensors(specs: Mapping[str, Any]) -> dict[str, Tensor]:
    return {name: Tensor(name, specs[name].dtype.name, _shape(specs[name].shape)) for name in sorted(specs)}


def _shape(shape: Any) -> tuple[int | None, ...] | None:
    return None if shape.rank is None else tuple(shape.as_list())


def _to_tensor(array: np.ndarray, dtype: str) -> Any:
    wanted = tf.as_dtype(dtype)
    if wanted.is_quantized:
        return tf.bitcast(tf.constant(array), wanted)
    return tf.cast(array, wanted) if dtype == "bfloat16" else tf.constant(array, wanted)


def _to_array(tensor: Any) -> np.ndarray:
    name = tensor.dtype.name
    if tensor.dtype.is_quantized:
        tensor = tf.bitcast(tensor, tf.as_dtype(NUMPY_TYPES[name]))
    elif name == "bfloat16":
        tensor = tf.cast(tensor, tf.float32)
    if name == "string":
        values = tensor.numpy()
        return decode_text(np.asarray(values, object))
    # A copy: TensorFlow's own memory is not to be written to.
    return np.array(tensor)
