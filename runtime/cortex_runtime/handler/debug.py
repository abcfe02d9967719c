"""`?debug=true`: what a request looks like at each stage, in the log. Only where spec.handler.debug allows it, since that
puts payloads there; lists and strings are cut.
"""

import logging
from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any

from cortex_runtime.arrays import is_array, is_scalar
from cortex_runtime.logs.tracebacks import in_one_line

showing: ContextVar[bool] = ContextVar("showing", default=False)
"""Whether the stages of the request that is handled are to be shown."""

MOST_ITEMS, MOST_CHARACTERS, DEEPEST = 10, 500, 6

_log = logging.getLogger("cortex.debug")


def show(stage: str, value: Any) -> None:
    """Log a value, if the request asked for it. stage: sample, pre_inference, inference, post_inference or prediction."""
    if showing.get():
        try:
            shown = short(value)
        except Exception as error:
            # An object of the user's that can't be shown must not fail the request.
            shown = f"<{type(value).__name__} that can't be shown: {in_one_line(error)}>"
        _log.info("debug: %s", stage, extra={"stage": stage, "value": shown})


def short(value: Any, depth: int = 0) -> Any:
    """A value with long lists and strings cut, as far as JSON goes; anything else as its repr, cut as well."""
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, str):
        return (
            value
            if len(value) <= MOST_CHARACTERS
            else f"{value[:MOST_CHARACTERS]}... ({len(value)} characters)"
        )
    if isinstance(value, bytes | bytearray | memoryview):
        return f"{bytes(value[:50])!r} ({len(value)} bytes)"
    if depth >= DEEPEST:
        return "..."
    if is_scalar(value):
        return short(value.item(), depth)
    if is_array(value):
        return {
            "shape": list(value.shape),
            "dtype": str(value.dtype),
            "values": short(value.flat[:MOST_ITEMS].tolist()),
        }
    if isinstance(value, Mapping):
        items = [(str(short(key)), short(item, depth + 1)) for key, item in list(value.items())[:MOST_ITEMS]]
        more = {"...": f"{len(value) - MOST_ITEMS} more"} if len(value) > MOST_ITEMS else {}
        return {**dict(items), **more}
    if isinstance(value, list | tuple):
        cut = [short(item, depth + 1) for item in value[:MOST_ITEMS]]
        return [*cut, f"... {len(value) - MOST_ITEMS} more"] if len(value) > MOST_ITEMS else cut
    return short(repr(value), depth)
