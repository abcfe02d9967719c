"""The inputs of models in terms of the protocol, and requests that do not match them."""

from typing import Any

import numpy as np
import pytest

from cortex_runtime.errors import UserError
from cortex_runtime.inference.messages import Tensor
from cortex_runtime.inference.signature import Signature, TensorSpec, declared

SIGNATURE = Signature.of(
    {
        "inputs": {
            "x": {"shape": ["n", 2], "type": "float32"},
            "text": {"shape": [None], "type": "str_", "optional": True},
        },
        "outputs": {"y": {"shape": ["n"], "type": "int64"}, "maps": {"shape": [], "type": "seq(map(int64))"}},
    }
)


def tensor(name: str = "x", shape: tuple[int, ...] = (3, 2), datatype: str = "FP32") -> Tensor:
    return Tensor(name, datatype, np.zeros(shape, np.float32))


def test_the_signature_of_a_client_in_terms_of_the_protocol() -> None:
    assert [spec.metadata() for spec in SIGNATURE.inputs.values()] == [
        {"name": "x", "datatype": "FP32", "shape": [-1, 2]},
        {"name": "text", "datatype": "BYTES", "shape": [-1]},
    ]
    assert [spec.metadata() for spec in SIGNATURE.outputs.values()] == [
        {"name": "y", "datatype": "INT64", "shape": [-1]}
    ]


@pytest.mark.parametrize(
    ("kind", "datatype"),
    [
        ("bool", "BOOL"),
        ("bool_", "BOOL"),
        ("uint8", "UINT8"),
        ("int64", "INT64"),
        ("float16", "FP16"),
        ("bfloat16", "BF16"),
        ("float64", "FP64"),
        ("string", "BYTES"),
        ("float8e4m3fn", "FP32"),
        ("int4", "INT8"),
        ("uint4", "UINT8"),
        ("quint8", "UINT8"),
        ("qint32", "INT32"),
    ],
)
def test_each_type_of_a_client_has_a_datatype(kind: str, datatype: str) -> None:
    described = {"inputs": {"x": {"shape": None, "type": kind}}, "outputs": {}}
    assert Signature.of(described).inputs["x"].metadata() == {
        "name": "x",
        "datatype": datatype,
        "shape": [-1],
    }


@pytest.mark.parametrize(
    "given", [[tensor()], [tensor(shape=(0, 2)), Tensor("text", "BYTES", np.empty(1, object))]]
)
def test_inputs_that_match(given: list[Tensor]) -> None:
    SIGNATURE.check_inputs(given)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([], "missing input x (the model takes x, text)"),
        ([tensor(), tensor("z")], "unknown input z (the model takes x, text)"),
        ([tensor(), tensor()], 'input "x" is given twice'),
        ([tensor(datatype="FP64")], 'input "x": expected datatype FP32, got FP64'),
        ([tensor(shape=(3, 3))], 'input "x": expected shape [-1, 2] (-1 is any size), got [3, 3]'),
        ([tensor(shape=(6,))], "got [6]"),
        ([tensor(shape=())], "got []"),
    ],
)
def test_inputs_that_do_not_match(given: list[Tensor], message: str) -> None:
    with pytest.raises(UserError) as caught:
        SIGNATURE.check_inputs(given)
    assert caught.value.status == 400
    assert message in caught.value.message


def test_outputs_are_chosen_in_the_requested_order() -> None:
    assert [spec.name for spec in SIGNATURE.choose_outputs(None)] == ["y"]
    assert [spec.name for spec in SIGNATURE.choose_outputs(["y"])] == ["y"]
    with pytest.raises(UserError, match=r"output \"z\" does not exist \(available: y\)"):
        SIGNATURE.choose_outputs(["z"])
    with pytest.raises(UserError, match="not a tensor"):
        SIGNATURE.choose_outputs(["maps"])


def test_models_whose_requests_can_run_as_one() -> None:
    free, fixed = TensorSpec("x", "FP32", (-1, 2)), TensorSpec("x", "FP32", (1, 2))
    assert Signature({"x": free}, {"y": free}).has_rows
    assert not Signature({"x": free}, {"y": fixed}).has_rows
    assert not Signature({"x": TensorSpec("x", "FP32", None)}, {"y": free}).has_rows
    assert not Signature({"x": TensorSpec("x", "FP32", ())}, {"y": free}).has_rows
    assert not SIGNATURE.has_rows


ITEM = {"name": "x", "datatype": "FP32", "shape": [-1, 4]}


def test_declarations_of_a_class() -> None:
    assert declared([ITEM], "inputs") == {"x": TensorSpec("x", "FP32", (-1, 4))}
    assert declared((), "inputs") == {}


@pytest.mark.parametrize(
    ("specs", "message"),
    [
        ({"x": 1}, "inputs must be a list of objects"),
        ([1], "inputs[0] must have name, datatype and shape"),
        ([{**ITEM, "dtype": 1}], "and nothing else"),
        ([ITEM, ITEM], "inputs[1].name must be a string that no other has; got 'x'"),
        ([{**ITEM, "name": ""}], "inputs[0].name"),
        ([{**ITEM, "datatype": "float"}], "inputs[0].datatype must be one of BOOL"),
        ([{**ITEM, "shape": 4}], "inputs[0].shape must be a list of sizes"),
        ([{**ITEM, "shape": [-2]}], "got [-2]"),
    ],
)
def test_invalid_declarations(specs: Any, message: str) -> None:
    with pytest.raises(ValueError) as caught:
        declared(specs, "inputs")
    assert message in str(caught.value)
