"""Requests and responses as gRPC messages, raw and typed, and the generated modules."""

from typing import Any

import numpy as np
import pytest
from google.protobuf import descriptor_pool

from cortex_runtime.errors import UserError
from cortex_runtime.inference import grpc_messages
from cortex_runtime.inference.datatypes import DATATYPES, to_raw
from cortex_runtime.inference.messages import InferResponse, Tensor
from cortex_runtime.inference.protos import inference_pb2
from tests.runtime.inference.test_datatypes import ALL

TYPED = sorted(set(ALL) - {"FP16", "BF16"})


def response_of(name: str, array: np.ndarray, request: Any) -> Any:
    answer = InferResponse("iris", "3", [Tensor("y", name, array)], id="42")
    message = grpc_messages.encode(answer, request)
    response = inference_pb2.ModelInferResponse.FromString(grpc_messages.encode_bytes(answer, request))
    assert response == message
    return response


@pytest.mark.parametrize("name", ALL)
def test_raw_contents_come_back_raw(name: str) -> None:
    array = ALL[name].reshape(2, 3)
    message = inference_pb2.ModelInferRequest(model_name="iris", model_version="3", id="42")
    message.inputs.add(name="x", datatype=name, shape=[2, 3])
    message.raw_input_contents.append(bytes(to_raw(DATATYPES[name], array)))
    request = grpc_messages.decode(inference_pb2.ModelInferRequest.FromString(message.SerializeToString()))
    assert (request.model, request.version, request.id) == ("iris", "3", "42")
    assert (request.inputs[0].array == array).all()
    response = response_of(name, array, request)
    assert (response.model_name, response.model_version, response.id) == ("iris", "3", "42")
    assert list(response.raw_output_contents) == list(message.raw_input_contents)
    assert (response.outputs[0].name, response.outputs[0].datatype) == ("y", name)
    assert list(response.outputs[0].shape) == [2, 3]
    assert not response.outputs[0].HasField("contents")


@pytest.mark.parametrize("name", TYPED)
def test_typed_contents_come_back_typed(name: str) -> None:
    array = ALL[name].reshape(2, 3)
    request = inference_pb2.ModelInferRequest(model_name="iris")
    contents = request.inputs.add(name="x", datatype=name, shape=[2, 3]).contents
    field = grpc_messages._FIELDS[name]
    getattr(contents, field).extend(array.ravel().tolist())
    decoded = grpc_messages.decode(request)
    assert decoded.inputs[0].array.dtype == array.dtype
    assert (decoded.inputs[0].array == array).all()
    response = response_of(name, array, decoded)
    assert not response.raw_output_contents
    assert response.outputs[0].contents == contents


@pytest.mark.parametrize("name", ["FP16", "BF16"])
def test_datatypes_without_typed_contents_are_raw(name: str) -> None:
    request = inference_pb2.ModelInferRequest(model_name="iris")
    request.inputs.add(name="x", datatype="INT8", shape=[1]).contents.int_contents.append(1)
    response = response_of(name, ALL[name], grpc_messages.decode(request))
    assert len(response.raw_output_contents) == 1


@pytest.mark.parametrize("size", [0, 1, 127, 128, 16_383, 16_384, 2_097_151, 2_097_152])
def test_raw_contents_of_any_length_come_back(size: int) -> None:
    request = inference_pb2.ModelInferRequest()
    request.inputs.add(name="x", datatype="UINT8", shape=[1])
    request.raw_input_contents.append(b"\1")
    decoded = grpc_messages.decode(request)
    tensors = [Tensor(name, "UINT8", np.full(size, value, np.uint8)) for name, value in (("a", 1), ("b", 2))]
    answer = InferResponse("iris", "3", tensors)
    content = grpc_messages.encode_bytes(answer, decoded)
    assert content == grpc_messages.encode(answer, decoded).SerializeToString()
    response = inference_pb2.ModelInferResponse.FromString(content)
    assert list(response.raw_output_contents) == [b"\1" * size, b"\2" * size]


def test_parameters_have_their_types() -> None:
    request = inference_pb2.ModelInferRequest()
    request.parameters["flag"].bool_param = True
    request.parameters["count"].int64_param = -3
    request.parameters["word"].string_param = "a"
    request.parameters["ratio"].double_param = 0.5
    request.parameters["large"].uint64_param = 2**63
    request.outputs.add(name="y").parameters["top"].int64_param = 2
    decoded = grpc_messages.decode(request)
    assert decoded.parameters == {"flag": True, "count": -3, "word": "a", "ratio": 0.5, "large": 2**63}
    assert decoded.outputs is not None
    assert decoded.outputs[0].parameters == {"top": 2}
    decoded.parameters["large"] = 7
    encoded = grpc_messages.encode(InferResponse("iris", "3", [], parameters=decoded.parameters), decoded)
    assert encoded.parameters["flag"].bool_param
    assert encoded.parameters["count"].int64_param == -3
    assert encoded.parameters["word"].string_param == "a"
    assert encoded.parameters["ratio"].double_param == 0.5


@pytest.mark.parametrize(
    ("item", "raw", "message"),
    [
        ({"datatype": "FP31"}, [], "inputs[0].datatype: unknown datatype 'FP31'"),
        ({"shape": [-1]}, [], "inputs[0].shape must be a list of non-negative integers; got [-1]"),
        ({}, [], 'inputs[0] "x": shape [2] has 2 elements, and fp32_contents has 0'),
        ({"datatype": "BF16"}, [], "BF16 has no typed contents; use raw_input_contents"),
        ({}, [b"1234"], "FP32 of shape [2] has 8 bytes, got 4"),
        ({}, [b"12345678"] * 2, "raw_input_contents has 2 tensors, and inputs has 1"),
        ({"contents": {"fp32_contents": [1, 2]}}, [b"12345678"], "both contents and raw_input_contents"),
        (
            {"datatype": "INT8", "contents": {"int_contents": [1, 128]}},
            [],
            "128 does not fit into INT8",
        ),
        (
            {"datatype": "UINT16", "contents": {"uint_contents": [1, 65536]}},
            [],
            "65536 does not fit into UINT16",
        ),
        ({"shape": [2**40, 2**40]}, [b""], "too many elements"),
        (
            {"parameters": {"shared_memory_region": {"string_param": "a"}}, "shape": [0]},
            [],
            "inputs[0].parameters.shared_memory_region is not supported",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_messages_that_are_no_request(item: dict[str, Any], raw: list[bytes], message: str) -> None:
    fields = {"name": "x", "datatype": "FP32", "shape": [2], **item}
    request = inference_pb2.ModelInferRequest(inputs=[fields], raw_input_contents=raw)
    with pytest.raises(UserError) as caught:
        grpc_messages.decode(request)
    assert message in caught.value.message


def test_an_output_requested_twice() -> None:
    request = inference_pb2.ModelInferRequest(outputs=[{"name": "y"}, {"name": "y"}])
    with pytest.raises(UserError, match='output "y" is requested twice'):
        grpc_messages.decode(request)


def test_messages_of_other_libraries_with_the_same_names_do_not_conflict() -> None:
    with pytest.raises(KeyError):
        descriptor_pool.Default().FindMessageTypeByName("inference.ModelInferRequest")


def test_the_modules_are_generated_from_the_files() -> None:
    from tests.runtime.inference.generate import FOLDER, generated

    assert {name: (FOLDER / name).read_text() for name in generated()} == generated()
