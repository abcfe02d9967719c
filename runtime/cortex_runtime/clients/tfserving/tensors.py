"""Convert arrays and signatures to and from TensorFlow's messages, without a change of shapes, types or strings."""

from collections.abc import Mapping

import numpy as np

from cortex_runtime.clients.conversion import bfloat16_bits, bfloat16_numbers
from cortex_runtime.clients.tfserving import serving_pb2, tensor_pb2
from cortex_runtime.clients.tfserving.signature import Signature, Tensor, decode_text, objects

_NAMES = {
    "DT_HALF": "float16",
    "DT_FLOAT": "float32",
    "DT_DOUBLE": "float64",
}
CODES: dict[str, int] = {}
for _name, _code in tensor_pb2.DataType.items():
    CODES[_NAMES.get(_name, _name.removeprefix("DT_").lower())] = _code
TYPES = {code: name for name, code in CODES.items()}

# Types that are refused by name when a model is loaded.
TYPES |= {
    24: "float8_e5m2",
    25: "float8_e4m3fn",
    26: "float8_e4m3fnuz",
    27: "float8_e4m3b11fnuz",
    28: "float8_e5m2fnuz",
}
TYPES |= {29: "int4", 30: "uint4", 31: "int2", 32: "uint2"}

_FIELDS = {
    "float16": ("half_val", np.uint16),
    "bfloat16": ("half_val", np.uint16),
    "float32": ("float_val", np.float32),
    "float64": ("double_val", np.float64),
    "int8": ("int_val", np.int8),
    "int16": ("int_val", np.int16),
    "int32": ("int_val", np.int32),
    "uint8": ("int_val", np.uint8),
    "uint16": ("int_val", np.uint16),
    "qint8": ("int_val", np.int8),
    "qint16": ("int_val", np.int16),
    "qint32": ("int_val", np.int32),
    "quint8": ("int_val", np.uint8),
    "quint16": ("int_val", np.uint16),
    "uint32": ("uint32_val", np.uint32),
    "uint64": ("uint64_val", np.uint64),
    "int64": ("int64_val", np.int64),
    "bool": ("bool_val", np.bool_),
    "complex64": ("scomplex_val", np.float32),
    "complex128": ("dcomplex_val", np.float64),
}
"""Type to the field that holds its values, and the type of the items."""


def write(array: np.ndarray, dtype: str, proto: tensor_pb2.TensorProto) -> None:
    """Fill an empty message. array: from `Tensor.convert`; dtype: TensorFlow's name of the type."""
    proto.dtype = CODES[dtype]  # type: ignore[assignment]
    dimensions = proto.tensor_shape.dim
    for size in array.shape:
        dimensions.add(size=size)
    if dtype == "string":
        proto.string_val.extend(array.ravel().tolist())
    elif dtype == "bfloat16":
        proto.tensor_content = bfloat16_bits(array).tobytes()
    else:
        proto.tensor_content = array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()


def read(proto: tensor_pb2.TensorProto) -> np.ndarray:
    """Return the array in a message, writable; strings as str if all are UTF-8, otherwise as bytes. Raises ValueError for an
    unsupported type."""
    dtype = TYPES.get(proto.dtype, f"number {proto.dtype}")
    shape = tuple(dimension.size for dimension in proto.tensor_shape.dim)
    size = int(np.prod(shape, dtype=np.int64))
    if dtype == "string":
        strings = list(proto.string_val)
        strings += (strings[-1:] or [b""]) * (size - len(strings))
        return decode_text(objects(strings, shape))
    if dtype not in _FIELDS:
        raise ValueError(f"an output of the type {dtype} can't be read")
    field, item = _FIELDS[dtype]
    if proto.tensor_content:
        values: np.ndarray = np.frombuffer(proto.tensor_content, np.dtype(item).newbyteorder("<")).astype(
            item
        )
    else:
        listed = getattr(proto, field)
        # Assigned as one array; item by item takes fifty times as long.
        values = np.array(listed, item)
    if dtype == "float16":
        values = values.view(np.float16)
    elif dtype == "bfloat16":
        values = bfloat16_numbers(values)
    elif dtype.startswith("complex"):
        values = values.view(dtype)
    if 0 < len(values) < size:
        values = np.concatenate([values, np.full(size - len(values), values[-1])])
    elif len(values) < size:
        values = np.zeros(size, values.dtype)
    return values.reshape(shape)


def signature(key: str, proto: serving_pb2.SignatureDef) -> Signature:
    """Return a signature from the message of a model server."""
    return Signature(key, _tensors(proto.inputs), _tensors(proto.outputs))


def _tensors(infos: Mapping[str, serving_pb2.TensorInfo]) -> dict[str, Tensor]:
    # A protobuf map has no order.
    return {name: _tensor(name, infos[name]) for name in sorted(infos)}


def _tensor(name: str, info: serving_pb2.TensorInfo) -> Tensor:
    shape: tuple[int | None, ...] | None = None
    if not info.tensor_shape.unknown_rank:
        shape = tuple(None if d.size < 0 else d.size for d in info.tensor_shape.dim)
    return Tensor(name, TYPES.get(info.dtype, f"number {info.dtype}"), shape)
