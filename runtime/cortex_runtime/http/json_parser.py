"""JSON to Python's values. Integers keep all their digits; orjson alone turns those beyond 64 bits into floats."""

import json
import re
import sys
from typing import Any

import orjson

_BEYOND_64_BITS = re.compile(rb"(?<![\d.])(?:\d{20}|(?<=-)\d{19})")
"""What may be an integer that does not fit into 64 bits; also digits in a string, or a number with an exponent."""
_SHORTEST = 19
"""Digits of the shortest such integer."""
_RUN = b"0" * _SHORTEST
_DIGITS_AS_ZEROS = bytes(48 if 48 <= byte <= 57 else 32 for byte in range(256))
_STEP = 9
"""A run of 19 digits contains two in a row of the bytes that are this far apart."""
_SMALL, _LARGE = 16 * 1024, 64 * 1024
"""Bytes from which on numpy is faster than the methods of bytes, and from which on it is worth its import."""
_HIGH_HALVES, _DIGITS_HIGH = 0xF0F0F0F0, 0x30303030


def loads(body: bytes) -> Any:
    """Return the value of a JSON text. Raises ValueError, also for numbers beyond the range of a float64."""
    # Searched first: a large body is still in the cache of the CPU.
    if len(body) < (_SMALL if "numpy" in sys.modules else _LARGE):
        has_large = _has_large_integers(body)
    else:
        has_large = _large_body_has_large_integers(body)
    value = orjson.loads(body)
    if not has_large:
        return value
    # orjson has validated the text, and made floats of the integers that are too large for it.
    try:
        return json.loads(body)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _has_large_integers(body: bytes) -> bool:
    """Return whether a text may have integers of more than 64 bits."""
    zeros = body.translate(_DIGITS_AS_ZEROS)
    place = zeros.find(_RUN)
    while place >= 0:
        if _BEYOND_64_BITS.match(body, place):
            return True
        place = zeros.find(_RUN, place + _SHORTEST)
    return False


def _large_body_has_large_integers(body: bytes) -> bool:
    """Do the same for a large body, in a tenth of the time."""
    if "numpy" not in sys.modules and b"00" not in body[::_STEP].translate(_DIGITS_AS_ZEROS):
        return False
    import numpy as np

    # A run of 19 digits contains four aligned words of four digits. Digits are 0x30 to 0x39.
    runs = (np.frombuffer(body, np.uint32, len(body) // 4) & _HIGH_HALVES) == _DIGITS_HIGH
    runs = runs[:-1] & runs[1:]
    if not (runs[:-2] & runs[2:]).any():
        return False
    codes = np.frombuffer(body, np.uint8)
    digits = (codes - 48) < 10
    runs = digits
    for length in (1, 2, 4, 8, 3):
        runs = runs[:-length] & runs[length:]
    if runs[0]:
        return True
    starts = np.flatnonzero(runs[1:] & ~digits[: len(runs) - 1]) + 1
    before, end = codes[starts - 1], starts + _SHORTEST
    is_longer = digits[np.minimum(end, len(body) - 1)] & (end < len(body))
    return bool(((before == ord("-")) | (is_longer & (before != ord(".")))).any())
