"""Requests and responses as JSON and with the binary tensor data extension."""

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cortex_runtime.errors import UserError
from cortex_runtime.inference import rest
from cortex_runtime.inference.messages import InferResponse, Tensor

X = {"name": "x", "shape": [2], "datatype": "FP32", "data": [1.5, 2.5]}


def decode(content: Any, raw: bytes = b"", length: bytes | None = None) -> Any:
    head = content if isinstance(content, bytes) else json.dumps(content).encode()
    if raw and length is None:
        length = str(len(head)).encode()
    return rest.decode("iris", "3", head + raw, length)


def respond(outputs: list[Tensor], request: dict[str, Any] | None = None, **more: Any) -> Any:
    asked = decode({"inputs": [], **(request or {})})
    kind, length, body = rest.encode(InferResponse("iris", "3", outputs, **more), asked)
    return kind, json.loads(body[: int(length)] if length else body), body[int(length) :] if length else b""


def tensor(name: str = "y", values: Any = (1.5, 2.5), datatype: str = "FP32") -> Tensor:
    return Tensor(name, datatype, np.array(values, np.float32 if datatype != "BYTES" else object))


def test_a_request_in_json() -> None:
    request = decode(
        {
            "id": "42",
            "parameters": {"a": 1, "b": True, "c": "d"},
            "inputs": [{**X, "parameters": {"unit": "cm"}}],
            "outputs": [{"name": "y", "parameters": {"binary_data": False, "top": 3}}],
        }
    )
    assert (request.model, request.version, request.id) == ("iris", "3", "42")
    assert request.parameters == {"a": 1, "b": True, "c": "d"}
    (x,) = request.inputs
    assert (x.name, x.datatype, x.array.tolist(), x.parameters) == ("x", "FP32", [1.5, 2.5], {"unit": "cm"})
    (y,) = request.outputs
    assert (y.name, y.binary, y.parameters) == ("y", False, {"top": 3})
    assert not request.binary


def test_bytes_and_json_mixed() -> None:
    raw = np.array([[1, 2]], np.int64).tobytes() + b"\1\0\0\0a"
    request = decode(
        {
            "parameters": {"binary_data_output": True},
            "inputs": [
                {"name": "a", "shape": [1, 2], "datatype": "INT64", "parameters": {"binary_data_size": 16}},
                X,
                {"name": "b", "shape": [1], "datatype": "BYTES", "parameters": {"binary_data_size": 5}},
            ],
        },
        raw,
    )
    assert [each.array.tolist() for each in request.inputs] == [[[1, 2]], [1.5, 2.5], [b"a"]]
    assert [each.parameters for each in request.inputs] == [{}, {}, {}]
    assert request.binary
    assert request.parameters == {}


def test_json_with_its_length() -> None:
    assert decode({"inputs": [X]}, length=str(len(json.dumps({"inputs": [X]}))).encode()).inputs


@pytest.mark.parametrize("outputs", [None, []])
def test_no_requested_outputs_are_all_outputs(outputs: Any) -> None:
    assert decode({"inputs": [], "outputs": outputs}).outputs is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not valid JSON"),
        (b"{", "not valid JSON"),
        (b"[" * 10000, "not valid JSON"),
        ([], "must be a JSON object"),
        ({}, "inputs is missing"),
        ({"inputs": {}}, "inputs must be a list"),
        ({"inputs": [1]}, "inputs[0] must be an object"),
        ({"inputs": [X, {**X, "name": 1}]}, "inputs[1].name must be a string"),
        ({"inputs": [{"shape": []}]}, "inputs[0].name is missing"),
        ({"inputs": [{**X, "datatype": "FP31"}]}, "unknown datatype 'FP31'; expected one of BOOL, UINT8"),
        ({"inputs": [{**X, "datatype": ["FP32"]}]}, "unknown datatype ['FP32']"),
        ({"inputs": [{"name": "x", "shape": [1]}]}, "inputs[0].datatype is missing"),
        ({"inputs": [{"name": "x", "datatype": "FP32"}]}, "inputs[0].shape is missing"),
        ({"inputs": [{**X, "shape": 2}]}, "inputs[0].shape must be a list of non-negative integers; got 2"),
        ({"inputs": [{**X, "shape": [-1]}]}, "got [-1]"),
        ({"inputs": [{**X, "shape": [True]}]}, "got [True]"),
        ({"inputs": [{**X, "shape": [2.0]}]}, "got [2.0]"),
        ({"inputs": [{**X, "shape": [2**64]}]}, "inputs[0].shape must be"),
        ({"inputs": [{**X, "shape": [1] * 65}]}, 'inputs[0] "x"'),
        ({"inputs": [{**X, "shape": [3]}]}, 'inputs[0] "x": shape [3] has 3 elements, got 2'),
        ({"inputs": [{"name": "x", "shape": [2], "datatype": "FP32"}]}, 'inputs[0] "x": data is missing'),
        ({"inputs": [{**X, "parameters": [1]}]}, "inputs[0].parameters must be an object"),
        (
            {"inputs": [{**X, "parameters": {"shared_memory_region": "a"}}]},
            "inputs[0].parameters.shared_memory_region is not supported",
        ),
        ({"inputs": [X], "parameters": "a"}, "parameters must be an object"),
        (
            {"inputs": [X], "parameters": {"binary_data_output": 1}},
            "binary_data_output must be true or false",
        ),
        ({"inputs": [X], "id": 42}, "id must be a string; got 42"),
        ({"inputs": [X], "outputs": {}}, "outputs must be a list"),
        ({"inputs": [X], "outputs": ["y"]}, "outputs[0] must be an object with a name"),
        ({"inputs": [X], "outputs": [{}]}, "outputs[0] must be an object with a name"),
        ({"inputs": [X], "outputs": [{"name": "y"}, {"name": "y"}]}, 'output "y" is requested twice'),
        (
            {"inputs": [X], "outputs": [{"name": "y", "parameters": {"binary_data": "yes"}}]},
            "outputs[0].parameters.binary_data must be true or false",
        ),
        (
            {"inputs": [X], "outputs": [{"name": "y", "parameters": {"classification": 2}}]},
            "outputs[0].parameters.classification is not supported",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_json_that_is_not_a_request(content: Any, message: str) -> None:
    with pytest.raises(UserError) as caught:
        decode(content)
    assert message in caught.value.message


BINARY = {"name": "x", "shape": [2], "datatype": "FP32"}


@pytest.mark.parametrize(
    ("item", "raw", "length", "message"),
    [
        ({"binary_data_size": 8}, b"", None, "binary_data_size is 8, and 0 bytes are left after the JSON"),
        ({"binary_data_size": 8}, b"1234567", None, "binary_data_size is 8, and 7 bytes are left"),
        ({"binary_data_size": 8}, b"123456789", None, "9 bytes follow the JSON, and the binary_data_size"),
        ({"binary_data_size": 4}, b"1234", None, "FP32 of shape [2] has 8 bytes, got 4"),
        ({"binary_data_size": -8}, b"12345678", None, "binary_data_size must be a number of bytes; got -8"),
        ({"binary_data_size": "8"}, b"12345678", None, "binary_data_size must be a number of bytes; got '8'"),
        ({"binary_data_size": True}, b"1", None, "binary_data_size must be a number of bytes; got True"),
        ({}, b"", b"9999", "Inference-Header-Content-Length is 9999, and the body has"),
        ({}, b"", b"-1", "Inference-Header-Content-Length must be a number; got '-1'"),
        ({}, b"", b"x", "Inference-Header-Content-Length must be a number; got 'x'"),
        ({}, b"", b"1" * 30, "Inference-Header-Content-Length must be a number"),
        ({}, b"", b"0", "not valid JSON"),
    ],
)
def test_bytes_that_do_not_match_the_json(
    item: dict[str, Any], raw: bytes, length: bytes | None, message: str
) -> None:
    with pytest.raises(UserError) as caught:
        decode({"inputs": [{**BINARY, "parameters": item}]}, raw, length)
    assert message in caught.value.message


def test_data_and_bytes_at_once() -> None:
    with pytest.raises(UserError, match="both data and binary_data_size"):
        decode({"inputs": [{**X, "parameters": {"binary_data_size": 8}}]}, b"12345678")


def test_a_response_in_json() -> None:
    kind, head, raw = respond([tensor(), tensor("t", ["a", b"b"], "BYTES")], id="42", parameters={"a": 1})
    assert (kind, raw) == (b"application/json", b"")
    assert head == {
        "model_name": "iris",
        "model_version": "3",
        "id": "42",
        "parameters": {"a": 1},
        "outputs": [
            {"name": "y", "datatype": "FP32", "shape": [2], "data": [1.5, 2.5]},
            {"name": "t", "datatype": "BYTES", "shape": [2], "data": ["a", "b"]},
        ],
    }


def test_without_an_id_the_response_has_none() -> None:
    assert "id" not in respond([tensor()])[1]


@pytest.mark.parametrize(
    ("all_binary", "own", "binary"),
    [(True, None, True), (True, False, False), (False, True, True), (False, None, False)],
)
def test_an_output_is_binary_if_requested(all_binary: bool, own: bool | None, binary: bool) -> None:
    output = {"name": "y", "parameters": {} if own is None else {"binary_data": own}}
    kind, head, raw = respond(
        [tensor()], {"outputs": [output], "parameters": {"binary_data_output": all_binary}}
    )
    (described,) = head["outputs"]
    assert ("data" in described) is not binary
    assert raw == (np.array([1.5, 2.5], "<f4").tobytes() if binary else b"")
    assert kind == (b"application/octet-stream" if binary else b"application/json")
    if binary:
        assert described["parameters"] == {"binary_data_size": 8}


def test_bytes_of_outputs_are_in_their_order() -> None:
    request = {"outputs": [{"name": "b", "parameters": {"binary_data": True}}, {"name": "a"}]}
    _, head, raw = respond([tensor("b", [1]), tensor("a", [2]), tensor("c", [3])], request)
    assert [each["name"] for each in head["outputs"]] == ["b", "a", "c"]
    assert raw == np.array([1], "<f4").tobytes()


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 5) | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
TENSORS = st.fixed_dictionaries(
    {},
    optional={
        "name": VALUES | st.just("x"),
        "shape": VALUES | st.lists(st.integers(-1, 3), max_size=3),
        "datatype": VALUES | st.sampled_from(["FP32", "BYTES", "BOOL", "BF16", "UINT64"]),
        "data": VALUES | st.lists(st.floats(-9, 9) | st.text(max_size=2), max_size=4),
        "parameters": VALUES | st.fixed_dictionaries({"binary_data_size": st.integers(-1, 9) | VALUES}),
    },
)
REQUESTS = st.fixed_dictionaries(
    {},
    optional={
        "inputs": VALUES | st.lists(TENSORS, max_size=2),
        "outputs": VALUES | st.lists(st.fixed_dictionaries({"name": VALUES}), max_size=2),
        "id": VALUES,
        "parameters": VALUES,
    },
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(REQUESTS, st.binary(max_size=12), st.none() | st.integers(-2, 3))
def test_any_content_is_a_request_or_a_message(content: Any, raw: bytes, error: int | None) -> None:
    head = json.dumps(content).encode()
    length = None if error is None else str(len(head) + error).encode()
    try:
        rest.decode("iris", "", head + raw, length)
    except UserError as error:
        refused = error
    else:
        return
    assert refused.status == 400
    assert refused.message
