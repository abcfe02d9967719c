"""The JSON of a handler's result for each type, or an error with the path to the value. The rows of docs/handlers.md."""

import collections
import dataclasses
import enum
import json
import types
import uuid
from array import array
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from fractions import Fraction

import ml_dtypes
import numpy as np
import pandas as pd
import pydantic
import pytest
import scipy.sparse
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from cortex_runtime.http.json_encoder import NotSerializable, dumps
from cortex_runtime.http.response import encode

Point = collections.namedtuple("Point", "x y")


class Color(enum.Enum):
    RED = "red"


class Huge(enum.IntEnum):
    ONE = 2**70


@dataclasses.dataclass
class Score:
    label: str
    value: object


class Model(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(arbitrary_types_allowed=True)
    at: datetime
    scores: object


class Tensor:
    """An array with the interface of other libraries' tensors."""

    def tolist(self):
        return [1, 2]


class Array:
    dtype = np.dtype("f4")

    def __array__(self, dtype=None, copy=None):
        return np.array([0.5], dtype)


PYTHON = {
    "None": (None, "null"),
    "bool": (True, "true"),
    "int of 64 bits": (2**64 - 1, "18446744073709551615"),
    "int beyond 64 bits": ([2**64, -(2**63) - 1, 10**30], f"[{2**64},{-(2**63) - 1},{10**30}]"),
    "float": ([0.1, 1e300, -0.0], "[0.1,1e+300,-0.0]"),
    "NaN and infinity": ([float("nan"), float("inf"), -float("inf")], "[null,null,null]"),
    "str": ("grün\0", '"grün\\u0000"'),
    "bytes": ({"a": b"\xff\0"}, '{"a":{"b64":"/wA="}}'),
    "bytearray": ([bytearray(b"a"), memoryview(b"a")], '[{"b64":"YQ=="},{"b64":"YQ=="}]'),
    "Decimal": ([Decimal("1.10"), Decimal("1E+400"), Decimal("NaN")], "[1.10,1E+400,null]"),
    "UUID": (uuid.UUID(int=5), '"00000000-0000-0000-0000-000000000005"'),
    "Enum": ([Color.RED, Huge.ONE], f'["red",{2**70}]'),
    "dataclass": (Score("a", np.float32(0.5)), '{"label":"a","value":0.5}'),
    "dataclass with a large int": (Score("a", 2**70), f'{{"label":"a","value":{2**70}}}'),
    "pydantic": (
        Model(at=datetime(2024, 5, 6), scores=np.ones(2)),
        '{"at":"2024-05-06T00:00:00","scores":[1.0,1.0]}',
    ),
    "named tuple": ({"p": Point(1, np.int8(2))}, '{"p":[1,2]}'),
    "set": ({5}, "[5]"),
    "frozenset": (frozenset({5}), "[5]"),
    "range": (range(3), "[0,1,2]"),
    "deque": (collections.deque([1, 2]), "[1,2]"),
    "array": (array("d", [0.5]), "[0.5]"),
    "views": ([{"a": 1}.keys(), {"a": 1}.values()], '[["a"],[1]]'),
    "mapping": (types.MappingProxyType({"a": 1}), '{"a":1}'),
    "counter": (collections.Counter("aa"), '{"a":2}'),
    "datetime": (
        [datetime(2024, 5, 6, 7, 8, 9, 5, UTC), datetime(2024, 5, 6)],
        '["2024-05-06T07:08:09.000005+00:00","2024-05-06T00:00:00"]',
    ),
    "date, time": (
        [date(2024, 5, 6), time(7, 8), time(7, tzinfo=UTC)],
        '["2024-05-06","07:08:00","07:00:00+00:00"]',
    ),
    "timedelta": (
        [timedelta(1, 3661, 500000), timedelta(0), -timedelta(seconds=1)],
        '["P1DT1H1M1.5S","PT0S","-PT1S"]',
    ),
    "like an array": ([Tensor(), Array()], "[[1,2],[0.5]]"),
}
KEYS = {
    "int": ({1: "a", 2**70: "b"}, f'{{"1":"a","{2**70}":"b"}}'),
    "None, bool, float": ({None: 1, True: 2, 1.5: 3}, '{"null":1,"true":2,"1.5":3}'),
    "numpy": (
        {np.int64(1): 1, np.float32(0.1): 2, np.str_("k"): 3, np.bool_(False): 4},
        '{"1":1,"0.1":2,"k":3,"false":4}',
    ),
    "dates": (
        {date(2024, 5, 6): 1, pd.Timestamp("2024-05-07"): 2},
        '{"2024-05-06":1,"2024-05-07T00:00:00":2}',
    ),
    "Enum, UUID": ({Color.RED: 1, uuid.UUID(int=5): 2}, '{"red":1,"00000000-0000-0000-0000-000000000005":2}'),
    "datetime64": ({np.datetime64("2024-05-06"): 1}, '{"2024-05-06T00:00:00":1}'),
}
NUMPY = {
    "scalars": (
        [np.int8(-1), np.uint64(2**64 - 1), np.float16(0.5), np.float64(0.1), np.bool_(True), np.str_("a")],
        '[-1,18446744073709551615,0.5,0.1,true,"a"]',
    ),
    "float32": ([np.float32(0.1), np.array([0.1], "f4"), np.array([0.1, 2], "f4")[::2]], "[0.1,[0.1],[0.1]]"),
    "NaN": (np.array([np.nan, np.inf, 1]), "[null,null,1.0]"),
    "0-d": ({"a": np.array(5), "b": np.array("x"), "c": np.array(None, object)}, '{"a":5,"b":"x","c":null}'),
    "empty": ([np.array([]), np.zeros((0, 3)), np.zeros((2, 0))], "[[],[],[[],[]]]"),
    "big-endian": ([np.array([1, 2], ">i4"), np.array([0.5], ">f8"), np.array(3, ">i2")], "[[1,2],[0.5],3]"),
    "not contiguous": ([np.arange(6).reshape(2, 3).T, np.arange(4)[::-2]], "[[[0,3],[1,4],[2,5]],[3,1]]"),
    "longdouble": ([np.longdouble("0.1"), np.array([1, np.nan], np.longdouble)], "[0.1,[1.0,null]]"),
    "text": (np.array(["a", "grün"]), '["a","grün"]'),
    "bytes": ([np.bytes_(b"a"), np.array([b"\xff"])], '[{"b64":"YQ=="},[{"b64":"/w=="}]]'),
    "objects": (np.array([1, None, "a", {"b": np.int8(1)}], object), '[1,null,"a",{"b":1}]'),
    "datetime64": (
        [
            np.datetime64("2024-05-06"),
            np.datetime64("2024-05"),
            np.datetime64("NaT"),
            np.datetime64("2024-05-06T07:08"),
        ],
        '["2024-05-06T00:00:00","2024-05-01T00:00:00",null,"2024-05-06T07:08:00"]',
    ),
    "nanoseconds": (
        np.array(["2024-05-06T00:00:00.123456789", "2024-05-06T00:00:00.5", "2024-05-06", "NaT"], "M8[ns]"),
        '["2024-05-06T00:00:00.123456789","2024-05-06T00:00:00.500000","2024-05-06T00:00:00",null]',
    ),
    "timedelta64": (
        [
            np.timedelta64(5, "ns"),
            np.timedelta64(-90, "s"),
            np.timedelta64(2, "W"),
            np.timedelta64(3, "M"),
            np.timedelta64("NaT", "s"),
        ],
        '["PT0.000000005S","-PT1M30S","P14D","P3M",null]',
    ),
    "records": (
        np.array([(1, 2.5), (2, 0)], [("a", "i4"), ("b", "f8")]),
        '[{"a":1,"b":2.5},{"a":2,"b":0.0}]',
    ),
    "a record": (
        {"r": np.array([(1, "2024-05-06")], [("a", "i4"), ("t", "M8[ns]")])[0]},
        '{"r":{"a":1,"t":"2024-05-06T00:00:00"}}',
    ),
    "masked": (np.ma.array([[1, 2], [3, 4]], mask=[[0, 1], [0, 0]]), "[[1,null],[3,4]]"),
    "masked dates": (
        np.ma.array(np.array(["2024-05-06", "2024-05-07"], "M8[ns]"), mask=[0, 1]),
        '["2024-05-06T00:00:00",null]',
    ),
    "matrix": (np.matrix([[1, 2]]), "[[1,2]]"),
    "bfloat16": (np.array([0.5], ml_dtypes.bfloat16), "[0.5]"),
    "float8, int4": (
        [np.array([0.5], ml_dtypes.float8_e5m2), np.array([-8], ml_dtypes.int4)[0]],
        "[[0.5],-8]",
    ),
}
PANDAS = {
    "frame": (pd.DataFrame({"x": [1.0, None], "y": ["a", None]}), '[{"x":1.0,"y":"a"},{"x":null,"y":null}]'),
    "frame of dates": (
        pd.DataFrame({"d": pd.to_datetime(["2024-05-06", None])}),
        '[{"d":"2024-05-06T00:00:00"},{"d":null}]',
    ),
    "frame with int columns": (pd.DataFrame({1: [2]}), '[{"1":2}]'),
    "series": (pd.Series([1, 2], dtype="int8"), "[1,2]"),
    "series of float32": (pd.Series([0.1, None], dtype="float32"), "[0.1,null]"),
    "Int64": (pd.Series([1, None, 2**62 + 1], dtype="Int64"), f"[1,null,{2**62 + 1}]"),
    "boolean": (pd.Series([True, None], dtype="boolean"), "[true,null]"),
    "string": (pd.Series(["a", None], dtype="string"), '["a",null]'),
    "category": ([pd.Categorical(["a", None]), pd.Series(["a"], dtype="category")], '[["a",null],["a"]]'),
    "index": ([pd.Index([1, 2]), pd.MultiIndex.from_tuples([(1, "a")])], '[[1,2],[[1,"a"]]]'),
    "dates": (
        pd.DatetimeIndex(["2024-05-06T00:00:00.000000001Z"]),
        '["2024-05-06T00:00:00.000000001+00:00"]',
    ),
    "Timestamp": (
        [pd.Timestamp("2024-05-06T07:08:09Z"), pd.NaT, pd.NA],
        '["2024-05-06T07:08:09+00:00",null,null]',
    ),
    "Timedelta": (
        [pd.Timedelta(1), pd.Timedelta("1D"), pd.Series(pd.to_timedelta([5], "s"))],
        '["PT0.000000001S","P1D",["PT5S"]]',
    ),
    "Period, Interval": ([pd.Period("2024-05"), pd.Interval(1, 2)], '["2024-05","(1, 2]"]'),
    "sparse": (pd.Series(pd.arrays.SparseArray([0, 1])), "[0,1]"),
    "extension array": (pd.array([1, None]), "[1,null]"),
    "objects": (pd.Series([np.int8(1), None, b"a"], dtype=object), '[1,null,{"b64":"YQ=="}]'),
}
ROWS = {
    f"{kind}: {name}": row
    for kind, rows in {"python": PYTHON, "key": KEYS, "numpy": NUMPY, "pandas": PANDAS}.items()
    for name, row in rows.items()
}


@pytest.mark.parametrize("row", ROWS)
def test_a_value_is_sent_as_it_is(row):
    value, text = ROWS[row]
    assert dumps(value).decode() == text
    # The slower encoder, for large integers and keys that are not text, writes the same.
    assert dumps([value, 2**64]).decode() == f"[{text},{2**64}]"


@pytest.mark.parametrize("padding", [0, 20_000])
@pytest.mark.parametrize("place", [0, 1])
def test_times_keep_their_nanoseconds_in_small_and_large_results(padding, place):
    values = ["T" * padding]
    values.insert(place, np.datetime64("2024-05-06T07:08:09.123456789"))
    assert json.loads(dumps(values))[place] == "2024-05-06T07:08:09.123456789"


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({"scores": [1, 2, 3, 1j]}, 'result["scores"][3] is a complex, which can\'t be written as JSON'),
        ({"z": np.array([[1j]])}, 'result["z"][0][0] is a complex'),
        ([Fraction(1, 3)], "result[0] is a fractions.Fraction"),
        ([object()], "result[0] is a object"),
        ({"a": (each for each in [1])}, 'result["a"] is a generator'),
        ([np.ndarray], "result[0] is a type"),
        ({"a": scipy.sparse.csr_array(np.eye(2))}, 'result["a"] is a scipy.sparse'),
        ({"a": np.ma.array([(1,)], mask=[(1,)], dtype=[("a", "i4")])}, "records with masks"),
        ({(1, 2): 1}, "result has the key (1, 2), and a tuple can't be a key in JSON"),
        ({"a": {b"x": 1}}, "result[\"a\"] has the key b'x'"),
        ({float("nan"): 1}, "result has the key nan"),
        ({1: "a", "1": "b"}, 'result has two keys that are "1" in JSON'),
        (pd.DataFrame([[1, 2]], columns=["a", "a"]), "two columns are named 'a'"),
        (pd.DataFrame([[1]], columns=pd.MultiIndex.from_tuples([(1, 2)])), "result[0] has the key (1, 2)"),
        ({"a": "\ud800"}, 'result["a"] is a str that UTF-8 can\'t encode'),
        ({"\ud800": 1}, 'result["\\ud800"] is a str'),
        (Score("a", [Score("b", 1j)]), 'result["value"][0]["value"] is a complex'),
        ({"n": 10**5000}, 'result["n"] is an integer with too many digits'),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) else "",
)
def test_values_that_cannot_be_sent_are_named_by_path_and_type(value, words):
    with pytest.raises(NotSerializable) as raised:
        dumps(value)
    assert words in str(raised.value)
    str(raised.value).encode()


def test_a_value_that_contains_itself_and_invalid_text_are_errors():
    around: list = []
    around.append(around)
    for value in (around, {"a": around}):
        with pytest.raises(NotSerializable, match="levels deep"):
            dumps(value)
    with pytest.raises(NotSerializable, match="UTF-8"):
        encode("\ud800")


scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**100), 2**100)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
)


@given(
    st.recursive(
        scalars,
        lambda inside: (
            st.lists(inside, max_size=4)
            | st.dictionaries(
                st.text(st.characters(exclude_categories=["Cs", "Nd"]), max_size=3) | st.integers(),
                inside,
                max_size=3,
            )
        ),
        max_leaves=12,
    )
)
def test_every_json_value_is_read_unchanged(value):
    assert json.loads(dumps(value)) == json.loads(json.dumps(value))


@given(
    arrays.arrays(
        arrays.boolean_dtypes()
        | arrays.integer_dtypes()
        | arrays.unsigned_integer_dtypes()
        | arrays.floating_dtypes(sizes=(16, 32, 64)),
        arrays.array_shapes(min_dims=0, min_side=0, max_dims=3),
    )
)
def test_arrays_of_numbers_come_back_as_they_were(given_):
    back = np.array(json.loads(dumps(given_.T)), object)
    plain = np.where(np.isfinite(given_), given_, 0).T if given_.dtype.kind == "f" else given_.T
    back = np.array([0 if each is None else each for each in back.ravel()], given_.dtype)
    np.testing.assert_array_equal(back, plain.ravel())
