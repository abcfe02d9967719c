"""`?debug=true`: log a request at each stage. Requires spec.handler.debug, because payloads are logged.

Long lists and strings are truncated.
"""

import logging
from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any

from cortex_runtime.arrays import is_array, is_scalar
from cortex_runtime.logs.tracebacks import in_one_line

showing: ContextVar[bool] = ContextVar("showing", default=False)
"""Whether the stages of the current request are logged."""

_MAX_ITEMS, _MAX_CHARACTERS, _MAX_DEPTH = 10, 500, 6

_log = logging.getLogger("cortex.debug")


def log_stage(stage: str, value: Any) -> None:
    """Log a value if debugging is on for the request.

    stage: sample, pre_inference, inference, post_inference or prediction.
    """
    if showing.get():
        try:
            shown = _truncated(value)
        except Exception as error:
            # A user's object without a working repr() must not fail the request.
            shown = f"<{type(value).__name__}, whose repr() failed: {in_one_line(error)}>"
        _log.info("debug: %s", stage, extra={"stage": stage, "value": shown})


def _truncated(value: Any, depth: int = 0) -> Any:
    """Return a JSON value with long lists and strings truncated. Other objects become their truncated repr()."""
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, str):
        return (
            value
            if len(value) <= _MAX_CHARACTERS
            else f"{value[:_MAX_CHARACTERS]}... ({len(value)} characters)"
        )
    if isinstance(value, bytes | bytearray | memoryview):
        return f"{bytes(value[:50])!r} ({len(value)} bytes)"
    if depth >= _MAX_DEPTH:
        return "..."
    if is_scalar(value):
        return _truncated(value.item(), depth)
    if is_array(value):
        return {
            "shape": list(value.shape),
            "dtype": str(value.dtype),
            "values": _truncated(value.flat[:_MAX_ITEMS].tolist()),
        }
    if isinstance(value, Mapping):
        items = [
            (str(_truncated(key)), _truncated(item, depth + 1))
            for key, item in list(value.items())[:_MAX_ITEMS]
        ]
        more = {"...": f"{len(value) - _MAX_ITEMS} more"} if len(value) > _MAX_ITEMS else {}
        return {**dict(items), **more}
    if isinstance(value, list | tuple):
        cut = [_truncated(item, depth + 1) for item in value[:_MAX_ITEMS]]
        return [*cut, f"... {len(value) - _MAX_ITEMS} more"] if len(value) > _MAX_ITEMS else cut
    return _truncated(repr(value), depth)
