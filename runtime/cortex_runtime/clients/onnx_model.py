"""An ONNX model in memory: an onnxruntime session, and the conversion of what a client sends to the session's inputs."""

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as errors

from cortex_runtime.clients.conversion import check_names
from cortex_runtime.clients.onnx_file import inputs_of_any_rank
from cortex_runtime.clients.onnx_input import NUMBERS, STRING, Input
from cortex_runtime.errors import UserError
from cortex_runtime.models.repository import LoadFailed, Version

# On Windows, onnxruntime reports the use of models to its vendor.
onnxruntime.disable_telemetry_events()

Feed = dict[str, np.ndarray]
Run = Callable[[Sequence[str], Mapping[str, Any], Any], list[Any]]

_PACKED = (
    "tensor(bfloat16)",
    "tensor(float8",
    "tensor(int4)",
    "tensor(uint4)",
    "tensor(int2)",
    "tensor(uint2)",
)
"""How the names of the types in `onnx_dtypes` begin."""
_CPU = {"CPUExecutionProvider", "AzureExecutionProvider"}
_OWN_FAULT = re.compile(r"memory|alloc|CUDA|cudnn|cublas|TensorRT|ROCm|HIP |not implemented", re.IGNORECASE)
"""In messages of failures that the input did not cause."""
_NODE = re.compile(r"Non-zero status code returned while running (\w+) node\.")


class OnnxModel:
    """A model in memory.

    inputs: by name, the required ones first. packed_outputs: for each output, the conversion of a type that numpy does not
    have, or None.
    """

    def __init__(
        self,
        version: Version,
        session: onnxruntime.InferenceSession,
        inputs: Mapping[str, Input],
        packed_outputs: Sequence[Any],
    ) -> None:
        self.version = version
        self.session = session
        self.inputs = inputs
        self.required = tuple(name for name, each in inputs.items() if not each.optional)
        self.optional = tuple(name for name, each in inputs.items() if each.optional)
        self.outputs = [node.name for node in session.get_outputs()]
        self._only = inputs[self.required[0]] if len(self.required) == 1 else None
        self._packed_outputs = dict(zip(self.outputs, packed_outputs, strict=True))
        self._is_packed = any(packed_outputs) or any(each.packed for each in inputs.values())
        self._run = _run_of(session)

    def predict(self, model_input: Any) -> list[Any]:
        """Return all outputs for what a client sends. Raises UserError."""
        return self.run(self.feed(model_input), self.outputs)

    def feed(self, model_input: Any) -> Feed:
        """Return the arrays by input. Raises UserError."""
        # The first test avoids isinstance of an abstract class, which takes as long as the conversion of an array.
        if type(model_input) is np.ndarray or not isinstance(model_input, Mapping):
            if self._only is not None:
                return {self._only.name: self._only.convert(model_input)}
            return self._feed_without_names(model_input)
        required, inputs = self.required, self.inputs
        if len(model_input) != len(required) or not all(name in model_input for name in required):
            check_names(model_input, required, self.optional)
        return {name: inputs[name].convert(value) for name, value in model_input.items()}

    def _feed_without_names(self, model_input: Any) -> Feed:
        """Return an empty feed if the model needs none, and nothing was sent. Raises UserError."""
        names = ", ".join(self.inputs)
        if self.required:
            raise UserError(f"the model takes several inputs, by name: {names}")
        if model_input is not None and (not isinstance(model_input, list | bytes | str) or model_input):
            raise UserError(
                f"the model takes only inputs by name: {names}" if names else "the model takes no input"
            )
        return {}

    def run(self, feed: Mapping[str, np.ndarray], outputs: Sequence[str]) -> list[Any]:
        """Return the named outputs. feed: arrays as `feed` returns them. Raises UserError if the model refuses the input."""
        try:
            if self._is_packed:
                return self._run_packed(feed, outputs)
            return self._run(outputs, feed, None)
        except (errors.InvalidArgument, errors.Fail, errors.RuntimeException) as error:
            message = str(error)
            if not isinstance(error, errors.InvalidArgument) and (
                _NODE.search(message) is None or _OWN_FAULT.search(message)
            ):
                raise
            raise UserError(f"the model refused its input: {self._reason(message, feed)}") from error

    def _run_packed(self, feed: Mapping[str, np.ndarray], outputs: Sequence[str]) -> list[Any]:
        """Do the same for a model with types that numpy does not have."""
        given: dict[str, Any] = {}
        for name, array in feed.items():
            each = self.inputs[name]
            try:
                given[name] = array if each.packed is None else each.packed.to_ort(array)
            except ValueError as error:
                raise UserError(f'input "{name}" can\'t be read as {each.type_name}: {error}') from error
        packed = [self._packed_outputs[name] for name in outputs]
        if not any(packed):
            results: list[Any] = self.session.run(outputs, given)
            return results
        values = {
            name: onnxruntime.OrtValue.ortvalue_from_numpy(value) if isinstance(value, np.ndarray) else value
            for name, value in given.items()
        }
        return [
            value.numpy() if kind is None else kind.from_ort(value)
            for kind, value in zip(packed, self.session.run_with_ort_values(outputs, values), strict=True)
        ]

    def _reason(self, message: str, feed: Mapping[str, np.ndarray]) -> str:
        """Return onnxruntime's message without the places in its source, with the sizes of dimensions that differ."""
        text = re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ", "", message)
        text = re.sub(r"\S+\.(?:h|cc|cpp|cu|cuh):\d+ ", "", text)
        text = re.sub(r"Status Message: .* was false\. ", "Status Message: ", text)
        text = _NODE.sub(r"\1 node", text).replace("Name:'' ", "").replace("Status Message: ", "").strip()
        sizes: dict[str, list[tuple[int, str]]] = {}
        for name, array in feed.items():
            for dimension, size in zip(self.inputs[name].shape or (), array.shape, strict=False):
                if isinstance(dimension, str):
                    sizes.setdefault(dimension, []).append((size, name))
        for dimension, found in sizes.items():
            if len({size for size, _ in found}) > 1:
                words = ", ".join(f'{size} in "{name}"' for size, name in found)
                text = f'dimension "{dimension}" is {words}; {text}'
        return " ".join(text.split())

    def signature(self) -> dict[str, Any]:
        """Return {"inputs": {name: {"shape", "type"}}, "outputs": the same}. None in a shape is a free dimension."""
        inputs = {
            each.name: {
                "shape": None if each.shape is None else list(each.shape),
                "type": each.type_name,
                **({"optional": True} if each.optional else {}),
            }
            for each in self.inputs.values()
        }
        outputs = {
            node.name: {"shape": list(node.shape), "type": _type_name(node.type)}
            for node in self.session.get_outputs()
        }
        return {"inputs": inputs, "outputs": outputs}


def load(version: Version, threads: int) -> OnnxModel:
    """Load a model from its file, or from the only .onnx file of its folder.

    threads: threads of the session for one operator. Raises LoadFailed.
    """
    path = version.path
    if path.is_dir():
        files = sorted(file for file in path.glob("*.onnx") if not file.name.startswith("."))
        if len(files) != 1:
            raise LoadFailed(f"{path} must contain exactly one .onnx file; found {len(files)}")
        path = files[0]
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    try:
        session = onnxruntime.InferenceSession(
            str(path), options, providers=onnxruntime.get_available_providers()
        )
    except Exception as error:
        raise LoadFailed(f"failed to load {path} as an ONNX model: {error}") from error
    inputs = {each.name: each for each in _inputs(path, session)}
    outputs = session.get_outputs()
    packed = [_packed(node.type) for node in outputs]
    if any(packed):
        for node in outputs:
            if not node.type.startswith("tensor("):
                raise LoadFailed(
                    f'{path}: output "{node.name}" has the type {node.type}, which is not supported'
                )
        if any(each.number is None for each in inputs.values()):
            # onnxruntime returns numbers of such types only as OrtValues, and cannot make OrtValues of text.
            kinds = ", ".join(node.type for node in outputs)
            raise LoadFailed(f"{path}: a model with text as input and outputs {kinds} is not supported")
    return OnnxModel(version, session, inputs, packed)


def _inputs(path: Path, session: onnxruntime.InferenceSession) -> list[Input]:
    """Return the inputs of a session, the required ones first. Raises LoadFailed for a type that is not supported."""
    required, optional = session.get_inputs(), session.get_overridable_initializers()
    any_rank: set[str] = set()
    if any(not node.shape for node in required):
        # onnxruntime reports the same shape for a single value and for any rank.
        try:
            any_rank = inputs_of_any_rank(path)
        except (OSError, ValueError, IndexError):
            any_rank = {node.name for node in required if not node.shape}
    inputs = []
    for place, node in enumerate((*required, *optional)):
        number, packed = NUMBERS.get(node.type), None
        if number is None and node.type != STRING:
            packed = _packed(node.type)
            if packed is None:
                raise LoadFailed(
                    f'{path}: input "{node.name}" has the type {node.type}, which is not supported'
                )
            number = packed.number
        shape = None if node.name in any_rank and not node.shape else tuple(node.shape)
        inputs.append(Input(node.name, shape, number, packed, optional=place >= len(required)))
    return inputs


def _run_of(session: onnxruntime.InferenceSession) -> Run:
    """Return the function that runs a session.

    `InferenceSession.run` checks the feed once more and falls back to the CPU if another device fails. On the CPU, the native
    session does the same, and a small model runs in two thirds of the time.
    """
    native = getattr(session, "_sess", None)
    if native is None or not _CPU.issuperset(session.get_providers()):
        run: Run = session.run
    else:
        run = native.run
    return run


def _packed(kind: str) -> Any:
    """Return the conversion of a type that numpy does not have; None for other types."""
    if not kind.startswith(_PACKED):
        return None
    from cortex_runtime.clients.onnx_dtypes import TYPES

    return TYPES.get(kind)


def _type_name(kind: str) -> str:
    number = NUMBERS.get(kind)
    if number is not None:
        return number.name
    return "str_" if kind == STRING else kind.removeprefix("tensor(").removesuffix(")")
