"""A candidate receives requests only if it accepts whatever clients send to the stable version."""

from typing import Any

import pytest

from cortex_operator.candidate.interface import difference

IRIS = {
    "inputs": [{"name": "input", "datatype": "FP32", "shape": [-1, 4]}],
    "outputs": [{"name": "label", "datatype": "INT64", "shape": [-1]}],
}
INTERFACE = {
    "routes": [{"path": "/", "method": "POST"}, {"path": "/status", "method": "GET"}],
    "protocols": ["v2", "grpc"],
    "models": {"iris": IRIS},
}


def with_model(**fields: Any) -> dict[str, Any]:
    return {**INTERFACE, "models": {"iris": {**IRIS, **fields}}}


def tensor(name: str = "input", datatype: str = "FP32", shape: Any = (-1, 4)) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": list(shape)}


@pytest.mark.parametrize(
    "candidate",
    [
        INTERFACE,
        {**INTERFACE, "routes": [*INTERFACE["routes"], {"path": "/new", "method": "POST"}]},
        {**INTERFACE, "protocols": ["v2", "grpc", "openai"]},
        {**INTERFACE, "models": {"iris": IRIS, "roses": {}}},
        with_model(inputs=[tensor(shape=(10, 4))]),
        with_model(inputs=[{"name": "input", "datatype": "FP32"}]),
        with_model(outputs=[*IRIS["outputs"], tensor("probabilities")]),
        with_model(outputs=[{"name": "label", "datatype": "INT64", "shape": [-1, 1]}]),
    ],
)
def test_an_interface_that_accepts_the_same_requests(candidate: dict[str, Any]) -> None:
    assert difference(INTERFACE, candidate) == ""


@pytest.mark.parametrize(
    ("candidate", "text"),
    [
        ({**INTERFACE, "routes": INTERFACE["routes"][:1]}, "the candidate has no route GET /status"),
        ({**INTERFACE, "protocols": ["v2"]}, "the candidate does not serve grpc"),
        ({**INTERFACE, "models": {"roses": IRIS}}, "the candidate has no model iris"),
        (
            with_model(inputs=[tensor(shape=(-1, 5))]),
            "input input of model iris is FP32 [-1, 4], that of the candidate FP32 [-1, 5]",
        ),
        (
            with_model(inputs=[tensor(shape=(4,))]),
            "input input of model iris is FP32 [-1, 4], that of the candidate FP32 [4]",
        ),
        (
            with_model(inputs=[tensor(datatype="FP64")]),
            "input input of model iris is FP32 [-1, 4], that of the candidate FP64 [-1, 4]",
        ),
        (
            with_model(inputs=[tensor(), tensor("mask")]),
            "model iris of the candidate requires another input: mask",
        ),
        (with_model(inputs=[]), "model iris of the candidate has no input input"),
        (with_model(outputs=[]), "model iris of the candidate has no output label"),
        (
            with_model(outputs=[tensor("label", "BYTES", [-1])]),
            "output label of model iris is INT64 [-1], that of the candidate BYTES [-1]",
        ),
    ],
)
def test_an_interface_that_refuses_requests(candidate: dict[str, Any], text: str) -> None:
    assert difference(INTERFACE, candidate) == text


@pytest.mark.parametrize("candidate", [None, [], {"routes": 3}, {"models": []}, "x"])
def test_an_unexpected_interface_offers_nothing(candidate: Any) -> None:
    assert difference(INTERFACE, candidate).startswith("the candidate has no route POST /; ")
    assert difference(INTERFACE, candidate).endswith(" and 2 more")
