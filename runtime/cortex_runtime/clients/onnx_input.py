"""The inputs of an ONNX model: their types and shapes, and the conversion of a value to the array that the model expects."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np

from cortex_runtime.clients.conversion import NumberType, text_array
from cortex_runtime.errors import UserError

NUMBERS = {
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
"""The types that numpy has, by the name that onnxruntime uses. `onnx_dtypes` has the others."""
STRING = "tensor(string)"
TYPES = {**{number.name: number for number in NUMBERS.values()}, "str_": None}
"""The same types by numpy's name; None for text."""


@dataclass(frozen=True)
class Input:
    """One input of a model.

    shape: an integer for a fixed dimension, a name or None for a free one; None as a whole if any rank is allowed.
    number: None for text. packed: the conversion of a type that numpy does not have. optional: whether the model has a default.
    """

    name: str
    shape: tuple[int | str | None, ...] | None
    number: NumberType | None
    packed: Any = None
    optional: bool = False
    _dtype: np.dtype | None = field(init=False, repr=False, compare=False)
    """The dtype of an array that needs no conversion."""
    _fixed: tuple[tuple[int, int], ...] = field(init=False, repr=False, compare=False)
    """Axis and size of each fixed dimension."""

    def __post_init__(self) -> None:
        exact = self.number is not None and not self.number.is_part
        object.__setattr__(self, "_dtype", self.number.dtype if exact else None)  # type: ignore[union-attr]
        fixed = ((axis, size) for axis, size in enumerate(self.shape or ()) if isinstance(size, int))
        object.__setattr__(self, "_fixed", tuple(fixed))

    def convert(self, value: Any) -> np.ndarray:
        """Return a value as an array of the input's type and shape.

        If at most one dimension is free, lists that are flat, or nested more or less deeply, are reshaped. Raises UserError,
        which names the input.
        """
        if type(value) is np.ndarray and value.dtype is self._dtype and self._has_shape(value.shape):
            return value
        try:
            array = text_array(value) if self.number is None else self.number.convert(value)
        except (ValueError, TypeError, OverflowError) as error:
            raise UserError(
                f'input "{self.name}" can\'t be read as {self.type_name} of shape {self.shape_text}: {error}'
            ) from error
        if self.shape is None or self._has_shape(array.shape):
            return array
        target = _reshaped(array.shape, self.shape)
        if target is None:
            raise UserError(f'input "{self.name}": expected shape {self.shape_text}, got {list(array.shape)}')
        return array.reshape(target)

    def _has_shape(self, shape: tuple[int, ...]) -> bool:
        """Return whether an array of this shape needs no reshaping."""
        expected = self.shape
        if expected is None:
            return True
        if len(shape) != len(expected):
            return False
        for axis, size in self._fixed:  # noqa: SIM110 (on the request path, where a generator costs more)
            if shape[axis] != size:
                return False
        return True

    @property
    def type_name(self) -> str:
        """numpy's name of the type; ONNX's name if numpy does not have the type."""
        return "str_" if self.number is None else self.number.name

    @property
    def shape_text(self) -> str:
        """The shape, for messages."""
        if self.shape is None:
            return "any"
        return "[" + ", ".join("?" if size is None else str(size) for size in self.shape) + "]"


def _reshaped(given: Sequence[int], expected: tuple[int | str | None, ...]) -> tuple[int, ...] | None:
    """Return the shape to which values of the shape `given` are reshaped, or None if they do not match.

    Dimensions may be split, or joined, but not both: [3, 2] is never read as [2, 3].
    """
    free = [axis for axis, size in enumerate(expected) if not isinstance(size, int)]
    fixed = prod(size for size in expected if isinstance(size, int))
    count = prod(given)
    if len(free) > 1:
        # Values without the free dimensions have 1 in each, as in Cortex up to 0.20.
        target = tuple(size if isinstance(size, int) else 1 for size in expected)
        matches = [size for size in given if size != 1] == [size for size in target if size != 1]
        return target if matches else None
    if count % fixed if fixed and free else count != fixed:
        return None
    if free and not fixed:
        return None
    target = tuple(size if isinstance(size, int) else count // fixed for size in expected)
    return target if _splits(given, target) or _splits(target, given) else None


def _splits(coarse: Sequence[int], fine: Sequence[int]) -> bool:
    """Return whether each dimension of `coarse` is the product of adjacent dimensions of `fine`, apart from ones."""
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
