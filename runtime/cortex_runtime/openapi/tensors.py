"""JSON Schemas and examples of tensors: nested lists for the API itself, and objects for the Open Inference Protocol. Pure."""

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

Schema = dict[str, Any]
FREE = -1
_MOST_ELEMENTS = 256
"""Elements of an example. A larger input has no example, because nobody could read it."""
_KINDS = (("BOOL", "boolean"), ("BYTES", "string"), ("FP", "number"), ("BF", "number"))
_EXAMPLES: dict[str, Any] = {"boolean": False, "string": "text", "number": 0.5, "integer": 1}


def element(datatype: str) -> str:
    """Return the JSON type of the elements of a datatype of the Open Inference Protocol."""
    return next((kind for prefix, kind in _KINDS if datatype.startswith(prefix)), "integer")


def nested(datatype: str, shape: Sequence[int] | None, is_output: bool = False) -> Schema:
    """Return the schema of a tensor as nested lists. shape: FREE for a free dimension; None for any number of dimensions."""
    kind = element(datatype)
    if shape is None:
        return {"description": f"{datatype}, of any shape"}
    schema: Schema = {"type": [kind, "null"] if is_output and kind == "number" else kind}
    for size in reversed(shape):
        bounds = {} if size == FREE else {"minItems": size, "maxItems": size}
        schema = {"type": "array", "items": schema, **bounds}
    return {**schema, "description": f"{datatype} of shape [{_sizes(shape)}]"}


def example(datatype: str, shape: Sequence[int] | None) -> Any:
    """Return nested lists of a tensor with 1 in each free dimension; None if it would be too large."""
    sizes = [1 if size == FREE else size for size in (shape or ())]
    if prod(sizes) > _MOST_ELEMENTS:
        return None
    value = _EXAMPLES[element(datatype)]
    for size in reversed(sizes):
        value = [value] * size
    return value


def protocol_tensor(name: str, datatype: str, shape: Sequence[int] | None) -> Schema:
    """Return the schema of an input in a request of the Open Inference Protocol."""
    sizes: Schema = {"type": "array", "items": {"type": "integer", "minimum": 0}}
    described = "any shape" if shape is None else f"shape [{_sizes(shape)}]"
    if shape is not None:
        sizes |= {"minItems": len(shape), "maxItems": len(shape)}
    if shape and FREE not in shape:
        sizes = {"const": list(shape)}
    return {
        "type": "object",
        "description": f"{datatype} of {described}",
        "required": ["name", "datatype", "shape", "data"],
        "properties": {
            "name": {"const": name},
            "datatype": {"const": datatype},
            "shape": sizes,
            "data": {"type": "array", "description": "The elements in row-major order, flat or nested"},
            "parameters": {"type": "object"},
        },
    }


def protocol_example(inputs: Sequence[Mapping[str, Any]]) -> Any:
    """Return a request of the Open Inference Protocol; None if it would be too large. inputs: name, datatype, shape."""
    found = []
    for each in inputs:
        sizes = [1 if size == FREE else size for size in each["shape"]]
        count = prod(sizes)
        if count > _MOST_ELEMENTS:
            return None
        data = [_EXAMPLES[element(each["datatype"])]] * count
        found.append({"name": each["name"], "datatype": each["datatype"], "shape": sizes, "data": data})
    return {"inputs": found}


def _sizes(shape: Sequence[int]) -> str:
    return ", ".join("any" if size == FREE else str(size) for size in shape)
