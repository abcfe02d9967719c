"""Every type of ONNX tensors as input and output, or the reason why it is not supported: the rows of docs/models.md."""

import itertools
import json

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from cortex_runtime.errors import StartError, UserError
from cortex_runtime.http import json_encoder, json_parser
from tests.runtime.dtypes import models
from tests.runtime.dtypes.models import CAST, IDENTITY, REFUSED

INTEGERS = {
    "int8": (-(2**7), 2**7 - 1),
    "int16": (-(2**15), 2**15 - 1),
    "int32": (-(2**31), 2**31 - 1),
    "int64": (-(2**63), 2**63 - 1),
    "uint8": (0, 2**8 - 1),
    "uint16": (0, 2**16 - 1),
    "uint32": (0, 2**32 - 1),
    "uint64": (0, 2**64 - 1),
    "int4": (-8, 7),
    "uint4": (0, 15),
    "int2": (-2, 1),
    "uint2": (0, 3),
}
LARGEST = {
    "float16": 65504.0,
    "bfloat16": 3.3895313892515355e38,
    "float32": 3.4028234663852886e38,
    "float64": 1.7976931348623157e308,
    "float8e4m3fn": 448.0,
    "float8e4m3fnuz": 240.0,
    "float8e5m2": 57344.0,
    "float8e5m2fnuz": 57344.0,
}
INEXACT = {"bfloat16", "float8e4m3fn", "float8e4m3fnuz", "float8e5m2", "float8e5m2fnuz"}


@pytest.fixture(scope="module")
def echo(open_model_for_module):
    """Send JSON through a model whose output is its input; return the JSON of the output."""
    clients = {name: open_model_for_module(models.identity(code)) for name, code in IDENTITY.items()} | {
        name: open_model_for_module(models.through(code)) for name, code in CAST.items()
    }

    def through(name, body):
        value = json_parser.loads(body.encode() if isinstance(body, str) else body)
        if name in CAST:
            wide, _ = clients[name].predict({"x": value, "z": []})
            _, back = clients[name].predict({"x": [], "z": wide})
            np.testing.assert_array_equal(wide, back.astype(np.float32))
            return json.loads(json_encoder.dumps(back))
        return json.loads(json_encoder.dumps(clients[name].predict(value)[0]))

    through.clients = clients
    return through


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, limits in INTEGERS.items() for value in (*limits, 0, 1)]
)
def test_every_integer_of_a_type_is_returned_unchanged(echo, name, value):
    assert echo(name, json.dumps([value])) == [value]
    assert echo(name, f"[{value}, 1]") == [value, 1]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (name, value)
        for name, (low, high) in INTEGERS.items()
        for value in (low - 1, high + 1, 10**30, 2**63, -(2**63) - 1)
        if not low <= value <= high
    ],
    ids=lambda value: value if isinstance(value, str) else str(value % 9973),
)
def test_an_integer_out_of_range_is_refused_by_name(echo, name, value):
    with pytest.raises(UserError) as raised:
        echo(name, f"[{value}]")
    assert raised.value.status == 400
    assert f"{value} does not fit into {name}" in raised.value.message


@pytest.mark.parametrize("name", INTEGERS)
@pytest.mark.parametrize(
    "body", ["[0.5]", "[1, 1.5]", "[1e30]", '["1"]', "[null]", "[1, null]", "[{}]", "[[1], [1, 2]]"]
)
def test_values_that_are_not_integers_are_refused(echo, name, body):
    with pytest.raises(UserError) as raised:
        echo(name, body)
    assert raised.value.status == 400


@pytest.mark.parametrize("name", INTEGERS)
def test_whole_numbers_and_booleans_are_integers(echo, name):
    assert echo(name, "[1.0, 0e0, true, false]") == [1, 0, 1, 0]
    assert echo(name, "1") == [1]
    assert echo(name, "[]") == []


@pytest.mark.parametrize("body", ["[9007199254740993.0]", "[1e300]", "[-9007199254740993.0, 1]"])
def test_a_float_that_may_have_been_rounded_is_not_an_integer(echo, body):
    with pytest.raises(UserError):
        echo("int64", body)


@pytest.mark.parametrize(("name", "largest"), LARGEST.items())
def test_floats_reach_to_the_largest_and_are_refused_beyond(echo, name, largest):
    assert echo(name, f"[{largest!r}, -{largest!r}, 0.5, -2]") == pytest.approx(
        [largest, -largest, 0.5, -2], rel=1e-6
    )
    if name != "float64":
        with pytest.raises(UserError, match="does not fit into"):
            echo(name, f"[1, {largest * 1.2!r}]")
        with pytest.raises(UserError, match="does not fit into"):
            echo(name, f"[{10**300}, 0.5]")
    client = echo.clients[name]
    for value in ([10**400], [0.5, -(10**400)], 10**5000):
        with pytest.raises(UserError, match="does not fit into"):
            client.predict(value)


@pytest.mark.parametrize("name", [*LARGEST])
@pytest.mark.parametrize("body", ['["1.5"]', "[null]", "[1.5, null]", "[{}]", "[[1], [1, 2]]", '[1, "x"]'])
def test_values_that_are_not_numbers_are_refused(echo, name, body):
    with pytest.raises(UserError) as raised:
        echo(name, body)
    assert raised.value.status == 400


@pytest.mark.parametrize(
    ("name", "fits", "largest", "beyond"),
    [
        ("float16", 65519.9, 65504, 65520),
        ("bfloat16", 3.3961e38, 3.3895313892515355e38, 3.3962e38),
        ("float8e4m3fn", 464, 448, 464.1),
        ("float8e4m3fnuz", 247.9, 240, 248),
        ("float8e5m2", 61439, 57344, 61440),
        ("float8e5m2fnuz", 61439, 57344, 61440),
    ],
)
def test_numbers_just_beyond_the_largest_are_rounded_to_it(echo, name, fits, largest, beyond):
    assert echo(name, f"[{fits!r}, -{fits!r}]") == pytest.approx([largest, -largest], rel=1e-6)
    with pytest.raises(UserError, match="does not fit into"):
        echo(name, f"[{beyond!r}]")


@given(st.lists(st.floats(-400, 400) | st.integers(-400, 400), max_size=8))
def test_small_floats_round_as_ml_dtypes_does(echo, values):
    import ml_dtypes

    for name in INEXACT:
        spelled = name if name == "bfloat16" else f"float8_{name.removeprefix('float8')}"
        theirs = np.array(values, np.float32).astype(getattr(ml_dtypes, spelled)).astype(np.float32)
        if np.isfinite(theirs).all():
            np.testing.assert_array_equal(np.float32(echo(name, json.dumps(values))), theirs)


@given(
    st.lists(st.integers(-(2**70), 2**70) | st.integers(-300, 300), max_size=5), st.sampled_from([*INTEGERS])
)
@settings(max_examples=200)
def test_integers_are_unchanged_or_refused(echo, values, name):
    low, high = INTEGERS[name]
    try:
        answer = echo(name, json.dumps(values))
    except UserError:
        assert any(not low <= value <= high for value in values)
        return
    assert answer == values


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False) | st.integers(), max_size=5))
@settings(max_examples=200)
def test_floats_are_rounded_to_the_nearest_or_refused(echo, values):
    assert echo("float64", json.dumps(values)) == [float(value) for value in values]
    with np.errstate(over="ignore"):
        nearest = np.array([float(value) for value in values]).astype(np.float32)
    if np.isfinite(nearest).all():
        np.testing.assert_array_equal(np.float32(echo("float32", json.dumps(values))), nearest)
    else:
        with pytest.raises(UserError):
            echo("float32", json.dumps(values))


def test_not_a_number_and_infinity_pass_and_are_null_in_json(echo):
    for name in ("float16", "float32", "float64", "bfloat16", "float8e5m2"):
        (array,) = echo.clients[name].predict(np.array([np.nan, np.inf, -np.inf, 1], np.float32))
        np.testing.assert_array_equal(
            array.astype(np.float32), np.array([np.nan, np.inf, -np.inf, 1], np.float32)
        )
        assert json.loads(json_encoder.dumps(array)) == [None, None, None, 1.0]
    with pytest.raises(UserError, match="infinity does not fit"):
        echo.clients["float8e4m3fn"].predict(np.array([np.inf], np.float32))


def test_booleans_are_booleans_or_0_and_1(echo):
    assert echo("bool", "[true, false, 1, 0]") == [True, False, True, False]
    for body in ("[2]", "[-1]", "[0.5]", "[1.0]", '["true"]', "[null]", "[true, 2]"):
        with pytest.raises(UserError):
            echo("bool", body)


def test_text_inputs_accept_only_text(echo):
    assert echo("str_", '["a", "gr\\u00fcn", "", "a\\u0000b"]') == ["a", "grün", "", "a\0b"]
    assert echo.clients["str_"].predict(np.array([b"gr\xc3\xbcn"]))[0].tolist() == ["grün"]
    for value in ([1], [None], ["a", 1], [b"\xff"], ["\ud800"], [["a"], ["b", "c"]], {"x": [{}]}):
        with pytest.raises(UserError):
            echo.clients["str_"].predict(value)


@pytest.mark.parametrize(("name", "code"), REFUSED.items())
def test_types_that_onnxruntime_has_not_are_refused_when_the_model_is_loaded(open_model, name, code):
    with pytest.raises(StartError) as raised:
        open_model(models.identity(code))
    assert name in raised.value.message


def test_every_type_of_the_onnx_package_is_in_this_test():
    named = {*IDENTITY.values(), *CAST.values(), *REFUSED.values(), TensorProto.UNDEFINED}
    # onnxruntime has no kernels for these types, so it cannot load a model that uses them.
    rest = {code for name, code in TensorProto.DataType.items() if name.startswith(("FLOAT4", "FLOAT6"))}
    assert {*TensorProto.DataType.values()} == named | rest


@pytest.mark.parametrize(
    "array",
    [
        np.array([1, 2], ">i4"),
        np.arange(4, dtype=np.float32)[::3],
        np.array([1, 2], np.longdouble),
        np.array([1, 2], object),
        np.ma.array([1, 2], mask=[False, False]),
        np.array([1, 2], np.float16),
    ],
    ids=["big-endian", "strided", "longdouble", "object", "mask of nothing", "float16"],
)
def test_arrays_of_other_layouts_become_the_models(echo, array):
    assert echo.clients["float32"].predict(array)[0].tolist() == [float(each) for each in array]
    assert echo.clients["int64"].predict(array)[0].tolist() == [int(each) for each in array]


@pytest.mark.parametrize(
    "array",
    [
        np.ma.array([1, 2], mask=[False, True]),
        np.array(["2024-01-01"], "M8[D]"),
        np.array([5], "m8[s]"),
        np.array([(1, 2.0)], [("a", "i4"), ("b", "f8")]),
        np.array([1j]),
        np.array([1, None], object),
        {1, 2},
        iter([1]),
    ],
    ids=["masked", "dates", "durations", "records", "complex", "null", "set", "iterator"],
)
@pytest.mark.parametrize("name", ["float32", "int64", "bool", "int4", "bfloat16"])
def test_arrays_of_other_kinds_are_refused(echo, name, array):
    client = echo.clients[name]
    with pytest.raises(UserError) as raised:
        client.predict({"x": array, "z": []} if name in CAST else array)
    assert 'input "x"' in raised.value.message


def test_decimals_and_fractions_are_numbers(echo):
    from decimal import Decimal
    from fractions import Fraction

    assert echo.clients["float64"].predict([Decimal("0.1"), Fraction(1, 4)])[0].tolist() == [0.1, 0.25]
    assert echo.clients["int64"].predict([Decimal(2**62 + 1), Fraction(6, 2)])[0].tolist() == [2**62 + 1, 3]
    for value in (Decimal("0.5"), Fraction(1, 3), Decimal("NaN"), Decimal("Infinity")):
        with pytest.raises(UserError):
            echo.clients["int64"].predict([value])


@pytest.mark.parametrize("name", sorted(IDENTITY))
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 1, 3), (0, 4)], ids=str)
def test_an_input_of_any_rank_keeps_its_shape(open_model, name, shape):
    client = open_model(models.identity(IDENTITY[name], None))
    assert client.signature()["inputs"]["x"]["shape"] is None
    value = (
        np.full(shape, "a", object)
        if name == "str_"
        else np.ones(shape, np.uint8).astype("bool" if name == "bool" else "u1")
    )
    (array,) = client.predict(value)
    assert np.shape(array) == shape


def test_a_single_value_is_not_a_list(open_model):
    client = open_model(models.identity(TensorProto.FLOAT, ()))
    assert [np.shape(client.predict(value)[0]) for value in (5, [5], [[5]])] == [()] * 3
    with pytest.raises(UserError, match=r"expected shape \[\], got \[2\]"):
        client.predict([1, 2])


@pytest.mark.parametrize(
    ("given_", "wanted", "right"),
    [
        ((6,), (2, 3), True),
        ((2, 3), (6,), True),
        ((2, 3), ("n", 6), True),
        ((3,), ("n", 3), True),
        ((1, 3, 1), (3,), True),
        ((4, 6), (4, 2, 3), True),
        ((3, 2), (2, 3), False),
        ((4, 4, 3), (1, 3, 4, 4), False),
        ((2, 6), ("n", 3), False),
        ((6, 2), (4, "n"), False),
        ((5,), ("n", 2), False),
        ((2, 2), ("n", "m", 2), False),
        ((0,), ("n", 3), True),
        ((), (1, 1), True),
    ],
    ids=str,
)
def test_values_are_reshaped_only_if_their_order_determines_it(open_model, given_, wanted, right):
    client = open_model(models.identity(TensorProto.FLOAT, wanted))
    values = np.arange(np.prod(given_, dtype=int), dtype=np.float32).reshape(given_)
    if right:
        array = client.predict(values)[0]
        assert array.ravel().tolist() == values.ravel().tolist()
        assert len(array.shape) == len(wanted)
    else:
        with pytest.raises(UserError, match="expected shape"):
            client.predict(values.tolist())


FLOAT = TensorProto.FLOAT
SCALED = models.model(
    [helper.make_node("Mul", ["length", "factor"], ["y"])],
    [models.tensor("length", FLOAT, ["n"]), models.tensor("factor", FLOAT, [1])],
    [models.tensor("y", FLOAT, ["n"])],
    [onnx.numpy_helper.from_array(np.array([3], np.float32), "factor")],
)


def test_an_input_with_a_default_is_optional(open_model):
    client = open_model(SCALED)
    assert client.predict([1, 2])[0].tolist() == [3, 6]
    assert client.predict({"length": [1, 2]})[0].tolist() == [3, 6]
    assert client.predict({"length": [1, 2], "factor": 5})[0].tolist() == [5, 10]
    assert client.signature()["inputs"]["factor"] == {"shape": [1], "type": "float32", "optional": True}
    for factor in ("5", [1, 2], None):
        with pytest.raises(UserError, match='input "factor"'):
            client.predict({"length": [1, 2], "factor": factor})


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (
            {"lenght": [1]},
            "missing input length and unknown input lenght (the model takes length, factor); did you mean length?",
        ),
        (
            {"length": [1], "fcator": 5},
            "unknown input fcator (the model takes length, factor); did you mean factor?",
        ),
        ({"length": [1], 7: 5}, "unknown input 7 (the model takes length, factor)"),
        ({}, "missing input length (the model takes length, factor)"),
    ],
)
def test_an_unknown_input_name_is_refused_with_the_closest_match(open_model, value, words):
    with pytest.raises(UserError) as raised:
        open_model(SCALED).predict(value)
    assert (raised.value.status, raised.value.message) == (400, words)


def test_a_model_without_inputs_accepts_only_an_empty_input(open_model):
    constant = onnx.numpy_helper.from_array(np.ones(2, np.float32))
    client = open_model(
        models.model(
            [helper.make_node("Constant", [], ["y"], value=constant)], [], [models.tensor("y", FLOAT, [2])]
        )
    )
    for nothing in (None, [], {}, b""):
        assert client.predict(nothing)[0].tolist() == [1, 1]
    for something in ([1], 5, {"x": 1}):
        with pytest.raises(UserError, match="no input"):
            client.predict(something)


@pytest.mark.parametrize(
    ("node", "shapes", "values", "words"),
    [
        ("Add", (["n"], ["n"]), ([1, 2], [1, 2, 3]), 'dimension "n" is 2 in "a", 3 in "b"; Add node'),
        ("Add", (["n"], ["m"]), ([1, 2], [1, 2, 3]), "axis"),
        ("MatMul", (["n", "m"], ["k", "l"]), ([[1, 2]], [[1, 2]]), "MatMul node"),
        ("Concat", (["n", "m"], ["k", "l"]), ([[1, 2]], [[1]]), "Concat node"),
    ],
)
def test_inputs_that_do_not_fit_each_other_are_the_callers_error(open_model, node, shapes, values, words):
    more = {"axis": 0} if node == "Concat" else {}
    client = open_model(
        models.model(
            [helper.make_node(node, ["a", "b"], ["y"], **more)],
            [models.tensor("a", FLOAT, shapes[0]), models.tensor("b", FLOAT, shapes[1])],
            [models.tensor("y", FLOAT, None)],
        )
    )
    with pytest.raises(UserError) as raised:
        client.predict(dict(zip("ab", values, strict=True)))
    assert raised.value.status == 400
    assert words in raised.value.message
    assert "onnxruntime" not in raised.value.message


def test_running_out_of_memory_is_not_the_callers_error(open_model):
    client = open_model(
        models.model(
            [helper.make_node("Expand", ["a", "b"], ["y"])],
            [models.tensor("a", FLOAT, ["n"]), models.tensor("b", TensorProto.INT64, ["k"])],
            [models.tensor("y", FLOAT, None)],
        )
    )
    with pytest.raises(Exception, match=r"allocate|memory") as raised:
        client.predict({"a": [1], "b": [2**40, 2**10]})
    assert not isinstance(raised.value, UserError)


def test_sequences_and_maps_become_lists_and_objects(open_model):
    kind = helper.make_map_type_proto(TensorProto.INT64, helper.make_tensor_type_proto(FLOAT, []))
    client = open_model(
        models.model(
            [helper.make_node("ZipMap", ["x"], ["y"], classlabels_int64s=[4, 5], domain="ai.onnx.ml")],
            [models.tensor("x", FLOAT, ["n", 2])],
            [helper.make_value_info("y", helper.make_sequence_type_proto(kind))],
        )
    )
    assert json_encoder.dumps(client.predict([[0.25, 0.75]])) == b'[[{"4":0.25,"5":0.75}]]'


def test_types_that_numpy_has_not_mix_with_others_in_one_model(open_model):
    names = ["float32", "bool", "bfloat16", "int64", "float8e5m2"]
    nodes = [helper.make_node("Identity", [f"x{name}"], [f"y{name}"]) for name in names]
    client = open_model(
        models.model(
            nodes,
            [models.tensor(f"x{name}", IDENTITY[name], ["n"]) for name in names],
            [models.tensor(f"y{name}", IDENTITY[name], ["n"]) for name in names],
        )
    )
    values = [[1.5], [True], [2.5], [2**60], [-4]]
    outputs = client.predict({f"x{name}": value for name, value in zip(names, values, strict=True)})
    assert [output.tolist() for output in outputs] == values
    assert [each["type"] for each in client.signature()["outputs"].values()] == names


def test_odd_numbers_of_packed_values_keep_their_order(open_model):
    client = open_model(models.through(TensorProto.INT4))
    for count in range(9):
        values = list(itertools.islice(itertools.cycle([-8, 7, 0, -1]), count))
        wide, back = client.predict({"x": values, "z": values})
        assert (wide.tolist(), back.tolist()) == (values, values)
