"""Checks for numpy's types that do not import numpy. The import takes half of the start of a process, and a value of these
types exists only in a process that has imported it."""

import sys
from typing import Any


def is_array(value: Any) -> bool:
    """Return whether a value is a numpy.ndarray."""
    return _is(value, "ndarray")


def is_scalar(value: Any) -> bool:
    """Return whether a value is a single number, bool or string of numpy's."""
    return _is(value, "generic")


def is_bool(value: Any) -> bool:
    """Return whether a value is a bool, Python's or numpy's."""
    return isinstance(value, bool) or _is(value, "bool_")


def _is(value: Any, name: str) -> bool:
    # While another thread imports numpy, it has no types yet.
    kind = getattr(sys.modules.get("numpy"), name, None)
    return kind is not None and isinstance(value, kind)
