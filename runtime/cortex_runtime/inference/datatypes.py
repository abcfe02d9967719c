"""The datatypes of the protocol: an element in bytes, in JSON and in numpy.

numpy has no bfloat16, so BF16 is a float32 array here, which holds every bfloat16. BYTES is an array of bytes objects; on the way
out also of str. Everything else is the numpy type of the same name. Bytes are little-endian.
"""

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

import numpy as np

from cortex_runtime.clients.conversion import BFLOAT16, NumberType, bfloat16_bits, bfloat16_numbers
from cortex_runtime.errors import UserError

BYTES, BF16 = "BYTES", "BF16"
_LENGTH = struct.Struct("<I")
_BLOCK = 16 * 1024
"""Elements of BYTES that are converted at a time. In between, other threads can run."""
_MAX_ITEMS = 2**48
"""A shape of more elements is refused before anything is multiplied further."""
_SHORT = 100
"""Elements of a list up to which the number of calls counts more than the elements."""
_SAFE = 2.0**53
"""Up to here, each integer is a float64."""
_CODES = {"f": "d", "i": "q", "u": "q"}
"""Formats of `struct` and numpy for the kinds of numpy's types."""


@dataclass(frozen=True)
class Datatype:
    """One datatype. dtype: of an element in bytes. size: of an element, in bytes. number: None for BYTES. is_plain: whether any
    bytes of the right number are a valid array of numpy.
    """

    name: str
    dtype: np.dtype
    size: int
    number: NumberType | None
    is_plain: bool = False


def _of(name: str, dtype: type[np.generic]) -> Datatype:
    little = np.dtype(dtype).newbyteorder("<")
    return Datatype(name, little, little.itemsize, NumberType.of(name, dtype), name != "BOOL")


DATATYPES = {
    each.name: each
    for each in (
        _of("BOOL", np.bool_),
        _of("UINT8", np.uint8),
        _of("UINT16", np.uint16),
        _of("UINT32", np.uint32),
        _of("UINT64", np.uint64),
        _of("INT8", np.int8),
        _of("INT16", np.int16),
        _of("INT32", np.int32),
        _of("INT64", np.int64),
        _of("FP16", np.float16),
        _of("FP32", np.float32),
        _of("FP64", np.float64),
        Datatype(BF16, np.dtype("<u2"), 2, replace(BFLOAT16, name=BF16)),
        Datatype(BYTES, np.dtype(object), 0, None),
    )
}
_BY_DTYPE = {
    each.dtype.newbyteorder("="): each.name for each in DATATYPES.values() if each.name not in (BF16, BYTES)
}


def datatype_of(dtype: np.dtype) -> str:
    """Return the datatype of a numpy type. Raises ValueError for a type that the protocol does not have."""
    name = _BY_DTYPE.get(dtype)
    if name is None:
        if dtype.kind in "OUS":
            return BYTES
        if dtype.name == "bfloat16":  # ml_dtypes
            return BF16
        name = _BY_DTYPE.get(dtype.newbyteorder("="))
    if name is None:
        raise ValueError(f"an array of {dtype} has no datatype in the Open Inference Protocol")
    return name


def count_of(shape: Sequence[int]) -> int:
    """Return the number of elements of a shape, which is a list of non-negative integers. Raises ValueError."""
    count = math.prod(shape)
    if count > _MAX_ITEMS:
        raise ValueError(f"shape {list(shape)} has too many elements")
    return count


def from_raw(datatype: Datatype, shape: Sequence[int], content: bytes | memoryview) -> np.ndarray:
    """Return the array in bytes; read-only where it shares their memory. Raises ValueError if shape and bytes do not match."""
    count = count_of(shape)
    if datatype.number is None:
        return _strings(memoryview(content), count).reshape(shape)
    size = len(content)
    if size != count * datatype.size:
        raise ValueError(
            f"{datatype.name} of shape {list(shape)} has {count * datatype.size} bytes, got {size}"
        )
    array: np.ndarray = np.frombuffer(content, datatype.dtype).reshape(shape)
    if array.flags.aligned and datatype.is_plain:
        return array
    if datatype.name == "BOOL":
        if array.view(np.uint8).max(initial=0) > 1:
            raise ValueError("each byte of BOOL must be 0 or 1")
        return array
    if datatype.name == BF16:
        return bfloat16_numbers(array)
    # Copied where an element would cross the boundary of its size, which native code need not support.
    return array if array.flags.aligned else array.copy()


def to_raw(datatype: Datatype, array: np.ndarray) -> bytes | memoryview:
    """Return the bytes of an array, in the order of its elements."""
    if datatype.number is None:
        return _join(array)
    if datatype.name == BF16:
        if array.dtype.name == "bfloat16":
            return array.tobytes()
        array = bfloat16_bits(array)
    return np.ascontiguousarray(array, datatype.dtype).reshape(-1).view(np.uint8).data


def from_json(datatype: Datatype, shape: Sequence[int], data: Any) -> np.ndarray:
    """Return the array of a JSON list: flat, or nested in the given shape.

    Raises ValueError if it does not have that shape, or holds a value that the datatype cannot represent.
    """
    count = count_of(shape)
    if not isinstance(data, list):
        raise ValueError("data must be a list")
    array = _texts(data) if datatype.number is None else _numbers(datatype.number, data)
    if array.size != count:
        raise ValueError(f"shape {list(shape)} has {count} elements, got {array.size}")
    if array.ndim != 1 and array.shape != tuple(shape) and count:
        raise ValueError(f"expected a flat list or lists nested as {list(shape)}, got {list(array.shape)}")
    return array.reshape(shape)


def to_json(datatype: Datatype, array: np.ndarray) -> Any:
    """Return the elements as a flat list, or as a flat array for orjson. Raises UserError for bytes that are not UTF-8."""
    flat = array.reshape(-1)
    if datatype.number is None:
        try:
            return [item if isinstance(item, str) else _as_bytes(item).decode() for item in flat.tolist()]
        except UnicodeDecodeError:
            raise UserError(
                "an output has bytes that are not UTF-8, which JSON cannot contain; request it with binary_data"
            ) from None
    if datatype.name == BF16:
        return np.ascontiguousarray(flat, np.float32)
    if flat.flags.c_contiguous and flat.dtype.isnative:
        return flat
    return np.ascontiguousarray(flat, flat.dtype.newbyteorder("="))


def _strings(content: memoryview, count: int) -> np.ndarray:
    """Return the elements of BYTES: each has its length in four bytes before it."""
    # Each element has at least four bytes, so a wrong count takes no memory.
    if count * _LENGTH.size > len(content):
        raise ValueError(
            f"{count} elements of BYTES have at least {count * _LENGTH.size} bytes, got {len(content)}"
        )
    array = np.empty(count, object)
    whole = content.tobytes()
    end, size, read = 0, len(whole), _LENGTH.unpack_from
    for begin in range(0, count, _BLOCK):
        rows = min(_BLOCK, count - begin)
        if rows >= _SHORT and (length := _common_length(whole, end, rows)) is not None:
            array[begin : begin + rows] = _of_length(whole, end, rows, length)
            end += rows * (4 + length)
            continue
        items: list[bytes] = []
        try:
            for _ in range(rows):
                start = end + 4
                end = start + read(whole, end)[0]
                items.append(whole[start:end])
        except struct.error:
            # Behind an element that reaches beyond the end, nothing can be read.
            if end <= size:
                place = begin + len(items)
                raise ValueError(f"the bytes end before element {place} of {count}") from None
        if end > size:
            place = begin + len(items) - 1
            raise ValueError(f"element {place} of BYTES reaches beyond the end")
        array[begin : begin + len(items)] = items
    if end != size:
        raise ValueError(f"{size - end} bytes follow the {count} elements of BYTES")
    return array


def _common_length(whole: bytes, start: int, rows: int) -> int | None:
    """Return the length of the elements that begin at a place, if the next ones all have the same length."""
    if start + 4 > len(whole):
        return None
    length: int = _LENGTH.unpack_from(whole, start)[0]
    size = rows * (4 + length)
    if start + size > len(whole):
        return None
    lengths = np.frombuffer(whole, np.uint8, size, start).reshape(rows, 4 + length)[:, :4]
    return length if (lengths == lengths[0]).all() else None


def _of_length(whole: bytes, start: int, rows: int, length: int) -> Any:
    """Return elements of one length as bytes objects: a list, or one for all."""
    if length == 0:
        return b""
    elements = np.ndarray(rows, f"V{length}", whole, start + 4, 4 + length)
    return elements.tolist()


def _join(array: np.ndarray) -> bytes:
    flat = array.reshape(-1)
    blocks: list[bytes] = []
    for begin in range(0, flat.size, _BLOCK):
        items = as_bytes(flat[begin : begin + _BLOCK])
        lengths = map(_LENGTH.pack, map(len, items))
        blocks.append(b"".join(chain.from_iterable(zip(lengths, items, strict=True))))
    return b"".join(blocks)


def as_bytes(array: np.ndarray) -> list[bytes]:
    """Return the elements of a BYTES array, in order."""
    return [_as_bytes(item) for item in array.reshape(-1).tolist()]


def _as_bytes(item: Any) -> bytes:
    if isinstance(item, bytes):
        return item
    if isinstance(item, str):
        return item.encode()
    if isinstance(item, bytearray | memoryview):
        return bytes(item)
    # As other servers do for arrays of objects.
    return str(item).encode()


def _numbers(number: NumberType, data: list[Any]) -> np.ndarray:
    """Return JSON numbers as an array. Raises ValueError.

    `number.convert` is right for every list. What it takes time for is done faster here for plain lists of numbers.
    """
    if len(data) < _SHORT:
        if number.dtype == np.float32 and not number.is_part:
            try:
                if min(data) >= -_SAFE and max(data) <= _SAFE:
                    return np.array(data, np.float32)
            except (TypeError, ValueError):
                pass
        elif data and type(data[0]) is list:
            return number.convert(_packed(number, data))
        return number.convert(data)
    return number.convert(_packed(number, data))


def _packed(number: NumberType, data: list[Any]) -> Any:
    """Return a list of numbers, or a list of such lists of one length, as an array; or unchanged if it is anything else."""
    code = _CODES.get(number.dtype.kind)
    if code is None:
        return data
    try:
        shape, flat = [len(data)], data
        if type(data[0]) is list:
            shape, flat = [len(data), len(data[0])], list(chain.from_iterable(data))
            if set(map(len, data)) != {shape[1]}:
                return data
        content = bytearray(len(flat) * 8)
        # Takes a third of the time of `np.array`, and converts neither text nor lists.
        struct.pack_into(f"{len(flat)}{code}", content, 0, *flat)
    except (struct.error, TypeError, OverflowError):
        return data
    array: np.ndarray = np.frombuffer(content, f"{code}")
    if code == "d" and np.abs(array).max(initial=0) > _SAFE:
        # Larger integers were rounded, and would be rounded again.
        return data
    return array.reshape(shape)


def _texts(data: list[Any]) -> np.ndarray:
    """Return JSON strings as an array of bytes objects."""
    try:
        given = np.array(data, object)
    except ValueError:
        raise ValueError("its lists differ in length") from None
    array = np.empty(given.size, object)
    for place, item in enumerate(given.reshape(-1).tolist()):
        if not isinstance(item, str):
            raise ValueError(
                "its lists differ in length"
                if isinstance(item, list)
                else f"expected strings, got {item!r:.40}"
            )
        array[place] = item.encode()
    return array.reshape(given.shape)
