"""Convert values of a request to arrays of a model's types: exactly, or rounded to the nearest number of a float type.

A conversion that would change a number (a fraction to an integer, an integer out of range, text to a number) raises ValueError.
"""

import difflib
import sys
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from numbers import Integral, Real
from typing import Any

import numpy as np

from cortex_runtime.errors import UserError

_EXACT = 2**53 - 1
"""The largest integer up to which each float64 stands for one integer. A larger float in a request may have been rounded."""

_KINDS = {
    "U": "text",
    "S": "bytes",
    "T": "text",
    "b": "booleans",
    "f": "numbers with fractions",
    "c": "complex numbers",
    "M": "dates",
    "m": "durations",
    "V": "records",
}
_NUMPY = "?bhilqpBHILQPefdgFDGOUSMm"
"""Type codes of numpy's own types."""
_SMALL_TYPES = ("bfloat16", "float8_", "float6_", "float4_", "int4", "int2", "uint4", "uint2")
"""Prefixes of the types of ml_dtypes. Each fits into float32 or int8/uint8."""


@dataclass(frozen=True)
class NumberType:
    """A number type of a model.

    dtype: the numpy type of its values here. low, high: bounds of an integer type. largest: the largest number of a float type
    that is smaller than `dtype`. is_part: whether `dtype` holds more values than the type.
    """

    name: str
    dtype: np.dtype
    low: int = 0
    high: int = 0
    largest: float | None = None
    is_part: bool = False

    @classmethod
    def of(
        cls, name: str, dtype: type[np.generic], low: int | None = None, high: int | None = None
    ) -> "NumberType":
        """Return the type whose values are those of a numpy type, or a range of its integers."""
        carrier = np.dtype(dtype)
        if carrier.kind not in "iu":
            return cls(name, carrier)
        limits = np.iinfo(carrier)
        if low is None or high is None:
            return cls(name, carrier, int(limits.min), int(limits.max))
        return cls(name, carrier, low, high, is_part=True)

    def convert(self, value: Any) -> np.ndarray:
        """Return a value (an array, nested lists, a number) as an array of `dtype`. Raises ValueError for a value that does not
        fit."""
        if isinstance(value, np.ndarray):
            given = _without_mask(value)
            if given.dtype == self.dtype and not self.is_part:
                return given
        else:
            given = _read(value)
        if not given.size:
            return given.astype(self.dtype)
        if given.dtype.char not in _NUMPY and given.dtype.name.startswith(_SMALL_TYPES):
            given = given.astype(np.float32 if "float" in given.dtype.name else np.int8)
        kind = given.dtype.kind
        if kind == "O":
            return self._exactly(given)
        if self.dtype.kind == "f":
            return self._as_floats(given) if kind in "fiub" else self._refuse(kind)
        if self.dtype.kind in "iu":
            return self._as_integers(given, value)
        if self.dtype.kind == "b":
            return self._as_booleans(given)
        return given.astype(self.dtype) if kind in "cfiub" else self._refuse(kind)

    def _as_floats(self, given: np.ndarray) -> np.ndarray:
        if given.dtype == self.dtype:
            array = given
        else:
            try:
                with np.errstate(over="raise"):
                    array = given.astype(self.dtype)
            except FloatingPointError:
                raise ValueError(f"{_largest(given)} does not fit into {self.name}") from None
        if self.largest is not None:
            finite = array[np.isfinite(array)]
            if finite.size and np.abs(finite).max() > self.largest:
                raise ValueError(f"{_largest(finite)} does not fit into {self.name}")
        return array

    def _as_integers(self, given: np.ndarray, value: Any) -> np.ndarray:
        kind = given.dtype.kind
        if kind == "b":
            return given.astype(self.dtype)
        if kind == "f":
            whole = np.isfinite(given) & (given == np.trunc(given))
            if not whole.all():
                raise ValueError(f"expected whole numbers, got {given[~whole].flat[0]}")
            if not isinstance(value, np.ndarray) and np.abs(given).max() > _EXACT:
                # numpy converts integers that fit no single type to floats, which loses digits.
                return self._exactly(np.asarray(value, object))
        elif kind not in "iu":
            self._refuse(kind)
        low, high = int(given.min()), int(given.max())
        if low < self.low or high > self.high:
            raise ValueError(f"{low if low < self.low else high} does not fit into {self.name}")
        return given.astype(self.dtype)

    def _as_booleans(self, given: np.ndarray) -> np.ndarray:
        if given.dtype.kind in "iu":
            if given.min() >= 0 and given.max() <= 1:
                return given.astype(bool)
            raise ValueError("expected true, false, 0 or 1")
        return given if given.dtype.kind == "b" else self._refuse(given.dtype.kind)

    def _exactly(self, given: np.ndarray) -> np.ndarray:
        """Convert Python objects one by one."""
        kind = self.dtype.kind
        read = {"b": self._boolean, "c": self._complex, "f": self._float}.get(kind, self._integer)
        array = np.empty(given.size, self.dtype if kind not in "f" else np.float64)
        for place, item in enumerate(given.flat):
            array[place] = read(item.item() if isinstance(item, np.generic) else item)
        whole = array.reshape(given.shape)
        return self._as_floats(whole) if kind == "f" else whole

    def _integer(self, item: Any) -> int:
        if isinstance(item, float) and abs(item) > _EXACT:
            raise ValueError(f"{item} may have been rounded; send it without fraction and exponent")
        if isinstance(item, Integral | Decimal | Fraction | float):
            if not isinstance(item, Integral) and (not _is_finite(item) or item != int(item)):
                raise ValueError(f"expected whole numbers, got {item}")
            number = int(item)
            if not self.low <= number <= self.high:
                raise ValueError(f"{_short(number)} does not fit into {self.name}")
            return number
        raise ValueError(_unexpected(item))

    def _float(self, item: Any) -> float:
        if not isinstance(item, Real | Decimal):
            raise ValueError(_unexpected(item))
        try:
            number = float(item)
        except OverflowError:
            number = float("inf")
        if not _is_finite(number) and _is_finite(item):
            raise ValueError(f"{_short(item)} does not fit into {self.name}")
        return number

    def _complex(self, item: Any) -> complex:
        return item if isinstance(item, complex) else complex(self._float(item))

    def _boolean(self, item: Any) -> bool:
        if isinstance(item, Integral):
            if item in (0, 1):
                return bool(item)
            raise ValueError("expected true, false, 0 or 1")
        raise ValueError(_unexpected(item))

    def _refuse(self, kind: str) -> np.ndarray:
        raise ValueError(f"expected {_wanted(self.dtype.kind)}, got {_KINDS.get(kind, kind)}")


def bfloat16_bits(array: np.ndarray) -> np.ndarray:
    """Return the upper halves of float32 numbers, rounded to nearest, ties to even."""
    bits = np.ascontiguousarray(array, np.float32).view(np.uint32)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    return np.where(np.isnan(array), 0x7FC0, rounded).astype("<u2")


def bfloat16_numbers(bits: np.ndarray) -> np.ndarray:
    """Return float32 numbers from their upper halves."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


BFLOAT16 = NumberType(
    "bfloat16", np.dtype(np.float32), largest=float(np.uint32(0x7F7F7FFF).view(np.float32)), is_part=True
)
"""The last float32 that is rounded to a finite bfloat16."""


def text_array(value: Any) -> np.ndarray:
    """Return text, nested lists or an array of text as an array of str objects; bytes are decoded as UTF-8. Raises ValueError."""
    given = object_array(value)
    array = np.empty(given.size, object)
    for place, item in enumerate(given.flat):
        if isinstance(item, bytes):
            item = item.decode()
        if not isinstance(item, str):
            raise ValueError(_unexpected(item, "text"))
        # An unpaired surrogate raises UnicodeEncodeError, which is a ValueError.
        item.encode()
        array[place] = str(item)
    return array.reshape(given.shape)


def check_names(given: Mapping[Any, Any], required: Collection[str], optional: Collection[str] = ()) -> None:
    """Check that a mapping names the inputs of a model. Raises UserError, which lists the inputs and similar names."""
    known = [*required, *optional]
    missing = [name for name in required if name not in given]
    unknown = [name for name in given if name not in required and name not in optional]
    if not missing and not unknown:
        return
    words = []
    if missing:
        words.append(f"missing input {', '.join(missing)}")
    if unknown:
        words.append(f"unknown input {', '.join(str(name) for name in unknown[:10])}")
    close = [
        match
        for name in unknown[:10]
        for match in difflib.get_close_matches(str(name)[:100], missing or known, 1)
    ]
    meant = f"; did you mean {', '.join(dict.fromkeys(close))}?" if close else ""
    raise UserError(f"{' and '.join(words)} (the model takes {', '.join(known) or 'no input'}){meant}")


def _read(value: Any) -> np.ndarray:
    try:
        return np.asarray(value)
    except ValueError as error:
        raise ValueError(_ragged(error)) from error


def object_array(value: Any) -> np.ndarray:
    """Return nested lists or an array as an array of Python objects. Raises ValueError."""
    try:
        return _without_mask(np.asanyarray(value, dtype=object))
    except ValueError as error:
        raise ValueError(_ragged(error)) from error


def _ragged(error: ValueError) -> str:
    return "its lists differ in length" if "inhomogeneous" in str(error) else str(error)


def _without_mask(array: np.ndarray) -> np.ndarray:
    if type(array) is np.ndarray:
        return array
    masked = sys.modules.get("numpy.ma")
    if masked is not None and isinstance(array, masked.MaskedArray) and masked.is_masked(array):
        raise ValueError("it has masked values")
    return np.asarray(array)


def _wanted(kind: str) -> str:
    return {"b": "booleans", "i": "whole numbers", "u": "whole numbers"}.get(kind, "numbers")


def _unexpected(item: Any, wanted: str = "numbers") -> str:
    if item is None:
        return f"expected {wanted}, got null"
    if isinstance(item, list | tuple):
        return "its lists differ in length"
    name = type(item).__name__
    return f"expected {wanted}, got {'text' if name == 'str' else name}"


def _is_finite(number: Any) -> bool:
    if isinstance(number, Decimal):
        return number.is_finite()
    return isinstance(number, Integral | Fraction) or float("-inf") < number < float("inf")


def _largest(given: np.ndarray) -> Any:
    """Return the number with the largest absolute value."""
    return given.flat[np.abs(given.astype(np.longdouble, copy=False)).argmax()]


def _short(number: Any) -> str:
    try:
        text = str(number)
    except ValueError:
        return "an integer of thousands of digits"
    return text if len(text) <= 40 else f"{text[:20]}... ({len(text)} characters)"
