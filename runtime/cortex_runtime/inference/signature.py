"""What a model takes and returns, in terms of the protocol, and the check of a request against it. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from cortex_runtime.clients.conversion import check_names
from cortex_runtime.errors import UserError
from cortex_runtime.inference.datatypes import BYTES, DATATYPES
from cortex_runtime.inference.messages import Tensor

FREE = -1
"""A dimension of any size."""
_SMALL = {
    "float8": "FP32",
    "int4": "INT8",
    "int2": "INT8",
    "uint4": "UINT8",
    "uint2": "UINT8",
    "qint8": "INT8",
    "quint8": "UINT8",
    "qint16": "INT16",
    "quint16": "UINT16",
    "qint32": "INT32",
}
"""How the names of types begin that have no datatype of their own, and the datatype that their values travel in."""
_NAMES = {
    "bool": "BOOL",
    "bool_": "BOOL",
    "float16": "FP16",
    "bfloat16": "BF16",
    "float32": "FP32",
    "float64": "FP64",
    "str_": BYTES,
    "string": BYTES,
    **{f"{kind}{bits}": f"{kind.upper()}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)},
}


@dataclass(frozen=True)
class TensorSpec:
    """An input or output. shape: FREE for a free dimension; None as a whole for any number of dimensions. optional: whether the
    model has a default.
    """

    name: str
    datatype: str
    shape: tuple[int, ...] | None
    optional: bool = False

    def check(self, tensor: Tensor) -> None:
        """Raise UserError if a tensor has another datatype or shape."""
        if tensor.datatype != self.datatype:
            raise UserError(f'input "{self.name}": expected datatype {self.datatype}, got {tensor.datatype}')
        wanted, given = self.shape, tensor.array.shape
        if wanted is None:
            return
        if len(wanted) != len(given) or any(
            size not in (FREE, have) for size, have in zip(wanted, given, strict=True)
        ):
            raise UserError(
                f'input "{self.name}": expected shape {list(wanted)} (-1 is any size), got {list(given)}'
            )

    def metadata(self) -> dict[str, Any]:
        """Return the description for clients. Any number of dimensions is one free dimension there."""
        shape = [FREE] if self.shape is None else list(self.shape)
        return {"name": self.name, "datatype": self.datatype, "shape": shape}


@dataclass(frozen=True)
class Signature:
    """The inputs and outputs of one version of a model. other: outputs that are not tensors, and their types."""

    inputs: Mapping[str, TensorSpec]
    outputs: Mapping[str, TensorSpec]
    other: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, described: Mapping[str, Any]) -> "Signature":
        """Return the signature that a model client describes."""
        outputs = {name: _spec(name, each) for name, each in described["outputs"].items()}
        return cls(
            {
                name: spec
                for name, each in described["inputs"].items()
                if (spec := _spec(name, each)) is not None
            },
            {name: spec for name, spec in outputs.items() if spec is not None},
            {name: described["outputs"][name]["type"] for name, spec in outputs.items() if spec is None},
        )

    def metadata(self) -> dict[str, Any]:
        """Return the descriptions of inputs and outputs for clients."""
        return {
            "inputs": [spec.metadata() for spec in self.inputs.values()],
            "outputs": [spec.metadata() for spec in self.outputs.values()],
        }

    @property
    def has_rows(self) -> bool:
        """Whether all inputs and outputs take any number of rows, so that requests can run as one."""
        return not self.other and all(
            spec.shape and spec.shape[0] == FREE and not spec.optional
            for spec in (*self.inputs.values(), *self.outputs.values())
        )

    def check_inputs(self, tensors: Sequence[Tensor]) -> None:
        """Raise UserError if the tensors are not the model's inputs."""
        inputs = self.inputs
        given = by_name(tensors)
        if len(given) != len(inputs) or not all(name in given for name in inputs):
            required = [name for name, spec in inputs.items() if not spec.optional]
            optional = [name for name, spec in inputs.items() if spec.optional]
            check_names(given, required, optional)
        for name, tensor in given.items():
            inputs[name].check(tensor)

    def choose_outputs(self, names: Sequence[str] | None) -> list[TensorSpec]:
        """Return the requested outputs, or all. Raises UserError for a name that is not an output."""
        if names is None:
            return list(self.outputs.values())
        for name in names:
            if name in self.other:
                raise UserError(f'output "{name}" is a {self.other[name]}, not a tensor')
            if name not in self.outputs:
                raise UserError(f'output "{name}" does not exist (available: {", ".join(self.outputs)})')
        return [self.outputs[name] for name in names]


def by_name(tensors: Sequence[Tensor]) -> dict[str, Tensor]:
    """Return tensors by name. Raises UserError for two of one name."""
    named = {tensor.name: tensor for tensor in tensors}
    if len(named) != len(tensors):
        names = [tensor.name for tensor in tensors]
        double = next(name for name in names if names.count(name) > 1)
        raise UserError(f'input "{double}" is given twice')
    return named


def declared(specs: Any, where: str) -> dict[str, TensorSpec]:
    """Return the inputs or outputs that a handler's class declares. Raises ValueError, naming the wrong item."""
    if not isinstance(specs, list | tuple):
        raise ValueError(f"{where} must be a list of objects with name, datatype and shape")
    found: dict[str, TensorSpec] = {}
    for place, item in enumerate(specs):
        at = f"{where}[{place}]"
        if not isinstance(item, Mapping) or set(item) != {"name", "datatype", "shape"}:
            raise ValueError(f"{at} must have name, datatype and shape, and nothing else; got {item!r:.80}")
        name, datatype, shape = item["name"], item["datatype"], item["shape"]
        if not isinstance(name, str) or not name or name in found:
            raise ValueError(f"{at}.name must be a string that no other has; got {name!r:.40}")
        if datatype not in DATATYPES:
            raise ValueError(f"{at}.datatype must be one of {', '.join(DATATYPES)}; got {datatype!r:.40}")
        if not isinstance(shape, list | tuple) or not all(
            isinstance(size, int | np.integer) and size >= FREE for size in shape
        ):
            raise ValueError(f"{at}.shape must be a list of sizes, -1 for any size; got {shape!r:.80}")
        found[name] = TensorSpec(name, datatype, tuple(int(size) for size in shape))
    return found


def _spec(name: str, described: Mapping[str, Any]) -> TensorSpec | None:
    """Return what a client describes as {"shape", "type"}; None if it is not a tensor of the protocol."""
    kind, shape = described["type"], described["shape"]
    datatype = _NAMES.get(kind) or next(
        (datatype for prefix, datatype in _SMALL.items() if kind.startswith(prefix)), None
    )
    if datatype is None:
        return None
    sizes = None if shape is None else tuple(size if type(size) is int else FREE for size in shape)
    return TensorSpec(name, datatype, sizes, bool(described.get("optional")))
