"""The served signature, and the values of a request as arrays; errors name the invalid part."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cortex_runtime.clients.tfserving.signature import (
    NUMPY_TYPES,
    Signature,
    Tensor,
    check,
    choose_key,
)
from cortex_runtime.errors import StartError, UserError

PAIR = Tensor("x", "float32", (None, 2))
TWO = Signature("s", {"a": PAIR, "b": Tensor("b", "int64", ())}, {})


def convert(dtype, value, shape=(None,)):
    return Tensor("x", dtype, shape).convert(value)


@pytest.mark.parametrize(
    ("keys", "configured", "chosen"),
    [
        (["only"], None, "only"),
        (["a", "serving_default"], None, "serving_default"),
        (["predict", "serving_default"], None, "predict"),
        (["a", "b"], "b", "b"),
        (["only", "__saved_model_init_op"], None, "only"),
    ],
)
def test_the_signature_that_is_served(keys, configured, chosen):
    assert choose_key(keys, configured) == chosen


@pytest.mark.parametrize(
    ("keys", "configured", "words"),
    [
        (["a", "b"], None, "set signatureKey to one of a, b"),
        (["a", "b"], "c", 'no signature "c" (signatureKey); it has a, b'),
        ([], None, "has no signature"),
        (["__saved_model_init_op"], None, "has no signature"),
    ],
)
def test_an_ambiguous_choice_lists_the_alternatives(keys, configured, words):
    with pytest.raises(StartError) as raised:
        choose_key(keys, configured)
    assert raised.value.reason == "ModelInvalid"
    assert words in raised.value.message


def test_a_signature_without_inputs_or_with_a_type_that_has_no_values_is_refused():
    with pytest.raises(StartError, match="has no inputs"):
        check(Signature("s", {}, {}))
    with pytest.raises(StartError, match='input "x" has the type resource'):
        check(Signature("s", {"x": Tensor("x", "resource", ())}, {}))


@pytest.mark.parametrize(
    ("dtype", "value", "expected"),
    [
        ("float32", [1, 2.5], [1.0, 2.5]),
        ("float64", np.float32([0.5]), [0.5]),
        ("int64", [1, -2], [1, -2]),
        ("int64", np.uint8([200]), [200]),
        ("uint8", [0, 255], [0, 255]),
        ("uint64", [1, 2**64 - 1], [1, 2**64 - 1]),
        ("int32", [True, False], [1, 0]),
        ("int32", [2.0, -3.0], [2, -3]),
        ("int64", [2**62 + 1, 1.0], [2**62 + 1, 1]),
        ("bool", [1, 0, True], [True, False, True]),
        ("bool", [True, False], [True, False]),
        ("complex64", [1, 2j], [1 + 0j, 2j]),
        ("string", ["ä", b"\xff", {"b64": "AAE="}], ["ä".encode(), b"\xff", b"\x00\x01"]),
        ("string", np.array(["a", "b"]), [b"a", b"b"]),
        ("float32", [], []),
        ("string", [], []),
    ],
)
def test_values_become_arrays(dtype, value, expected):
    array = convert(dtype, value)
    assert array.tolist() == expected


def test_an_array_of_the_right_type_is_not_copied():
    array = np.zeros((3, 2), np.float32)
    assert PAIR.convert(array) is array


@pytest.mark.parametrize(
    ("dtype", "value", "words"),
    [
        ("int32", [1.5], "expected whole numbers, got 1.5"),
        ("int8", [1, 128], "128 does not fit into int8"),
        ("uint8", [-1], "-1 does not fit into uint8"),
        ("int64", [2**64], "18446744073709551616 does not fit into int64"),
        ("uint64", [1, -1], "expected uint64 of shape [?]"),
        ("float16", [1e6], "1000000.0 does not fit into float16"),
        ("float32", ["1"], "expected numbers, got text"),
        ("float32", [None], "expected numbers, got null"),
        ("float32", [1j], "got complex numbers"),
        ("bool", [2], "expected true, false, 0 or 1"),
        ("string", [1], "expected strings or bytes, got int"),
        ("string", [["a"], ["b", "c"]], "its lists differ in length"),
        ("string", [{"b64": "*"}], "b64 is not base64"),
        ("float32", [[1], [1, 2]], "its lists differ in length"),
        ("float32", {"a": 1}, "expected float32 of shape [?]"),
    ],
)
def test_values_of_another_type_are_the_callers_error(dtype, value, words):
    with pytest.raises(UserError) as raised:
        convert(dtype, value)
    assert raised.value.status == 400
    assert 'input "x"' in raised.value.message
    assert words in raised.value.message


@pytest.mark.parametrize(
    ("shape", "value", "words"),
    [
        ((None, 2), [1, 2], "expected float32 of shape [?, 2], got shape [2]"),
        ((None, 2), [[1, 2, 3]], "expected float32 of shape [?, 2], got shape [1, 3]"),
        ((), [1], "expected one float32, got shape [1]"),
        ((3,), 1, "expected float32 of shape [3], got shape []"),
    ],
)
def test_values_of_another_shape_are_the_callers_error(shape, value, words):
    with pytest.raises(UserError) as raised:
        convert("float32", value, shape)
    assert words in raised.value.message


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=3),
    lambda inside: (
        st.lists(inside, max_size=3) | st.dictionaries(st.sampled_from(["b64", "x"]), inside, max_size=2)
    ),
    max_leaves=8,
)


@given(json_values, st.sampled_from(sorted(NUMPY_TYPES)), st.sampled_from([None, (), (None,), (None, 2)]))
def test_every_value_is_an_array_of_the_right_type_or_a_user_error(value, dtype, shape):
    try:
        array = convert(dtype, value, shape)
    except UserError:
        return
    assert array.dtype == NUMPY_TYPES[dtype]
    assert shape is None or array.ndim == len(shape)


def test_any_shape_will_do_when_the_rank_is_unknown():
    assert convert("float32", [[[1]]], None).shape == (1, 1, 1)


def test_the_only_input_may_come_without_its_name():
    one = Signature("s", {"x": PAIR}, {})
    assert one.feed([[1, 2]])["x"].tolist() == [[1, 2]]
    assert one.feed({"x": [[1, 2]]})["x"].tolist() == [[1, 2]]
    text = Signature("s", {"x": Tensor("x", "string", ())}, {})
    assert text.feed({"b64": "AAE="})["x"].item() == b"\x00\x01"


@pytest.mark.parametrize(
    ("model_input", "words"),
    [
        ({"a": [[1, 2]]}, "missing input b (the model takes a, b)"),
        ({"a": [[1, 2]], "b": 1, "c": 1}, "unknown input c (the model takes a, b)"),
        ([[1, 2]], "several inputs, by name: a, b"),
        (None, "several inputs, by name: a, b"),
    ],
)
def test_missing_and_superfluous_inputs_are_named(model_input, words):
    with pytest.raises(UserError) as raised:
        TWO.feed(model_input)
    assert words in raised.value.message


INTEGERS = {name: np.iinfo(dtype) for name, dtype in NUMPY_TYPES.items() if np.issubdtype(dtype, np.integer)}


@pytest.mark.parametrize("dtype", INTEGERS)
def test_integers_are_accepted_up_to_the_limits_of_each_type(dtype):
    low, high = int(INTEGERS[dtype].min), int(INTEGERS[dtype].max)
    assert convert(dtype, [low, high, 0, 1.0, True]).tolist() == [low, high, 0, 1, 1]
    for value in (low - 1, high + 1, 10**30, 0.5, 2.0**53, float("nan"), None, "1"):
        if isinstance(value, float) and value == 2.0**53 and high < value:
            continue
        with pytest.raises(UserError):
            convert(dtype, [value, 1])


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_floats_are_rounded_to_the_nearest_and_refused_beyond_the_largest(dtype):
    largest = {"float16": 65504.0, "bfloat16": 3.3895313892515355e38, "float32": 3.4028234663852886e38}.get(
        dtype, 1.7976931348623157e308
    )
    assert convert(dtype, [largest, -largest, float("inf")]).tolist() == [largest, -largest, float("inf")]
    assert convert(dtype, [2049, 0.1]).tolist() == convert(dtype, np.array([2049, 0.1])).tolist()
    for value in (largest * 1.2 if dtype != "float64" else 10**400, 10**5000, "1", None, 1j):
        with pytest.raises(UserError):
            convert(dtype, [value])


def test_a_misspelt_name_is_refused_with_the_closest():
    named = Signature("s", {"length": PAIR, "width": PAIR}, {})
    with pytest.raises(UserError) as raised:
        named.feed({"lenght": [[1, 2]], "width": [[1, 2]]})
    assert raised.value.message == (
        "missing input length and unknown input lenght (the model takes length, width); did you mean length?"
    )
