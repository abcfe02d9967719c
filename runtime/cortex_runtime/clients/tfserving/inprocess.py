"""SavedModels in this process, if TensorFlow is installed and no server is configured. For development."""

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
    """Import TensorFlow. It writes text to stderr, which is logged at level debug."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    with tempfile.TemporaryFile() as written:
        stderr = os.dup(2)
        os.dup2(written.fileno(), 2)
        try:
            import tensorflow

            # It writes about the CPU at its first operation.
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
    """Loads and runs models in this process."""

    def load(self, version: Version, key: str | None) -> Model[Any]:
        """Load a version. key: of its signature, if configured. Raises StartError for a signature that cannot be served, and
        any exception of TensorFlow for a model that cannot be loaded."""
        loaded = tf.saved_model.load(str(version.path))
        chosen = choose_key(loaded.signatures, key)
        function = loaded.signatures[chosen]
        inputs = function.structured_input_signature[1]
        signature = check(Signature(chosen, _tensors(inputs), _tensors(function.structured_outputs)))
        # The function does not keep the model's variables alive.
        return Model(version, signature, (loaded, function))

    def predict(self, model: Model[Any], feed: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return outputs by name. Raises UserError for an input that the model refuses."""
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
        """Do nothing: a model in memory can always be used."""

    def unload(self, model: Model[Any]) -> None:
        """Do nothing: memory is freed with the last reference to the model."""

    def is_loaded(self, model: Model[Any]) -> bool:
        """Return True: a model in memory is loaded."""
        return True

    def close(self) -> None:
        """Do nothing: there is no connection."""


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
    # A copy, because TensorFlow's memory must not be written to.
    return np.array(tensor)
