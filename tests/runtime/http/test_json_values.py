"""Values at the limits of JSON: units of time, keys, depth, and types that resemble values."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
from starlette.datastructures import FormData

from cortex_runtime.http.json_encoder import NotSerializable, dumps

BIG = 2**70
"""A value that orjson refuses, so that its parents are encoded in the other way."""


@pytest.mark.parametrize(
    ("count", "unit", "text"),
    [
        (2, "W", "P14D"),
        (3, "D", "P3D"),
        (36, "h", "P1DT12H"),
        (90, "m", "PT1H30M"),
        (61, "s", "PT1M1S"),
        (1500, "ms", "PT1.5S"),
        (-1, "us", "-PT0.000001S"),
        (10, "ns", "PT0.00000001S"),
        (1, "ps", "PT0.000000000001S"),
        (1, "fs", "PT0.000000000000001S"),
        (1, "as", "PT0.000000000000000001S"),
        (-86_400_500, "ms", "-P1DT0.5S"),
        (0, "ns", "PT0S"),
        (10, "s", "PT10S"),
        (-3, "M", "-P3M"),
        (0, "M", "P0M"),
        (2, "Y", "P2Y"),
    ],
)
def test_a_duration_in_each_unit(count, unit, text):
    assert dumps(np.timedelta64(count, unit)) == f'"{text}"'.encode()


def test_durations_with_several_units_and_without_a_unit():
    assert dumps(np.array([3], "m8[5m]")) == b'["PT15M"]'
    assert dumps(np.array([3], "m8[2W]")) == b'["P42D"]'
    assert dumps(np.timedelta64("NaT")) == b"null"
    with pytest.raises(NotSerializable, match="a duration without a unit"):
        dumps(np.timedelta64(3))


@pytest.mark.parametrize(
    ("moment", "text"),
    [
        ("2024", "2024-01-01T00:00:00"),
        ("2024-05-06", "2024-05-06T00:00:00"),
        ("2024-05-06T07:08", "2024-05-06T07:08:00"),
        ("2024-05-06T07:08:10", "2024-05-06T07:08:10"),
        ("2024-05-06T07:08:09.100", "2024-05-06T07:08:09.100000"),
        ("2024-05-06T07:08:09.000000100", "2024-05-06T07:08:09.000000100"),
        ("2024-05-06T07:08:09.000000", "2024-05-06T07:08:09"),
    ],
)
def test_a_time_with_as_many_digits_as_it_needs(moment, text):
    for value in (np.datetime64(moment), {"at": np.datetime64(moment), "n": BIG}):
        assert text in dumps(value).decode()


@dataclasses.dataclass
class Plain:
    value: object
    _hidden: int = 1


@dataclasses.dataclass(slots=True)
class Slotted:
    value: object
    _hidden: int = 1


def with_more(value):
    found = Plain(value)
    found.more = 3
    return found


@pytest.mark.parametrize("value", [1, BIG])
def test_dataclasses_have_the_same_json_with_and_without_large_integers(value):
    assert dumps(Slotted(value)) == f'{{"value":{value}}}'.encode()
    assert dumps(Plain(value)) == f'{{"value":{value}}}'.encode()
    assert dumps(with_more(value)) == f'{{"value":{value},"more":3}}'.encode()


class Celsius(float):
    """A subclass of float."""


def test_a_subclass_of_float():
    assert dumps([Celsius(1.5)]) == b"[1.5]"
    assert dumps([Celsius(1.5), BIG]) == f"[1.5,{BIG}]".encode()
    assert dumps([np.longdouble("1.5"), np.longdouble("inf")]) == b"[1.5,null]"


@pytest.mark.parametrize(
    ("key", "text"),
    [
        (None, "null"),
        (True, "true"),
        (1.5, "1.5"),
        (BIG, str(BIG)),
        (np.int64(3), "3"),
        (np.datetime64("2024-05-06"), "2024-05-06T00:00:00"),
        ("[a", "[a"),
    ],
)
def test_a_key_is_the_text_of_its_value(key, text):
    assert dumps({key: BIG}) == f'{{"{text}":{BIG}}}'.encode()


@pytest.mark.parametrize("key", [(1, 2), float("nan"), b"a", frozenset((1,))])
def test_a_key_that_has_no_text_is_refused(key):
    with pytest.raises(NotSerializable) as error:
        dumps({"a": {key: 1}})
    name = type(key).__name__
    assert str(error.value) == f'result["a"] has the key {key!r}, and a {name} can\'t be a key in JSON'


def test_two_keys_of_one_text_are_refused():
    with pytest.raises(NotSerializable) as error:
        dumps({1: 1, "1": 2})
    assert str(error.value) == 'result has two keys that are "1" in JSON'


def nested(levels, wrap):
    value = BIG
    for _ in range(levels):
        value = wrap(value)
    return value


@pytest.mark.parametrize("wrap", [lambda value: [value], lambda value: {"a": value}, Plain])
def test_as_many_levels_as_orjson_has(wrap):
    assert dumps(nested(251, wrap)).count(b"0") > 0
    with pytest.raises(NotSerializable, match=r"^result.*\.\.\. is nested more than 250 levels deep"):
        dumps(nested(252, wrap))


class Broken:
    """An array of another library."""

    def __init__(self, error):
        self.error = error

    def tolist(self):
        raise self.error


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (FormData([("a", "b")]), "result is a starlette.datastructures.FormData, which can't be written as JSON"),
        ([np.float64], "result[0] is a type, which can't be written as JSON"),
        ([Plain], "result[0] is a type, which can't be written as JSON"),
        ([Broken(ValueError())], f"result[0] is a {__name__}.Broken, which can't be written as JSON"),
        ([Broken(ValueError("why"))], f"result[0] is a {__name__}.Broken, which can't be written as JSON: why"),
        ([np.complex64(1)], "result[0] is a complex, which can't be written as JSON"),
        ([np.array([object()])], "result[0][0] is a object, which can't be written as JSON"),
        (
            np.ma.array([(1,)], dtype=[("a", "i4")]),
            "result is a numpy.ma.MaskedArray of [('a', '<i4')], which can't be written as JSON: records with masks",
        ),
        (
            pd.DataFrame([[1, 2]], columns=["a", "a"]),
            "result is a pandas.DataFrame, which can't be written as JSON: two columns are named 'a'",
        ),
        ([pd.Series([1]).rolling(1)], None),
        ("a\udcff", "result is a str that UTF-8 can't encode: surrogates not allowed"),
        ({"k\udcff": 1}, 'result["k\\udcff"] is a str that UTF-8 can\'t encode: surrogates not allowed'),
    ],
)  # fmt: skip
def test_values_of_unsupported_types_are_named(value, message):
    with pytest.raises(NotSerializable) as error:
        dumps(value)
    if message is not None:
        assert (
            str(error.value).replace("numpy.ma.core.", "numpy.ma.").replace("pandas.core.frame.", "pandas.")
            == message
        )


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (np.ma.array([[1, 2], [3, 4]], mask=[[0, 1], [1, 0]]), "[[1,null],[null,4]]"),
        (np.array([(1, 2.5)], [("a", "i4"), ("b", "f8")]), '[{"a":1,"b":2.5}]'),
        (np.array([1, 2], ">i4"), "[1,2]"),
        (np.array(1, ">i4"), "1"),
        ([np.void(b"ab")], '[{"b64":"YWI="}]'),
        (pd.Series(pd.Categorical(["a", "b"])), '["a","b"]'),
        (pd.Series([1, None], dtype="Int64"), "[1,null]"),
        (pd.MultiIndex.from_tuples([(1, 2)]), "[[1,2]]"),
        (pd.Interval(0, 1), '"(0, 1]"'),
        (pd.Timedelta("1.5s"), '"PT1.5S"'),
    ],
)
def test_values_of_numpy_and_pandas(value, text):
    assert dumps(value) == text.encode()
    assert dumps([value, BIG]) == f"[{text},{BIG}]".encode()
