"""Signatures of SavedModels: select the served one, describe its inputs and outputs, and convert the values of a request to
arrays.

Pure functions, for TensorFlow Serving and in-process models alike. An invalid request raises UserError.
"""

import base64
import binascii
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from cortex_runtime.clients.conversion import BFLOAT16, NumberType, check_names, object_array
from cortex_runtime.errors import StartError, UserError

NUMPY_TYPES: Mapping[str, type[np.generic]] = {
    "float16": np.float16,
    "bfloat16": np.float32,
    "float32": np.float32,
    "float64": np.float64,
    "int8": np.int8,
    "int16": np.int16,
    "int32": np.int32,
    "int64": np.int64,
    "uint8": np.uint8,
    "uint16": np.uint16,
    "uint32": np.uint32,
    "uint64": np.uint64,
    "qint8": np.int8,
    "qint16": np.int16,
    "qint32": np.int32,
    "quint8": np.uint8,
    "quint16": np.uint16,
    "bool": np.bool_,
    "complex64": np.complex64,
    "complex128": np.complex128,
    "string": np.object_,
}
"""TensorFlow's type names to the numpy types of values here. numpy has no bfloat16, which float32 contains. Strings are
objects, bytes for inputs."""

_NUMBERS = {
    name: NumberType.of(name, dtype)
    for name, dtype in NUMPY_TYPES.items()
    if name not in ("bfloat16", "string")
} | {"bfloat16": BFLOAT16}

_NO_CAUSE = ("Graph execution error:", "Detected at node", "<stack traces unavailable>")
"""How lines begin that TensorFlow adds around the cause of an error."""

DEFAULT_KEYS = ("predict", "serving_default")


@dataclass(frozen=True)
class Tensor:
    """One input or output. shape: None for a free dimension; None as a whole if the rank is unknown."""

    name: str
    dtype: str
    shape: tuple[int | None, ...] | None

    def convert(self, value: Any) -> np.ndarray:
        """Return a value as an array of this type and shape; strings as an array of bytes objects.

        value: an array, nested lists or a scalar; bytes in JSON are {"b64": ...}. Raises UserError with the name of the input.
        """
        try:
            array = _strings(value) if self.dtype == "string" else _NUMBERS[self.dtype].convert(value)
        except (ValueError, TypeError, OverflowError) as error:
            raise UserError(f'input "{self.name}": expected {self.description}: {error}') from error
        if self.shape is not None and not self._fits(array.shape):
            raise UserError(
                f'input "{self.name}": expected {self.description}, got shape {_shape_text(array.shape)}'
            )
        return array

    def _fits(self, shape: tuple[int, ...]) -> bool:
        assert self.shape is not None
        return len(shape) == len(self.shape) and all(
            want is None or want == have for want, have in zip(self.shape, shape, strict=True)
        )

    @property
    def description(self) -> str:
        """Return type and shape as text."""
        if self.shape is None:
            return f"{self.dtype} of any shape"
        return f"{self.dtype} of shape {_shape_text(self.shape)}" if self.shape else f"one {self.dtype}"

    def to_dict(self) -> dict[str, Any]:
        """Return type and shape for GET /info: -1 for a free dimension, None for an unknown rank."""
        shape = None if self.shape is None else [-1 if size is None else size for size in self.shape]
        return {"shape": shape, "type": self.dtype}


@dataclass(frozen=True)
class Signature:
    """The callable part of a SavedModel. key: its name in the model."""

    key: str
    inputs: Mapping[str, Tensor]
    outputs: Mapping[str, Tensor]

    def feed(self, model_input: Any) -> dict[str, np.ndarray]:
        """Return arrays for all inputs. model_input: a mapping of input name to value; or, with one input, its value. Raises
        UserError."""
        inputs = self.inputs
        if not isinstance(model_input, Mapping) or self._is_one_string(model_input):
            if len(inputs) != 1:
                raise UserError(f"the model takes several inputs, by name: {', '.join(inputs)}")
            (tensor,) = inputs.values()
            return {tensor.name: tensor.convert(model_input)}
        check_names(model_input, inputs)
        return {name: tensor.convert(model_input[name]) for name, tensor in inputs.items()}

    def _is_one_string(self, model_input: Mapping[Any, Any]) -> bool:
        return model_input.keys() == {"b64"} and "b64" not in self.inputs and len(self.inputs) == 1

    def to_dict(self) -> dict[str, Any]:
        """Return the signature for GET /info and for handlers that read it."""
        return {
            "key": self.key,
            "inputs": {name: tensor.to_dict() for name, tensor in self.inputs.items()},
            "outputs": {name: tensor.to_dict() for name, tensor in self.outputs.items()},
        }


def choose_key(keys: Iterable[str], configured: str | None) -> str:
    """Return the key of the signature to serve: the configured one, the only one, "predict" or "serving_default". Raises
    StartError (ModelInvalid), which lists the keys."""
    # Keras and tf.saved_model.save add a signature that only initializes the model.
    available = sorted(key for key in keys if not key.startswith("__saved_model_"))
    listed = ", ".join(available) or "none"
    if configured is not None:
        if configured not in available:
            raise StartError(
                "ModelInvalid",
                f'handler.models: the model has no signature "{configured}" (signatureKey); it has {listed}',
            )
        return configured
    if len(available) == 1:
        return available[0]
    for key in DEFAULT_KEYS:
        if key in available:
            return key
    if not available:
        raise StartError("ModelInvalid", "the SavedModel has no signature; export it with signatures={...}")
    raise StartError(
        "ModelInvalid",
        f"handler.models: the model has several signatures; set signatureKey to one of {listed}",
    )


def check(signature: Signature) -> Signature:
    """Return the signature if it can be served. Raises StartError (ModelInvalid)."""
    if not signature.inputs:
        raise StartError("ModelInvalid", f'signature "{signature.key}" of the model has no inputs')
    for kind, tensors in (("input", signature.inputs), ("output", signature.outputs)):
        for tensor in tensors.values():
            if tensor.dtype not in NUMPY_TYPES:
                raise StartError(
                    "ModelInvalid",
                    f'signature "{signature.key}": {kind} "{tensor.name}" has the type {tensor.dtype}, '
                    "which is not supported",
                )
    return signature


def invalid_input_text(details: str | None) -> UserError:
    """Return the message for a client whose input the model has refused. details: TensorFlow's message, which contains the
    cause."""
    causes = [
        line
        for line in (details or "").splitlines()
        if line and not line[0].isspace() and not line.startswith(_NO_CAUSE)
    ]
    return UserError(f"the model refused its input: {causes[0] if causes else 'no reason given'}")


def decode_text(values: np.ndarray) -> np.ndarray:
    """Return an array of bytes objects as one of str if all are UTF-8; otherwise unchanged."""
    try:
        text_array = [value.decode() for value in values.ravel()]
    except UnicodeDecodeError:
        return values
    return objects(text_array, values.shape)


def objects(values: list[Any], shape: tuple[int, ...]) -> np.ndarray:
    """Return an array of Python objects."""
    array = np.empty(len(values), object)
    array[:] = values
    return array.reshape(shape)


def _strings(value: Any) -> np.ndarray:
    given = object_array(value)
    return objects([_bytes(item) for item in given.ravel()], given.shape)


def _bytes(item: Any) -> bytes:
    if isinstance(item, str):
        return item.encode()
    if isinstance(item, bytes):
        return bytes(item)
    if isinstance(item, bytearray | memoryview):
        return bytes(item)
    if isinstance(item, Mapping) and item.keys() == {"b64"}:
        try:
            return base64.b64decode(item["b64"], validate=True)
        except (binascii.Error, TypeError) as error:
            raise ValueError(f"b64 is not base64: {error}") from error
    if isinstance(item, list):
        raise ValueError("its lists differ in length")
    raise ValueError(f"expected strings or bytes, got {type(item).__name__}")


def _shape_text(shape: Iterable[int | None]) -> str:
    return "[" + ", ".join("?" if size is None else str(size) for size in shape) + "]"
