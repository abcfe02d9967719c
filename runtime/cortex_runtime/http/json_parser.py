"""JSON to Python's values. Integers keep all their digits."""

import sys
from typing import Any

import msgspec
import orjson

_decode = msgspec.json.Decoder().decode
_LARGE, _WORTH_IMPORT = 16 * 1024, 64 * 1024
"""Bytes of a body from which orjson is faster than msgspec, although the body must be searched before; and from which on that is
worth the import of numpy."""
_TOO_DEEP = "it is nested too deeply; the limit is about 1000 levels"
_HIGH_HALVES, _DIGITS_HIGH = 0xF0F0F0F0, 0x30303030


def loads(body: bytes) -> Any:
    """Return the value of a JSON text. Raises ValueError, also for numbers beyond the range of a float64."""
    searched = _LARGE if "numpy" in sys.modules else _WORTH_IMPORT
    if len(body) >= searched and not _may_have_large_integers(body):
        try:
            return orjson.loads(body)
        except ValueError as error:
            if str(error).startswith("depth limit"):
                raise ValueError(_TOO_DEEP) from None
            raise
    try:
        return _decode(body)
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None
    except ValueError:
        orjson.loads(body)  # Its error names the line and the column.
        raise


def _may_have_large_integers(body: bytes) -> bool:
    """Return whether a text may have integers of more than 64 bits, which orjson turns into floats. They have 19 digits or more,
    and so four aligned words of four digits. Digits are 0x30 to 0x39.
    """
    import numpy as np

    words = (np.frombuffer(body, np.uint32, len(body) // 4) & _HIGH_HALVES) == _DIGITS_HIGH
    pairs = words[:-1] & words[1:]
    return bool((pairs[:-2] & pairs[2:]).any())
