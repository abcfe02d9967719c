"""tensorflow_client, in process and with a server: the same results and the same errors."""

import numpy as np
import pytest

from cortex_runtime.clients import served
from cortex_runtime.errors import UserError
from cortex_runtime.http.response import to_json

GOOD = ("sum", "words", "scalar", "anyshape", "picky", "echo", "predicting", "default")
A, B = [[1.0, 2.0, 3.0]], [[1.0, 0.0, -1.0]]


@pytest.fixture(scope="module")
def client(open_for_module, models):
    paths = [{"name": name, "path": str(models / name)} for name in GOOD]
    paths.append({"name": "several", "path": str(models / "several"), "signatureKey": "half"})
    return open_for_module({"paths": paths})


@pytest.mark.parametrize(
    ("version", "factor"), [("latest", 10), (None, 10), ("", 10), ("2", 2), (2, 2), ("1", 1), (10, 10)]
)
def test_the_requested_version_answers_and_is_named_in_a_header(client, version, factor):
    answered = []
    token = served.set(answered)
    outputs = client.predict({"a": A, "b": B}, "sum", version)
    served.reset(token)
    np.testing.assert_allclose(outputs["scores"], np.array(A) + factor * np.array(B))
    assert answered == [("sum", factor)]


@pytest.mark.parametrize(
    ("name", "version", "status", "words"),
    [
        ("sum", "3", 404, "available: 1, 2, 10"),
        ("sum", "newest", 400, "must be a number or 'latest'"),
        (
            "nobody",
            None,
            404,
            "available: anyshape, default, echo, picky, predicting, scalar, several, sum, words",
        ),
        (None, None, 404, "the request must name a model: anyshape, default"),
    ],
)
def test_unknown_models_are_a_user_error_that_lists_the_known_ones(client, name, version, status, words):
    with pytest.raises(UserError) as raised:
        client.predict({"a": A, "b": B}, name, version)
    assert raised.value.status == status
    assert words in raised.value.message


def test_outputs_keep_their_shapes_and_types(client):
    outputs = client.predict({"a": A * 2, "b": np.array(B * 2)}, "sum", 1)
    assert list(outputs) == ["best", "scores"]
    assert (outputs["scores"].shape, outputs["scores"].dtype) == ((2, 3), np.float32)
    assert (outputs["best"].shape, outputs["best"].dtype) == ((2,), np.int64)
    outputs["scores"] *= 2
    assert to_json(outputs) == b'{"best":[0,0],"scores":[[4.0,4.0,4.0],[4.0,4.0,4.0]]}'


def test_no_requests_no_results(client):
    outputs = client.predict({"a": np.zeros((0, 3)), "b": np.zeros((0, 3))}, "sum")
    assert outputs["scores"].shape == (0, 3)
    assert client.predict([], "words")["upper"].tolist() == []


def test_texts_and_bytes(client):
    outputs = client.predict({"text": ["abc", "grün", b"xy", {"b64": "YQ=="}]}, "words")
    assert outputs["upper"].tolist() == ["ABC", "GRüN", "XY", "A"]
    assert outputs["length"].tolist() == [3, 5, 2, 1]
    assert client.predict([b"\xff"], "words")["upper"].tolist() == [b"\xff"]
    assert to_json(client.predict(["a"], "words")) == b'{"length":[1],"upper":["A"]}'


def test_scalars(client):
    outputs = client.predict(41, "scalar")
    assert (outputs["y"], outputs["y"].dtype) == (42, np.int64)
    assert outputs["text"] == "41"
    assert to_json(outputs) == b'{"text":"41","y":42}'


@pytest.mark.parametrize("value", [1.5, [1.5], [[[1.5]]]])
def test_any_shape(client, value):
    assert client.predict(value, "anyshape")["y"].tolist() == (-np.array(value)).tolist()


def test_every_type_survives(client, beside):
    from_json = {"bool": [True], "string": ["x"], "complex64": [1 + 2j], "complex128": [1 - 2j]}
    types = beside("savedmodels").TYPES
    outputs = client.predict({name: from_json.get(name, [3]) for name in types}, "echo")
    for name in types:
        output = outputs[f"{name}_out"]
        assert output.tolist() == from_json.get(name, [3]), name
        assert output.dtype == {"bfloat16": np.float32, "string": object}.get(name, name)


def test_inputs_that_the_model_refuses_are_a_user_error(client):
    assert client.predict([1, 2], "picky")["y"].tolist() == [1, 2]
    with pytest.raises(UserError, match=r"refused its input.*x must be positive") as raised:
        client.predict([0], "picky")
    assert raised.value.status == 400


@pytest.mark.parametrize(
    ("model_input", "words"),
    [
        ({"a": A}, "missing input b (the model takes a, b)"),
        ({"a": A, "b": B, "c": B}, "unknown input c (the model takes a, b)"),
        (A, "several inputs, by name: a, b"),
        ({"a": A, "b": [[1, 2]]}, 'input "b": expected float32 of shape [?, 3], got shape [1, 2]'),
        (
            {"a": A, "b": [["x", "y", "z"]]},
            'input "b": expected float32 of shape [?, 3]: expected numbers, got text',
        ),
        ({"a": A, "b": None}, 'input "b": expected float32 of shape [?, 3]'),
        ({"a": A * 3, "b": B * 2}, "refused its input: Incompatible shapes: [2,3] vs. [3,3]"),
    ],
)
def test_an_invalid_input_is_named(client, model_input, words):
    with pytest.raises(UserError) as raised:
        client.predict(model_input, "sum")
    assert raised.value.status == 400
    assert words in raised.value.message


@pytest.mark.parametrize(
    ("name", "key"), [("several", "half"), ("predicting", "predict"), ("default", "serving_default")]
)
def test_the_signature_is_the_configured_one_or_else_the_usual_one(client, name, key):
    assert client.signature(name)["key"] == key
    outputs = client.predict([4.0], name)
    assert {output: array.tolist() for output, array in outputs.items()} == (
        {"z": [2.0]} if key == "half" else {"y": [8.0]}
    )


def test_the_signature_has_shapes_and_types(client):
    assert client.signature("sum") == {
        "key": "serving_default",
        "inputs": {"a": {"shape": [-1, 3], "type": "float32"}, "b": {"shape": [-1, 3], "type": "float32"}},
        "outputs": {
            "best": {"shape": [-1], "type": "int64"},
            "scores": {"shape": [-1, 3], "type": "float32"},
        },
    }
    assert client.signature("anyshape")["inputs"] == {"x": {"shape": None, "type": "float32"}}
    assert client.signature("scalar")["inputs"] == {"x": {"shape": [], "type": "int64"}}


def test_info_lists_the_models(client):
    entry = next(entry for entry in client.info() if entry["name"] == "sum")
    entry.pop("memory", None)
    assert entry == {
        "name": "sum",
        "versions": ["1", "2", "10"],
        "loaded": ["1", "2", "10"],
        **client.signature("sum"),
    }


def test_a_large_message(client):
    rows = np.ones((1_000_000, 3), np.float32)
    assert client.predict({"a": rows, "b": rows}, "sum", 1)["scores"].sum() == 6_000_000
