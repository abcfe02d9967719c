"""Inputs of several requests as one, and its outputs as several: rows one below the other, where a model takes any number.

Pure functions over arrays; for ONNX models that are served without a class and with serverSideBatching.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cortex_runtime.clients.conversion import check_names
from cortex_runtime.clients.onnx import TYPES, Input
from cortex_runtime.errors import UserError

Feed = dict[str, np.ndarray]


def inputs_of(signature: Mapping[str, Any]) -> list[Input] | None:
    """The inputs of a model if it takes any number of rows in each, and returns as many in each output; else None.

    signature: as a client gives it. A model with optional inputs is none of these, since their values apply to all rows.
    """
    for each in signature["outputs"].values():
        if not each["shape"] or isinstance(each["shape"][0], int):
            return None
    found = []
    for name, each in signature["inputs"].items():
        if not each["shape"] or isinstance(each["shape"][0], int) or "optional" in each:
            return None
        if each["type"] not in TYPES:
            return None
        found.append(Input(name, tuple(each["shape"]), TYPES[each["type"]]))
    return found or None


def feed_of(value: Any, inputs: Sequence[Input]) -> Feed:
    """One request's input by name. Raises UserError, as the client does."""
    if not isinstance(value, Mapping):
        if len(inputs) > 1:
            raise UserError(f"the model takes several inputs, by name: {', '.join(i.name for i in inputs)}")
        value = {inputs[0].name: value}
    check_names(value, [each.name for each in inputs])
    return {each.name: each.convert(value[each.name]) for each in inputs}


def count(feed: Feed) -> int | None:
    """How many rows an input has; None when its parts don't agree, so that only the model can say what that means."""
    counts = {len(array) for array in feed.values()}
    return counts.pop() if len(counts) == 1 else None


def shape(feed: Feed) -> tuple[Any, ...]:
    """What inputs must share to be joined."""
    return tuple((name, array.shape[1:]) for name, array in sorted(feed.items()))


def join(feeds: Sequence[Feed]) -> Feed:
    """All rows, one below the other. The feeds have one shape."""
    return {name: np.concatenate([feed[name] for feed in feeds]) for name in feeds[0]}


def split(outputs: Sequence[Any], counts: Sequence[int]) -> list[list[Any]] | None:
    """The outputs of each input; None when an output has not one row for each row that went in."""
    total = sum(counts)
    if any(
        not isinstance(output, np.ndarray) or output.ndim == 0 or len(output) != total for output in outputs
    ):
        return None
    ends = np.cumsum(counts)[:-1]
    return [list(parts) for parts in zip(*(np.split(output, ends) for output in outputs), strict=True)]
