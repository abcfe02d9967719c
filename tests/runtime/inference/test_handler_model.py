"""`handle_infer` of a handler: its arguments, its results, and the declarations of its class."""

from typing import Any

import numpy as np
import pytest

from cortex_runtime.errors import StartError, UserError
from cortex_runtime.handler.arguments import arguments_of
from cortex_runtime.handler.interfaces import Method
from cortex_runtime.inference.messages import InferRequest, RequestedOutput, Tensor
from cortex_runtime.inference.models import HandlerModel

X = Tensor("x", "FP32", np.frombuffer(b"\0\0\x80?\0\0\0@", np.float32))


class Doubling:
    def handle_infer(self, inputs: Any, parameters: Any) -> Any:
        inputs["x"] *= parameters.get("factor", 2)
        return {"y": inputs["x"], "rows": [len(inputs["x"])]}


class Declared(Doubling):
    inputs = ({"name": "x", "datatype": "FP32", "shape": [-1]},)
    outputs = ({"name": "y", "datatype": "FP32", "shape": [-1]},)


def model_of(handler: Any) -> HandlerModel:
    function = handler.handle_infer
    arguments = arguments_of(function, ("inputs", "parameters"), "handle_infer", bound=True)
    return HandlerModel(Method(function, arguments, is_async=False), handler, "iris")


def infer(handler: Any, *inputs: Tensor, outputs: list[str] | None = None, **more: Any) -> Any:
    asked = None if outputs is None else [RequestedOutput(name) for name in outputs]
    request = InferRequest("iris", more.pop("version", ""), list(inputs) or [X], "42", more, asked)
    return model_of(handler).method.function(request=request)


def returning(result: Any, **attributes: Any) -> Any:
    return type("Handler", (), {"handle_infer": lambda self: result, **attributes})()


def test_inputs_are_arrays_that_it_may_change() -> None:
    response = infer(Doubling(), factor=3)
    assert (response.model, response.version, response.id) == ("iris", "1", "42")
    assert [(each.name, each.datatype, each.array.tolist()) for each in response.outputs] == [
        ("y", "FP32", [3.0, 6.0]),
        ("rows", "INT64", [2]),
    ]
    assert X.array.tolist() == [1.0, 2.0]


def test_requested_outputs_in_their_order() -> None:
    assert [each.name for each in infer(Doubling(), outputs=["rows", "y"]).outputs] == ["rows", "y"]
    with pytest.raises(UserError, match=r"output \"z\" does not exist \(available: y, rows\)"):
        infer(Doubling(), outputs=["z"])


def test_declared_inputs_are_checked() -> None:
    with pytest.raises(UserError, match="expected datatype FP32, got FP64"):
        infer(Declared(), Tensor("x", "FP64", np.zeros(2)))
    assert [spec.metadata() for spec in model_of(Declared()).signature("iris", "").inputs.values()] == list(
        Declared.inputs
    )


def test_without_a_declaration_the_signature_is_empty() -> None:
    signature = model_of(Doubling()).signature("iris", "1")
    assert (signature.inputs, signature.outputs) == ({}, {})


@pytest.mark.parametrize(
    ("result", "message"),
    [
        ([1], "must return a dict of output name to array; got list"),
        ({1: [1]}, "an output with the name 1, which is not a string"),
        ({"y": np.zeros(1, complex)}, 'handle_infer returned for "y": an array of complex128'),
        ({"y": [1.5]}, 'returned FP64 for "y", and the class declares FP32'),
    ],
)
def test_an_invalid_result_is_a_failure_of_the_handler(result: Any, message: str) -> None:
    with pytest.raises(TypeError) as caught:
        infer(returning(result, outputs=Declared.outputs))
    assert message in str(caught.value)


def test_results_of_each_kind() -> None:
    result = {"a": 1, "b": ["x", "y"], "c": np.float16(2), "d": [[True]], "e": [b"\xff"]}
    outputs = infer(returning(result)).outputs
    assert [(each.datatype, each.array.shape) for each in outputs] == [
        ("INT64", ()),
        ("BYTES", (2,)),
        ("FP16", ()),
        ("BOOL", (1, 1)),
        ("BYTES", (1,)),
    ]


def test_a_declared_bf16_is_returned_as_float32() -> None:
    declared = [{"name": "y", "datatype": "BF16", "shape": [1]}]
    (y,) = infer(returning({"y": np.ones(1, np.float32)}, outputs=declared)).outputs
    assert y.datatype == "BF16"


def test_names_and_versions() -> None:
    model = model_of(Doubling())
    assert (model.names(), model.versions("iris"), model.is_ready("iris", "")) == (["iris"], ["1"], True)
    for name, version in (("other", ""), ("iris", "2")):
        for ask in (model.signature, model.is_ready):
            with pytest.raises(UserError, match="does not exist") as caught:
                ask(name, version)
            assert caught.value.status == 404
    with pytest.raises(UserError, match="version 7 of model iris does not exist"):
        infer(Doubling(), version="7")


def test_an_invalid_declaration_fails_the_start() -> None:
    with pytest.raises(StartError, match=r"inputs\[0\].datatype must be one of") as caught:
        model_of(returning({}, inputs=[{"name": "x", "datatype": "F", "shape": []}]))
    assert caught.value.reason == "HandlerInvalid"
