"""Stack the inputs of several requests into one, and split its outputs, for models that accept any number of rows.

Pure functions over arrays. Used for ONNX models without a class, with serverSideBatching.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cortex_runtime.clients.conversion import check_names
from cortex_runtime.clients.onnx_input import TYPES, Input
from cortex_runtime.errors import UserError

Feed = dict[str, np.ndarray]


def stackable_inputs(signature: Mapping[str, Any]) -> list[Input] | None:
    """Return the inputs of a model if the first dimension of all inputs and outputs is variable, else None.

    signature: of the model, as a client returns it. None also for a model with optional inputs, whose values apply to all rows.
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


def to_feed(value: Any, inputs: Sequence[Input]) -> Feed:
    """Return the inputs of one request as arrays by name. Raises UserError, as the client does."""
    if not isinstance(value, Mapping):
        if len(inputs) > 1:
            raise UserError(
                f"expected an object with the inputs of the model by name: {', '.join(i.name for i in inputs)}"
            )
        value = {inputs[0].name: value}
    check_names(value, [each.name for each in inputs])
    return {each.name: each.convert(value[each.name]) for each in inputs}


def count_rows(feed: Feed) -> int | None:
    """Return the number of rows of a request's inputs; None if they differ, which only the model can interpret."""
    counts = {len(array) for array in feed.values()}
    return counts.pop() if len(counts) == 1 else None


def row_shape(feed: Feed) -> tuple[Any, ...]:
    """Return a key that is equal for requests whose inputs can be joined."""
    return tuple((name, array.shape[1:]) for name, array in sorted(feed.items()))


def join(feeds: Sequence[Feed]) -> Feed:
    """Return the inputs of several requests, concatenated along the first axis. Their `shape` must be equal."""
    return {name: np.concatenate([feed[name] for feed in feeds]) for name in feeds[0]}


def split(outputs: Sequence[Any], counts: Sequence[int]) -> list[list[Any]] | None:
    """Return the outputs of each request; None if the rows of an output don't correspond to the input rows."""
    total = sum(counts)
    if any(
        not isinstance(output, np.ndarray) or output.ndim == 0 or len(output) != total for output in outputs
    ):
        return None
    ends = np.cumsum(counts)[:-1]
    return [list(parts) for parts in zip(*(np.split(output, ends) for output in outputs), strict=True)]
