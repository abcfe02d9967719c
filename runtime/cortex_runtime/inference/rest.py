"""Inference requests and responses over HTTP: JSON, and the binary tensor data extension.

A body is JSON, or JSON followed by the bytes of the tensors that have a `binary_data_size` instead of `data`; the header
Inference-Header-Content-Length then has the length of the JSON. Pure functions over bytes.
"""

from typing import Any, TypeGuard

import orjson

from cortex_runtime.errors import UserError
from cortex_runtime.http import json_parser
from cortex_runtime.inference.datatypes import DATATYPES, Datatype, from_json, from_raw, to_json, to_raw
from cortex_runtime.inference.messages import InferRequest, InferResponse, RequestedOutput, Tensor

HEADER_LENGTH = b"inference-header-content-length"
"""The header with the length of the JSON, in bytes."""
JSON, BINARY = b"application/json", b"application/octet-stream"
_UNSUPPORTED = ("shared_memory_region", "shared_memory_offset", "shared_memory_byte_size", "classification")
"""Parameters of extensions that are not served. To ignore one would return a wrong result."""


def decode(model: str, version: str, body: bytes, header_length: bytes | None) -> InferRequest:
    """Return the request in a body. header_length: the header, or None without it. Raises UserError."""
    if header_length is None:
        rest = memoryview(b"")
    else:
        length = _length(header_length, len(body))
        rest, body = memoryview(body)[length:], body[:length]
    content = _parse(body)
    if type(content) is not dict:
        raise UserError("the request must be a JSON object with inputs")
    given = content.get("inputs")
    if type(given) is not list:
        raise UserError("inputs must be a list of tensors" if "inputs" in content else "inputs is missing")
    parameters = _parameters(content, "parameters")
    inputs, offset = [], 0
    for place, item in enumerate(given):
        where = f"inputs[{place}]"
        name, datatype, shape, own = _described(item, where)
        size = own.pop("binary_data_size", None) if own else None
        try:
            if size is None:
                if "data" not in item:
                    raise ValueError("data is missing")
                array = from_json(datatype, shape, item["data"])
            else:
                array = from_raw(datatype, shape, _slice(item, rest, offset, size))
                offset += size
        except (ValueError, TypeError, OverflowError) as error:
            raise UserError(f'{where} "{name}": {error}') from error
        inputs.append(Tensor(name, datatype.name, array, own))
    if offset != len(rest):
        raise UserError(
            f"{len(rest)} bytes follow the JSON, and the binary_data_size of all inputs is {offset} in total"
        )
    identity = content.get("id", "")
    if type(identity) is not str:
        raise UserError(f"id must be a string; got {identity!r:.40}")
    binary = parameters.pop("binary_data_output", False) if parameters else False
    if type(binary) is not bool:
        raise UserError(f"parameters.binary_data_output must be true or false; got {binary!r:.40}")
    return InferRequest(
        model, version, inputs, identity, parameters, _outputs(content.get("outputs")), binary
    )


def encode(response: InferResponse, request: InferRequest) -> tuple[bytes, bytes | None, bytes]:
    """Return the content type, the length of the JSON (None if it is the whole body), and the body. Raises UserError."""
    chosen = {output.name: output.binary for output in request.outputs or ()}
    outputs, raw = [], []
    for tensor in response.outputs:
        datatype, array = DATATYPES[tensor.datatype], tensor.array
        output: dict[str, Any] = {"name": tensor.name, "datatype": datatype.name, "shape": array.shape}
        binary = chosen.get(tensor.name)
        if request.binary if binary is None else binary:
            content = to_raw(datatype, array)
            raw.append(content)
            output["parameters"] = {**tensor.parameters, "binary_data_size": len(content)}
        else:
            if tensor.parameters:
                output["parameters"] = tensor.parameters
            output["data"] = to_json(datatype, array)
        outputs.append(output)
    described: dict[str, Any] = {"model_name": response.model, "model_version": response.version}
    if response.id:
        described["id"] = response.id
    if response.parameters:
        described["parameters"] = response.parameters
    described["outputs"] = outputs
    head = orjson.dumps(described, option=orjson.OPT_SERIALIZE_NUMPY)
    if not raw:
        return JSON, None, head
    return BINARY, str(len(head)).encode(), b"".join((head, *raw))


def _length(header: bytes, size: int) -> int:
    text = header.strip()
    if not text.isdigit() or len(text) > 18:
        raise UserError(
            f"Inference-Header-Content-Length must be a number; got {text[:40].decode('latin-1')!r}"
        )
    length = int(text)
    if length > size:
        raise UserError(f"Inference-Header-Content-Length is {length}, and the body has {size} bytes")
    return length


def _parse(body: bytes) -> Any:
    try:
        return json_parser.loads(body)
    except ValueError as error:
        raise UserError(f"the request is not valid JSON: {error}") from error


def _described(item: Any, where: str) -> tuple[str, Datatype, list[int], dict[str, Any]]:
    """Return name, datatype, shape and parameters of an input. Raises UserError."""
    if type(item) is not dict:
        raise UserError(f"{where} must be an object with name, shape, datatype and data")
    name, datatype, shape = item.get("name"), item.get("datatype"), item.get("shape")
    if type(name) is not str:
        raise UserError(f"{where}.name must be a string" if "name" in item else f"{where}.name is missing")
    known = DATATYPES.get(datatype) if type(datatype) is str else None
    if known is None:
        raise UserError(
            f"{where}.datatype: unknown datatype {datatype!r:.40}; expected one of {', '.join(DATATYPES)}"
            if "datatype" in item
            else f"{where}.datatype is missing"
        )
    if not _is_shape(shape):
        raise UserError(
            f"{where}.shape must be a list of non-negative integers; got {shape!r:.80}"
            if "shape" in item
            else f"{where}.shape is missing"
        )
    return name, known, shape, _parameters(item, f"{where}.parameters")


def _is_shape(shape: Any) -> TypeGuard[list[int]]:
    if type(shape) is not list:
        return False
    for size in shape:  # noqa: SIM110 - a generator takes three times as long
        if type(size) is not int or not 0 <= size < 2**63:
            return False
    return True


def _slice(item: dict[str, Any], rest: memoryview, offset: int, size: Any) -> memoryview:
    """Return the bytes of an input."""
    if type(size) is not int or size < 0:
        raise ValueError(f"binary_data_size must be a number of bytes; got {size!r:.40}")
    if "data" in item:
        raise ValueError("it has both data and binary_data_size")
    if offset + size > len(rest):
        raise ValueError(
            f"binary_data_size is {size}, and {max(0, len(rest) - offset)} bytes are left after the JSON"
            " (is the header Inference-Header-Content-Length missing?)"
        )
    return rest[offset : offset + size]


def _outputs(given: Any) -> list[RequestedOutput] | None:
    """Return the requested outputs; None for all. Raises UserError."""
    if given is None or given == []:
        return None
    if type(given) is not list:
        raise UserError("outputs must be a list of objects with a name")
    outputs: dict[str, RequestedOutput] = {}
    for place, item in enumerate(given):
        where = f"outputs[{place}]"
        if type(item) is not dict or type(item.get("name")) is not str:
            raise UserError(f"{where} must be an object with a name")
        parameters = _parameters(item, f"{where}.parameters")
        binary = parameters.pop("binary_data", None) if parameters else None
        if binary is not None and type(binary) is not bool:
            raise UserError(f"{where}.parameters.binary_data must be true or false; got {binary!r:.40}")
        if item["name"] in outputs:
            raise UserError(f'{where}: output "{item["name"]}" is requested twice')
        outputs[item["name"]] = RequestedOutput(item["name"], binary, parameters)
    return list(outputs.values())


def _parameters(item: dict[str, Any], where: str) -> dict[str, Any]:
    parameters = item.get("parameters")
    if parameters is None:
        return {}
    if type(parameters) is not dict:
        raise UserError(f"{where} must be an object; got {parameters!r:.40}")
    check_parameters(parameters, where)
    return parameters


def check_parameters(parameters: dict[str, Any], where: str) -> None:
    """Raise UserError for a parameter of an extension that is not served."""
    for name in _UNSUPPORTED:
        if name in parameters:
            raise UserError(f"{where}.{name} is not supported")
