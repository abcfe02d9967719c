"""numpy's types, without importing numpy: that takes as long as half of what a process needs to start, and who has a value of it
has imported it."""

import sys
from typing import Any


def is_array(value: Any) -> bool:
    """Whether a value is a numpy.ndarray."""
    return _is(value, "ndarray")


def is_scalar(value: Any) -> bool:
    """Whether a value is a single number, bool or string of numpy's."""
    return _is(value, "generic")


def is_bool(value: Any) -> bool:
    """Whether a value is a bool, Python's or numpy's."""
    return isinstance(value, bool) or _is(value, "bool_")


def _is(value: Any, name: str) -> bool:
    # Half imported, by another thread, numpy has no types yet.
    kind = getattr(sys.modules.get("numpy"), name, None)
    return kind is not None and isinstance(value, kind)
