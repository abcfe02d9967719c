"""Signatures, results and attributes of clients in the form of Cortex up to release 0.33.

Used only for handlers whose names show that they were written for one of these releases.
"""

from collections.abc import Callable, ItemsView, Iterator, KeysView, Mapping
from typing import Any, TypeVar

import numpy as np

from cortex_runtime.clients.base import CachingClient

T = TypeVar("T")

_TENSORFLOW_ENUMS = {"float32": "DT_FLOAT", "float64": "DT_DOUBLE", "float16": "DT_HALF"}
"""The names in tensorflow/core/framework/types.proto that differ from "DT_" and the name of the type."""


class NodeList(list[Any]):
    """Inputs or outputs of an ONNX model: a list of onnxruntime's NodeArg, as up to 0.11, with the methods of today's
    signature.

    signature: {"inputs": {name: {"shape", "type"}}, "outputs": the same}.
    """

    def __init__(self, nodes: list[Any], signature: Mapping[str, Any]) -> None:
        super().__init__(nodes)
        self._signature = signature

    def __getitem__(self, key: Any) -> Any:
        return self._signature[key] if isinstance(key, str) else super().__getitem__(key)

    def get(self, key: str, default: Any = None) -> Any:
        """Return a part of the signature by its name."""
        return self._signature.get(key, default)

    def keys(self) -> KeysView[str]:
        """Return the names of the parts of the signature."""
        return self._signature.keys()

    def items(self) -> ItemsView[str, Any]:
        """Return the parts of the signature by name."""
        return self._signature.items()


class SignatureDefs(dict[str, Any]):
    """A map of signature key to SignatureDef, in protobuf's JSON form, with the items of today's signature. Contains only the
    served signature.

    signature: {"key", "inputs", "outputs"}, of the TensorFlow client.
    """

    def __init__(self, signature: Mapping[str, Any]) -> None:
        tensors = {part: _tensor_infos(signature[part]) for part in ("inputs", "outputs")}
        super().__init__({signature["key"]: {**tensors, "methodName": "tensorflow/serving/predict"}})
        self._signature = signature

    def __missing__(self, key: str) -> Any:
        return self._signature[key]

    def get(self, key: str, default: Any = None) -> Any:
        """Return a SignatureDef by its key, or a part of the served signature by its name."""
        try:
            return self[key]
        except KeyError:
            return default


def _tensor_infos(tensors: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    return {name: _tensor_info(tensor) for name, tensor in tensors.items()}


def _tensor_info(tensor: Mapping[str, Any]) -> dict[str, Any]:
    dtype, shape = tensor["type"], tensor["shape"]
    described: dict[str, Any] = {}
    if shape is None:
        described["unknownRank"] = True
    elif shape:
        # protobuf's JSON has int64 as strings. A scalar has no "dim".
        described["dim"] = [{"size": str(size)} for size in shape]
    return {"dtype": _TENSORFLOW_ENUMS.get(dtype, f"DT_{dtype.upper()}"), "tensorShape": described}


class FlatOutputs(dict[str, list[Any]]):
    """The outputs of a TensorFlow model as flat lists of Python values, for every shape.

    outputs["response"] is the mapping itself, as in 0.6 and 0.7, unless the model has such an output.
    """

    def __init__(self, outputs: Mapping[str, Any]) -> None:
        super().__init__({name: np.ravel(value).tolist() for name, value in outputs.items()})

    def __missing__(self, key: str) -> "FlatOutputs":
        if key != "response":
            raise KeyError(key)
        return self


class ValuesByModel(Mapping[str, Any]):
    """A value for each model of a client, computed on access. A single model is `_cortex_default`."""

    def __init__(self, names: Callable[[], list[str]], read: Callable[[str], Any]) -> None:
        self._names = names
        self._read = read

    def __getitem__(self, name: str) -> Any:
        if name not in self._names():
            raise KeyError(name)
        return self._read(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names())

    def __len__(self) -> int:
        return len(self._names())


class LegacyONNXAttributes(CachingClient[T]):
    """Attributes that `onnx_client` had: `session` and `input_signature` in 0.12 to 0.17, and the same by model name in 0.18 to
    0.21. All are of the latest version."""

    def get_model(
        self, model_name: str | None = None, model_version: str | int | None = "latest"
    ) -> dict[str, Any]:
        """Return the session of a model and its inputs."""
        raise NotImplementedError

    @property
    def session(self) -> Any:
        """The onnxruntime.InferenceSession of the only model."""
        return self.get_model()["session"]

    @property
    def input_signature(self) -> dict[str, Any]:
        """{input name: {"shape", "type"}} of the only model."""
        return dict(self.get_model()["input_signatures"])

    @property
    def sessions(self) -> ValuesByModel:
        """The onnxruntime.InferenceSession of each model."""
        return ValuesByModel(self.names, lambda name: self.get_model(name)["session"])

    @property
    def input_signatures(self) -> ValuesByModel:
        """{input name: {"shape", "type"}} of each model."""
        return ValuesByModel(self.names, lambda name: self.get_model(name)["input_signatures"])


class FlatTensorFlowClient:
    """The `tensorflow_client` of a TensorFlowPredictor, whose outputs are flat lists. Everything else is passed to the client."""

    def __init__(self, client: Any) -> None:
        self._client = client

    @property
    def input_signature(self) -> dict[str, Any]:
        """{input name: {"shape", "type"}} of the only model, as in 0.12 to 0.17."""
        return _input_signature(self._client.signature())

    @property
    def input_signatures(self) -> ValuesByModel:
        """{input name: {"shape", "type"}} of each model, as from 0.18."""
        return ValuesByModel(self._client.names, lambda name: _input_signature(self._client.signature(name)))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def predict(
        self, model_input: Any, model_name: str | None = None, model_version: str | int | None = "latest"
    ) -> FlatOutputs:
        """Run a model. Takes and raises what `TensorFlowClient.predict` does."""
        return FlatOutputs(self._client.predict(model_input, model_name, model_version))


def _input_signature(signature: Mapping[str, Any]) -> dict[str, Any]:
    def shape(sizes: list[int] | None) -> list[Any]:
        if sizes is None:
            return ["unknown"]
        return sizes or ["scalar"]

    return {name: {**tensor, "shape": shape(tensor["shape"])} for name, tensor in signature["inputs"].items()}
