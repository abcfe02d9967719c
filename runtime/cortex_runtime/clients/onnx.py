"""`onnx_client`: runs ONNX models in this process. What a caller sent wrongly becomes a UserError, which reaches him as 400."""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from cortex_runtime.clients import say_served
from cortex_runtime.clients.classic import Nodes, ONNXAttributes
from cortex_runtime.errors import UserError
from cortex_runtime.models.cache import Cache
from cortex_runtime.models.store import LoadFailed, Store, Version

onnxruntime.disable_telemetry_events()  # What is served here is nobody else's business.

_NUMPY_TYPES = {
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
    "tensor(string)": np.str_,
}


@dataclass(frozen=True)
class Input:
    """One input of a model. shape: integers, and None or a name for a dimension that is free."""

    name: str
    shape: tuple[int | str | None, ...]
    dtype: type[np.generic]

    def convert(self, value: Any) -> np.ndarray:
        """A value as the array that the model takes, reshaped when at most one dimension is free.

        Raises UserError, naming the input.
        """
        if isinstance(value, np.ndarray) and value.dtype == self.dtype:
            array = value
        else:
            try:
                given = np.asarray(value)
                # A cast that changes what the number means is an error of the caller, not a rounding.
                if self.dtype is not np.str_ and given.size and given.dtype.kind not in "biuf":
                    raise ValueError(f"expected numbers, got {given.dtype.name}")
                if np.issubdtype(self.dtype, np.integer) and given.size and given.dtype.kind == "f":
                    raise ValueError("expected whole numbers, got fractions")
                array = given.astype(object if self.dtype is np.str_ else self.dtype)
            except (ValueError, TypeError, OverflowError) as error:
                raise UserError(
                    f'input "{self.name}" can\'t be read as {self.dtype.__name__} of shape {self.wanted}: {error}'
                ) from error
        if len(array.shape) == len(self.shape) and all(
            not isinstance(want, int) or want == have
            for want, have in zip(self.shape, array.shape, strict=True)
        ):
            return array
        target = [dimension if isinstance(dimension, int) else -1 for dimension in self.shape]
        if target.count(-1) > 1:
            # Values without the free dimensions have 1 in each, as in releases up to 0.20.
            target = [abs(size) for size in target]
            if [size for size in array.shape if size != 1] != [size for size in target if size != 1]:
                raise UserError(f'input "{self.name}": expected shape {self.wanted}, got {list(array.shape)}')
        try:
            return array.reshape(target)
        except ValueError as error:
            raise UserError(
                f'input "{self.name}": expected shape {self.wanted}, got {list(array.shape)}'
            ) from error

    @property
    def wanted(self) -> str:
        """The shape as words."""
        return "[" + ", ".join("?" if d is None else str(d) for d in self.shape) + "]"


@dataclass(frozen=True)
class Loaded:
    """A model in memory."""

    version: Version
    session: onnxruntime.InferenceSession
    inputs: tuple[Input, ...]


class ONNXClient(ONNXAttributes[Loaded]):
    """The models of one API. A single model has no name to give; several are asked for by name."""

    argument = "onnx_client"

    def __init__(
        self, store: Store, threads: int, *, size: int | None = None, limit_bytes: int | None = None
    ) -> None:
        cache = Cache(store, lambda version: _load(version, threads), size=size, limit_bytes=limit_bytes)
        super().__init__(store, cache)
        self.may_wait = cache.limited

    def predict(
        self, model_input: Any, model_name: str | None = None, model_version: str | int | None = "latest"
    ) -> list[Any]:
        """Run a model. Returns its outputs, in its order, as numpy arrays.

        model_input: a mapping of input name to value; or, with one input, its value. model_version: a number, or "latest".
        Raises UserError for an unknown model or version, a missing input and a value of the wrong type or shape, and LoadFailed.
        """
        loaded = self._cache.get(model_name, model_version)
        inputs = loaded.inputs
        if isinstance(model_input, Mapping):
            given = model_input
        elif len(inputs) == 1:
            given = {inputs[0].name: model_input}
        else:
            raise UserError(f"the model takes several inputs, by name: {', '.join(i.name for i in inputs)}")
        missing = [i.name for i in inputs if i.name not in given]
        if missing:
            known = ", ".join(i.name for i in inputs)
            raise UserError(f"missing input {', '.join(missing)} (the model takes {known})")
        feed = {i.name: i.convert(given[i.name]) for i in inputs}
        try:
            outputs: list[Any] = loaded.session.run(None, feed)
        except onnxruntime.capi.onnxruntime_pybind11_state.InvalidArgument as error:
            raise UserError(f"the model refused its input: {error}") from error
        say_served(loaded.version.name, loaded.version.version)
        return outputs

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
                i.name: {"shape": list(i.shape), "type": i.dtype.__name__} for i in loaded.inputs
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
    inputs = []
    for node in session.get_inputs():
        dtype = _NUMPY_TYPES.get(node.type)
        if dtype is None:
            raise LoadFailed(f'{path}: input "{node.name}" has the type {node.type}, which is not served')
        inputs.append(Input(node.name, tuple(node.shape), dtype))
    return Loaded(version, session, tuple(inputs))


def _signature(loaded: Loaded) -> dict[str, Any]:
    def described(nodes: Iterable[Any]) -> dict[str, Any]:
        return {node.name: {"shape": list(node.shape), "type": _type_name(node.type)} for node in nodes}

    return {
        "inputs": described(loaded.session.get_inputs()),
        "outputs": described(loaded.session.get_outputs()),
    }


def _type_name(name: str) -> str:
    dtype = _NUMPY_TYPES.get(name)
    return name if dtype is None else dtype.__name__
