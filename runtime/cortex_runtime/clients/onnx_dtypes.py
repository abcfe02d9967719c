"""Types of ONNX that numpy does not have, as types that it has, and as the bits of onnxruntime.

bfloat16 and the 8-bit floats are float32 here, the integers of 2 and 4 bits are int8 and uint8. No value is lost.
"""

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnxruntime

from cortex_runtime.clients.conversion import BFLOAT16, NumberType, bfloat16_bits, bfloat16_numbers


@dataclass(frozen=True)
class PackedType:
    """One type. code: its number in ONNX. encode: converts an array to unsigned integers of `bits` bits. decode: the inverse."""

    number: NumberType
    code: int
    bits: int
    encode: Callable[[np.ndarray], np.ndarray]
    decode: Callable[[np.ndarray], np.ndarray]

    def to_ort(self, array: np.ndarray) -> Any:
        """Return an array from `NumberType.convert` as an OrtValue. Raises ValueError for a number that does not fit."""
        value = onnxruntime.OrtValue.ortvalue_from_shape_and_type(list(array.shape), self.code)
        content = self._pack(self.encode(array.ravel())).tobytes()
        ctypes.memmove(value.data_ptr(), content, len(content))
        return value

    def from_ort(self, value: Any) -> np.ndarray:
        """Return the numbers of an OrtValue in the memory of this machine."""
        shape = tuple(value.shape())
        count = int(np.prod(shape, dtype=np.int64))
        content = ctypes.string_at(value.data_ptr(), -(-count * self.bits // 8)) if count else b""
        return self.decode(self._unpack(content, count)).reshape(shape)

    def _pack(self, codes: np.ndarray) -> np.ndarray:
        if self.bits >= 8:
            return codes
        each = 8 // self.bits
        padded = np.zeros(-(-len(codes) // each) * each, np.uint8)
        padded[: len(codes)] = codes
        shifts = np.arange(each, dtype=np.uint8) * np.uint8(self.bits)
        return np.bitwise_or.reduce(padded.reshape(-1, each) << shifts, axis=1).astype(np.uint8)

    def _unpack(self, content: bytes, count: int) -> np.ndarray:
        if self.bits >= 8:
            return np.frombuffer(content, np.uint16 if self.bits == 16 else np.uint8)
        shifts = np.arange(8 // self.bits, dtype=np.uint8) * np.uint8(self.bits)
        parts = np.frombuffer(content, np.uint8)[:, None] >> shifts
        return (parts & np.uint8(2**self.bits - 1)).ravel()[:count]


def _floats(
    name: str, code: int, exponent_bits: int, bias: int, *, ieee: bool = False, fnuz: bool = False
) -> PackedType:
    """Return a signed 8-bit float type. ieee: the last exponent encodes infinity and NaN. fnuz: -0 does not exist, and its code
    is NaN."""
    mantissa_bits = 7 - exponent_bits
    magnitudes = np.empty(128)
    for bits in range(128):
        exponent, mantissa = bits >> mantissa_bits, bits & (2**mantissa_bits - 1)
        fraction = mantissa / 2**mantissa_bits
        magnitudes[bits] = (
            (1 + fraction) * 2.0 ** (exponent - bias) if exponent else fraction * 2.0 ** (1 - bias)
        )
    last = 2**exponent_bits - 1
    if ieee:
        magnitudes[last << mantissa_bits] = np.inf
        magnitudes[(last << mantissa_bits) + 1 :] = np.nan
    elif not fnuz:
        magnitudes[127] = np.nan
    table = np.concatenate([magnitudes, -magnitudes]).astype(np.float32)
    if fnuz:
        table[128] = np.nan
    finite = magnitudes[np.isfinite(magnitudes)]
    middles = (finite[:-1] + finite[1:]) / 2
    step = finite[-1] - finite[-2]
    nan = 128 if fnuz else 127

    def encode(array: np.ndarray) -> np.ndarray:
        if np.isinf(array).any() and not ieee:
            raise ValueError(f"infinity does not fit into {name}")
        size = np.abs(array.astype(np.float64))
        codes = np.searchsorted(middles, np.where(np.isnan(size), 0, size))
        # A number halfway between two is rounded to the even code.
        tie = (codes < len(middles)) & (middles[np.minimum(codes, len(middles) - 1)] == size)
        codes = codes + (tie & (codes % 2 == 1))
        codes = np.where(np.isinf(size), last << mantissa_bits, codes)
        negative = np.signbit(array) & ~(fnuz & (codes == 0))
        return np.where(np.isnan(array), nan, codes + 128 * negative).astype(np.uint8)

    # Numbers up to half a step above the largest are rounded to it; at half a step the even code is used.
    limit = finite[-1] + step / 2
    if (len(finite) - 1) % 2:
        limit = float(np.nextafter(np.float32(limit), np.float32(0)))
    number = NumberType(name, np.dtype(np.float32), largest=float(limit), is_part=True)
    return PackedType(number, code, 8, encode, lambda bits: table[bits])


def _powers() -> PackedType:
    """Return the powers of two from 2**-127 to 2**127."""
    table = np.concatenate([2.0 ** np.arange(-127, 128), [np.nan]])
    name = "float8e8m0"

    def encode(array: np.ndarray) -> np.ndarray:
        size = array.astype(np.float64)
        number = ~np.isnan(size)
        if (size[number] <= 0).any() or np.isinf(size).any():
            raise ValueError(f"{name} holds only powers of two from 2**-127 to 2**127")
        codes = np.searchsorted((table[:254] + table[1:255]) / 2, np.where(number, size, 1), side="right")
        return np.where(number, codes, 255).astype(np.uint8)

    number = NumberType(
        name,
        np.dtype(np.float32),
        largest=float(np.nextafter(np.float32(table[254] * 1.5), np.float32(0))),
        is_part=True,
    )
    return PackedType(number, 24, 8, encode, lambda bits: table[bits].astype(np.float32))


def _integers(name: str, code: int, bits: int, *, signed: bool) -> PackedType:
    low = -(2 ** (bits - 1)) if signed else 0
    high = low + 2**bits - 1
    number = NumberType.of(name, np.int8 if signed else np.uint8, low, high)
    mask = np.uint8(2**bits - 1)

    def encode(array: np.ndarray) -> np.ndarray:
        return array.astype(np.uint8) & mask

    def decode(codes: np.ndarray) -> np.ndarray:
        if not signed:
            return codes.astype(np.uint8)
        shift = 8 - bits
        return (codes << np.uint8(shift)).astype(np.uint8).view(np.int8) >> np.int8(shift)

    return PackedType(number, code, bits, encode, decode)


TYPES = {
    f"tensor({each.number.name})": each
    for each in (
        PackedType(BFLOAT16, 16, 16, bfloat16_bits, bfloat16_numbers),
        _floats("float8e4m3fn", 17, 4, 7),
        _floats("float8e4m3fnuz", 18, 4, 8, fnuz=True),
        _floats("float8e5m2", 19, 5, 15, ieee=True),
        _floats("float8e5m2fnuz", 20, 5, 16, fnuz=True),
        _powers(),
        _integers("uint4", 21, 4, signed=False),
        _integers("int4", 22, 4, signed=True),
        _integers("uint2", 25, 2, signed=False),
        _integers("int2", 26, 2, signed=True),
    )
}
"""The types by onnxruntime's name."""
