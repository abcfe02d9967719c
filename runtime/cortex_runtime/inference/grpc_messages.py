"""Inference requests and responses over gRPC: tensors as raw bytes, or as typed lists of values. Pure functions over messages."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from cortex_runtime.errors import UserError
from cortex_runtime.inference.datatypes import (
    DATATYPES,
    Datatype,
    as_bytes,
    count_of,
    from_raw,
    to_raw,
)
from cortex_runtime.inference.messages import InferRequest, InferResponse, RequestedOutput, Tensor
from cortex_runtime.inference.protos import inference_pb2
from cortex_runtime.inference.rest import check_parameters

_FIELDS = {
    "BOOL": "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}
"""The field of InferTensorContents with the values of a datatype. FP16 and BF16 have none, and are always raw."""
_IN_FIELD = {
    "int_contents": np.dtype(np.int32),
    "uint_contents": np.dtype(np.uint32),
}
"""The type of a list's values where smaller datatypes share it."""
_RAW_OUTPUT = b"\x32"
"""What precedes the length of one of raw_output_contents: field 6 of ModelInferResponse, which contains bytes."""


def decode(message: inference_pb2.ModelInferRequest) -> InferRequest:
    """Return the request in a message. Its outputs are raw if its inputs are. Raises UserError."""
    raw = message.raw_input_contents
    if raw and len(raw) != len(message.inputs):
        raise UserError(
            f"raw_input_contents has {len(raw)} tensors, and inputs has {len(message.inputs)}; with raw contents all inputs"
            " must be raw"
        )
    inputs = []
    for place, item in enumerate(message.inputs):
        where = f"inputs[{place}]"
        datatype = DATATYPES.get(item.datatype)
        if datatype is None:
            raise UserError(
                f"{where}.datatype: unknown datatype {item.datatype!r:.40}; expected one of {', '.join(DATATYPES)}"
            )
        shape = list(item.shape)
        if shape and min(shape) < 0:
            raise UserError(f"{where}.shape must be a list of non-negative integers; got {shape!r:.80}")
        try:
            if raw:
                if item.HasField("contents"):
                    raise ValueError("it has both contents and raw_input_contents")
                array = from_raw(datatype, shape, raw[place])
            else:
                array = _from_contents(datatype, shape, item.contents)
        except (ValueError, OverflowError) as error:
            raise UserError(f'{where} "{item.name}": {error}') from error
        parameters = _parameters(item.parameters, where)
        inputs.append(Tensor(item.name, datatype.name, array, parameters))
    outputs: dict[str, RequestedOutput] = {}
    for place, output in enumerate(message.outputs):
        if output.name in outputs:
            raise UserError(f'outputs[{place}]: output "{output.name}" is requested twice')
        outputs[output.name] = RequestedOutput(
            output.name, parameters=_parameters(output.parameters, f"outputs[{place}]")
        )
    return InferRequest(
        message.model_name,
        message.model_version,
        inputs,
        message.id,
        _parameters(message.parameters, "request"),
        list(outputs.values()) or None,
        bool(raw) or not message.inputs,
    )


def encode(response: InferResponse, request: InferRequest) -> inference_pb2.ModelInferResponse:
    """Return the message of a response. Outputs are raw if the inputs were, or if one of them has no typed list."""
    message, raw = _encode(response, request)
    message.raw_output_contents.extend(raw)
    return message


def encode_bytes(response: InferResponse, request: InferRequest) -> bytes:
    """Return what `encode` does, serialized. Raw outputs are copied once instead of three times."""
    message, raw = _encode(response, request)
    # Raw outputs have the highest field number, so protobuf puts them last too.
    parts = [message.SerializeToString()]
    for content in raw:
        parts += (_RAW_OUTPUT, _varint(len(content)), content)
    return b"".join(parts)


def _encode(
    response: InferResponse, request: InferRequest
) -> tuple[inference_pb2.ModelInferResponse, list[bytes]]:
    """Return the message of a response without its raw outputs, and these."""
    message = inference_pb2.ModelInferResponse(
        model_name=response.model, model_version=response.version, id=response.id
    )
    _set_parameters(message.parameters, response.parameters)
    is_raw = request.binary or any(tensor.datatype not in _FIELDS for tensor in response.outputs)
    raw: list[bytes] = []
    for tensor in response.outputs:
        datatype, array = DATATYPES[tensor.datatype], tensor.array
        output = message.outputs.add(name=tensor.name, datatype=datatype.name, shape=array.shape)
        _set_parameters(output.parameters, tensor.parameters)
        if is_raw:
            raw.append(bytes(to_raw(datatype, array)))
        else:
            values: Any = as_bytes(array) if datatype.number is None else array.reshape(-1).tolist()
            getattr(output.contents, _FIELDS[datatype.name]).extend(values)
    return message, raw


def _varint(number: int) -> bytes:
    """Return a length as protobuf encodes it: seven bits in each byte, lowest first; the highest bit announces another byte."""
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


def _from_contents(
    datatype: Datatype, shape: list[int], contents: inference_pb2.InferTensorContents
) -> np.ndarray:
    """Return the array of a typed list. Raises ValueError."""
    field = _FIELDS.get(datatype.name)
    if field is None:
        raise ValueError(f"{datatype.name} has no typed contents; use raw_input_contents")
    values, count = getattr(contents, field), count_of(shape)
    if len(values) != count:
        raise ValueError(f"shape {shape} has {count} elements, and {field} has {len(values)}")
    if datatype.number is None:
        array = np.empty(count, object)
        array[:] = list(values)
        return array.reshape(shape)
    given = np.array(values, _IN_FIELD.get(field, datatype.number.dtype))
    return datatype.number.convert(given).reshape(shape)


def _parameters(parameters: Mapping[str, inference_pb2.InferParameter], where: str) -> dict[str, Any]:
    if not parameters:
        return {}
    found = {}
    for name, value in parameters.items():
        choice = value.WhichOneof("parameter_choice")
        found[name] = None if choice is None else getattr(value, choice)
    check_parameters(found, f"{where}.parameters")
    return found


def _set_parameters(target: Any, parameters: Mapping[str, Any]) -> None:
    for name, value in parameters.items():
        if isinstance(value, bool):
            target[name].bool_param = value
        elif isinstance(value, int):
            target[name].int64_param = value
        elif isinstance(value, float):
            target[name].double_param = value
        else:
            target[name].string_param = str(value)
