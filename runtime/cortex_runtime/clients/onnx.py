"""`onnx_client`: runs ONNX models in this process. What a caller sent wrongly becomes a UserError, which reaches them as 400."""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as errors

from cortex_runtime.clients import say_served
from cortex_runtime.clients.conversion import NumberType, check_names, texts
from cortex_runtime.clients.legacy import Nodes, ONNXAttributes
from cortex_runtime.clients.onnx_file import inputs_of_any_rank
from cortex_runtime.errors import UserError
from cortex_runtime.models.memory_cache import MemoryCache
from cortex_runtime.models.repository import LoadFailed, ModelRepository, Version

onnxruntime.disable_telemetry_events()  # What is served here is nobody else's business.

_NUMBERS = {
    name: NumberType.of(dtype.__name__, dtype)
    for name, dtype in {
        "tensor(float16)": np.float16,
        "tensor(float)": np.float32,
        "tensor(double)": np.float64,
        "tensor(int8)": np.int8,
        "tensor(int16)": np.int16,
        "tensor(int32)": np.int32,
        "tensor(int64)": np.int64,
        "tensor(uint8)": np.uint8,
        "tensor(uint16)": np.uint16,
        "tensor(uint32)": np.uint32,
        "tensor(uint64)": np.uint64,
        "tensor(bool)": np.bool_,
    }.items()
}
_STRING = "tensor(string)"
TYPES = {**{number.name: number for number in _NUMBERS.values()}, "str_": None}
"""Types of numpy's by name; None for text."""
_SMALL = (
    "tensor(bfloat16)",
    "tensor(float8",
    "tensor(int4)",
    "tensor(uint4)",
    "tensor(int2)",
    "tensor(uint2)",
)
"""How the names of the types in `packed` begin."""
_OWN_FAULT = re.compile(r"memory|alloc|CUDA|cudnn|cublas|TensorRT|ROCm|HIP |not implemented", re.IGNORECASE)
"""In messages of failures that are not the caller's."""
_NODE = re.compile(r"Non-zero status code returned while running (\w+) node\.")


@dataclass(frozen=True)
class Input:
    """One input of a model.

    shape: integers, and None or a name for a dimension that is free; None as a whole when any rank will do. number: None for
    text. packed: for the types that numpy has not. optional: whether the model has a value of its own.
    """

    name: str
    shape: tuple[int | str | None, ...] | None
    number: NumberType | None
    packed: Any = None
    optional: bool = False

    def convert(self, value: Any) -> np.ndarray:
        """A value as an array of the numpy type that carries the input's, in the input's shape.

        Where one dimension at most is free, lists that are flat, or nested deeper or less deep, are brought into the shape.
        Raises UserError, naming the input.
        """
        try:
            array = texts(value) if self.number is None else self.number.convert(value)
        except (ValueError, TypeError, OverflowError) as error:
            raise UserError(
                f'input "{self.name}" can\'t be read as {self.type_name} of shape {self.wanted}: {error}'
            ) from error
        shape = self.shape
        if shape is None or (
            len(array.shape) == len(shape)
            and all(
                not isinstance(want, int) or want == have
                for want, have in zip(shape, array.shape, strict=True)
            )
        ):
            return array
        target = _reshaped(array.shape, shape)
        if target is None:
            raise UserError(f'input "{self.name}": expected shape {self.wanted}, got {list(array.shape)}')
        return array.reshape(target)

    @property
    def type_name(self) -> str:
        """numpy's name of the type; ONNX's for a type that numpy has not."""
        return "str_" if self.number is None else self.number.name

    @property
    def wanted(self) -> str:
        """The shape as words."""
        if self.shape is None:
            return "any"
        return "[" + ", ".join("?" if d is None else str(d) for d in self.shape) + "]"


def _reshaped(given: tuple[int, ...], wanted: tuple[int | str | None, ...]) -> tuple[int, ...] | None:
    """The shape in which values of the shape `given` are what a model wants, or None.

    Dimensions may be split, or joined, but not both: [3, 2] is never read as [2, 3].
    """
    free = [place for place, size in enumerate(wanted) if not isinstance(size, int)]
    fixed = prod(size for size in wanted if isinstance(size, int))
    count = prod(given)
    if len(free) > 1:
        # Values without the free dimensions have 1 in each, as in releases up to 0.20.
        target = tuple(size if isinstance(size, int) else 1 for size in wanted)
        return (
            target
            if [size for size in given if size != 1] == [size for size in target if size != 1]
            else None
        )
    if count % fixed if fixed and free else count != fixed:
        return None
    if free and not fixed:
        return None
    target = tuple(size if isinstance(size, int) else count // fixed for size in wanted)
    return target if _splits(given, target) or _splits(target, given) else None


def _splits(coarse: tuple[int, ...], fine: tuple[int, ...]) -> bool:
    """Whether each dimension of one shape is the product of adjacent dimensions of the other, apart from ones."""
    if 0 in coarse:
        return True
    rest = [size for size in fine if size != 1]
    for size in coarse:
        product = 1
        while product < size and rest:
            product *= rest.pop(0)
        if product != size:
            return False
    return not rest


@dataclass(frozen=True)
class Loaded:
    """A model in memory."""

    version: Version
    session: onnxruntime.InferenceSession
    inputs: Mapping[str, Input]
    required: tuple[str, ...]
    optional: tuple[str, ...]
    packed_outputs: tuple[Any, ...] | None
    """For each output its type in `packed`, or None; None as a whole when no output is of such a type."""

    def feed(self, model_input: Any) -> dict[str, np.ndarray]:
        """Arrays by input. Raises UserError."""
        inputs, required = self.inputs, self.required
        if not isinstance(model_input, Mapping):
            if len(required) == 1:
                return {required[0]: inputs[required[0]].convert(model_input)}
            if required:
                raise UserError(f"the model takes several inputs, by name: {', '.join(inputs)}")
            if model_input is not None and (not isinstance(model_input, list | bytes | str) or model_input):
                known = f"only by name: {', '.join(inputs)}" if inputs else "no input"
                raise UserError(f"the model takes {known}")
            return {}
        if len(model_input) != len(required) or not all(name in model_input for name in required):
            check_names(model_input, required, self.optional)
        return {name: inputs[name].convert(value) for name, value in model_input.items()}

    def run(self, feed: Mapping[str, np.ndarray], names: Sequence[str] | None = None) -> list[Any]:
        """Return the outputs for a feed. names: of the outputs; None for all. Raises UserError for what the model refuses."""
        packed = self.packed_outputs
        given: dict[str, Any] = {}
        try:
            for name, array in feed.items():
                each = self.inputs[name]
                given[name] = array if each.packed is None else each.packed.to_ort(array)
        except ValueError as error:
            raise UserError(f'input "{name}" can\'t be read as {each.type_name}: {error}') from error
        try:
            if packed is None:
                outputs: list[Any] = self.session.run(names, given)
                return outputs
            values = {
                name: onnxruntime.OrtValue.ortvalue_from_numpy(value)
                if isinstance(value, np.ndarray)
                else value
                for name, value in given.items()
            }
            every = [
                value.numpy() if kind is None else kind.from_ort(value)
                for kind, value in zip(packed, self.session.run_with_ort_values(None, values), strict=True)
            ]
            if names is None:
                return every
            places = {node.name: place for place, node in enumerate(self.session.get_outputs())}
            return [every[places[name]] for name in names]
        except (errors.InvalidArgument, errors.Fail, errors.RuntimeException) as error:
            message = str(error)
            if not isinstance(error, errors.InvalidArgument) and (
                _NODE.search(message) is None or _OWN_FAULT.search(message)
            ):
                raise
            raise UserError(f"the model refused its input: {self._why(message, feed)}") from error

    def _why(self, message: str, feed: Mapping[str, np.ndarray]) -> str:
        """onnxruntime's words without places in its source, and dimensions of one name that differ in size."""
        text = re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ", "", message)
        text = re.sub(r"\S+\.(?:h|cc|cpp|cu|cuh):\d+ ", "", text)
        text = re.sub(r"Status Message: .* was false\. ", "Status Message: ", text)
        text = _NODE.sub(r"\1 node", text).replace("Name:'' ", "").replace("Status Message: ", "").strip()
        sizes: dict[str, list[tuple[int, str]]] = {}
        for name, array in feed.items():
            for size, have in zip(self.inputs[name].shape or (), array.shape, strict=False):
                if isinstance(size, str):
                    sizes.setdefault(size, []).append((have, name))
        for dimension, found in sizes.items():
            if len({have for have, _ in found}) > 1:
                words = ", ".join(f'{have} in "{name}"' for have, name in found)
                text = f'dimension "{dimension}" is {words}; {text}'
        return " ".join(text.split())


class ONNXClient(ONNXAttributes[Loaded]):
    """The models of one API. A single model has no name to give; several are asked for by name."""

    argument = "onnx_client"

    def __init__(
        self, store: ModelRepository, threads: int, *, size: int | None = None, limit_bytes: int | None = None
    ) -> None:
        cache = MemoryCache(
            store, lambda version: _load(version, threads), size=size, limit_bytes=limit_bytes
        )
        super().__init__(store, cache)
        self.may_wait = cache.is_limited

    def predict(
        self, model_input: Any, model_name: str | None = None, model_version: str | int | None = "latest"
    ) -> list[Any]:
        """Run a model. Returns its outputs, in its order, as numpy arrays.

        model_input: a mapping of input name to value; or, with one input that is required, its value. Inputs for which the
        model has a value of its own may be left out. model_version: a number, or "latest".
        Raises UserError for an unknown model or version, missing and unknown inputs, values of the wrong type or shape, and
        what the model refuses; and LoadFailed.
        """
        loaded = self._cache.get(model_name, model_version)
        outputs = loaded.run(loaded.feed(model_input))
        say_served(loaded.version.name, loaded.version.version)
        return outputs

    def run(self, model: Loaded, arrays: Mapping[str, np.ndarray], outputs: Sequence[str]) -> list[Any]:
        """Run a model in memory with arrays of its types and shapes. Returns the named outputs.

        Raises what `predict` raises.
        """
        results = model.run(
            {name: model.inputs[name].convert(array) for name, array in arrays.items()}, outputs
        )
        say_served(model.version.name, model.version.version)
        return results

    def get_model(
        self, model_name: str | None = None, model_version: str | int | None = "latest"
    ) -> dict[str, Any]:
        """The session of a model, its signature as onnxruntime has it, and as shapes and numpy types."""
        loaded = self._cache.get(model_name, model_version)
        say_served(loaded.version.name, loaded.version.version)
        return {
            "session": loaded.session,
            "signatures": loaded.session.get_inputs(),
            "input_signatures": {
                i.name: {"shape": list(i.shape or ()), "type": i.type_name} for i in loaded.inputs.values()
            },
        }

    def signature(
        self, model_name: str | None = None, model_version: str | int | None = "latest"
    ) -> dict[str, Any]:
        """Inputs and outputs of a model, with shapes and types; None in a shape is a dimension that is free."""
        return _signature(self._cache.get(model_name, model_version))

    def classic_signature(
        self, part: str, model_name: str | None = None, model_version: str | int | None = "latest"
    ) -> Nodes:
        """Return the inputs or the outputs of a model as onnxruntime's list of nodes. part: "inputs" or "outputs"."""
        loaded = self._cache.get(model_name, model_version)
        session = loaded.session
        return Nodes(session.get_inputs() if part == "inputs" else session.get_outputs(), _signature(loaded))

    def _signature_of(self, model: Loaded) -> dict[str, Any]:
        return _signature(model)


def intra_op_threads(workers: int) -> int:
    """Threads for one session, so that all sessions that run at once share the CPUs that this process may use."""
    cpus = float(len(os.sched_getaffinity(0)))
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        cpus = cpus if quota == "max" else min(cpus, int(quota) / int(period))
    except (OSError, ValueError):
        # No cgroup v2 here, so no limit to read.
        pass
    return max(1, int(cpus // workers))


def _load(version: Version, threads: int) -> Loaded:
    path = version.path
    if path.is_dir():
        files = sorted(file for file in path.glob("*.onnx") if not file.name.startswith("."))
        if len(files) != 1:
            raise LoadFailed(f"{path} must hold exactly one .onnx file; found {len(files)}")
        path = files[0]
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    try:
        session = onnxruntime.InferenceSession(
            str(path), options, providers=onnxruntime.get_available_providers()
        )
    except Exception as error:
        raise LoadFailed(f"{path} can't be loaded as an ONNX model: {error}") from error
    return _loaded(version, path, session)


def _loaded(version: Version, path: Path, session: onnxruntime.InferenceSession) -> Loaded:
    required, optional = session.get_inputs(), session.get_overridable_initializers()
    defaults = {node.name for node in optional}
    any_rank: set[str] = set()
    if any(not node.shape for node in required):
        # onnxruntime shows the same for a single value.
        try:
            any_rank = inputs_of_any_rank(path)
        except (OSError, ValueError, IndexError):
            any_rank = {node.name for node in required if not node.shape}
    inputs = {}
    for node in (*required, *optional):
        number, packed = _NUMBERS.get(node.type), None
        if number is None and node.type != _STRING:
            packed = _packed(node.type)
            if packed is None:
                raise LoadFailed(f'{path}: input "{node.name}" has the type {node.type}, which is not served')
            number = packed.number
        shape = None if node.name in any_rank and not node.shape else tuple(node.shape)
        inputs[node.name] = Input(node.name, shape, number, packed, node.name in defaults)
    outputs = tuple(_packed(node.type) for node in session.get_outputs())
    for node in session.get_outputs():
        if any(outputs) and not node.type.startswith("tensor("):
            raise LoadFailed(f'{path}: output "{node.name}" has the type {node.type}, which is not served')
    if any(outputs) and any(each.number is None for each in inputs.values()):
        # onnxruntime returns numbers of such types only for a feed of OrtValues, and makes none of text.
        kinds = ", ".join(node.type for node in session.get_outputs())
        raise LoadFailed(f"{path}: a model with text as input and outputs {kinds} is not served")
    return Loaded(
        version,
        session,
        inputs,
        tuple(node.name for node in required),
        tuple(node.name for node in optional),
        outputs if any(outputs) else None,
    )


def _packed(kind: str) -> Any:
    """What converts a type that numpy has not; None for other types. Raises LoadFailed."""
    if not kind.startswith(_SMALL):
        return None
    from cortex_runtime.clients.onnx_dtypes import TYPES

    return TYPES.get(kind)


def _signature(loaded: Loaded) -> dict[str, Any]:
    inputs = {
        each.name: {
            "shape": None if each.shape is None else list(each.shape),
            "type": each.type_name,
            **({"optional": True} if each.optional else {}),
        }
        for each in loaded.inputs.values()
    }
    outputs = {
        node.name: {"shape": list(node.shape), "type": _type_name(node.type)}
        for node in loaded.session.get_outputs()
    }
    return {"inputs": inputs, "outputs": outputs}


def _type_name(kind: str) -> str:
    number = _NUMBERS.get(kind)
    if number is not None:
        return number.name
    return "str_" if kind == _STRING else kind.removeprefix("tensor(").removesuffix(")")
