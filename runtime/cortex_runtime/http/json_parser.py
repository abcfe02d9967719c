"""JSON to Python's values. Integers keep all their digits, which orjson alone doesn't do beyond 64 bits."""

import json
import re
import sys
from typing import Any

import orjson

_DIGITS = bytes(48 if 48 <= byte <= 57 else 32 for byte in range(256))
_RUN = b"0" * 19
"""An integer of fewer digits fits into 64 bits."""
_STEP = 9
"""Of bytes this far apart a run of 19 digits has two in a row."""
_LARGE = 64 * 1024
_BEYOND_64_BITS = re.compile(rb"(?<![\d.])(?:\d{20}|(?<=-)\d{19})")
"""What may be such an integer; also digits in a string, and of numbers with an exponent."""
_HIGH_HALVES, _DIGITS_HIGH = 0xF0F0F0F0, 0x30303030


def loads(body: bytes) -> Any:
    """The value of a JSON text. Raises ValueError, also for numbers that are larger than a float64 can be."""
    value = orjson.loads(body)
    if len(body) < _LARGE:
        if _RUN not in body.translate(_DIGITS) or _BEYOND_64_BITS.search(body) is None:
            return value
    elif not _has_large_integers(body):
        return value
    # orjson has checked the text, and made floats of the integers that are too large for it.
    try:
        return json.loads(body)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _has_large_integers(body: bytes) -> bool:
    """Whether a large text may have integers of more than 64 bits. Takes a tenth of the time that parsing takes."""
    if "numpy" not in sys.modules and b"00" not in body[::_STEP].translate(_DIGITS):
        return False
    # Ten times as quick as bytes' methods; a body this large, and full of digits, is worth the import.
    import numpy as np

    # A run of 19 has four times four digits at places that are multiples of four. Digits are 0x30 to 0x39.
    runs = (np.frombuffer(body, np.uint32, len(body) // 4) & _HIGH_HALVES) == _DIGITS_HIGH
    runs = runs[:-1] & runs[1:]
    if not (runs[:-2] & runs[2:]).any():
        return False
    digits = (np.frombuffer(body, np.uint8) - 48) < 10
    for length in (1, 2, 4, 8, 3):
        digits = digits[:-length] & digits[length:]
    starts = np.flatnonzero(digits[1:] & ~digits[:-1]) + 1
    return bool(digits[0]) or any(_BEYOND_64_BITS.match(body, start) for start in starts.tolist())
