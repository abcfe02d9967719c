"""Tensors as bytes and as JSON: each datatype, each kind of shape, and mismatches."""

import re

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cortex_runtime.errors import UserError
from cortex_runtime.inference import datatypes
from cortex_runtime.inference.datatypes import DATATYPES, datatype_of, from_json, from_raw, to_json, to_raw

NUMBERS = {
    "BOOL": np.array([True, False, True, True, False, False]),
    "UINT8": np.array([0, 1, 2, 127, 128, 255], np.uint8),
    "UINT16": np.array([0, 1, 2, 32767, 32768, 65535], np.uint16),
    "UINT32": np.array([0, 1, 2, 2**31 - 1, 2**31, 2**32 - 1], np.uint32),
    "UINT64": np.array([0, 1, 2, 2**53 + 1, 2**63, 2**64 - 1], np.uint64),
    "INT8": np.array([-128, -1, 0, 1, 2, 127], np.int8),
    "INT16": np.array([-32768, -1, 0, 1, 2, 32767], np.int16),
    "INT32": np.array([-(2**31), -1, 0, 1, 2, 2**31 - 1], np.int32),
    "INT64": np.array([-(2**63), -1, 0, 1, 2**53 + 1, 2**63 - 1], np.int64),
    "FP16": np.array([-65504, -0.5, 0, 1.5, 6e-8, 65504], np.float16),
    "FP32": np.array([-3.4e38, -0.1, 0, 0.1, 1e-45, 3.4e38], np.float32),
    "FP64": np.array([-1.7e308, -0.1, 0, 0.1, 5e-324, 1.7e308], np.float64),
    "BF16": np.array([-1.5 * 2.0**127, -0.5, 0, 1.5, 3.140625, 2.0**-126], np.float32),
}
TEXTS = np.array([b"", b"a", "ü€".encode(), b"x" * 300, b"\0", b"-1"], object)
ALL = {**NUMBERS, "BYTES": TEXTS}
SHAPES = [[6], [2, 3], [1, 3, 2, 1], [6, 1]]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", ALL)
def test_bytes_and_json_preserve_each_value_and_shape(name: str, shape: list[int]) -> None:
    datatype, array = DATATYPES[name], ALL[name].reshape(shape)
    raw = bytes(to_raw(datatype, array))
    listed = orjson.loads(orjson.dumps(to_json(datatype, array), option=orjson.OPT_SERIALIZE_NUMPY))
    assert len(listed) == 6
    for read in (from_raw(datatype, shape, raw), from_json(datatype, shape, listed)):
        assert read.shape == tuple(shape)
        assert read.dtype == array.dtype
        assert (read == array).all()
    assert (from_json(datatype, shape, np.array(listed, object).reshape(shape).tolist()) == array).all()


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("shape", [[], [0], [3, 0], [0, 4]], ids=str)
def test_one_value_and_no_value(name: str, shape: list[int]) -> None:
    datatype = DATATYPES[name]
    array = ALL[name][: 0 if 0 in shape else 1].reshape(shape)
    raw = bytes(to_raw(datatype, array))
    read = from_raw(datatype, shape, raw)
    assert read.shape == tuple(shape)
    assert bytes(to_raw(datatype, read)) == raw
    listed = orjson.loads(orjson.dumps(to_json(datatype, array), option=orjson.OPT_SERIALIZE_NUMPY))
    assert from_json(datatype, shape, listed).shape == tuple(shape)


def test_numbers_are_little_endian_and_rows_come_first() -> None:
    array = np.array([[1, 2], [3, 4]], np.int32)
    assert bytes(to_raw(DATATYPES["INT32"], array.T)) == np.array([1, 3, 2, 4], "<i4").tobytes()
    assert bytes(to_raw(DATATYPES["INT32"], array.astype(">i4"))) == array.astype("<i4").tobytes()
    assert to_json(DATATYPES["INT32"], array.T).tolist() == [1, 3, 2, 4]


def test_bf16_is_the_upper_half_of_float32_rounded_to_even() -> None:
    values = np.array([1.0, 1 + 2**-8, 1 + 3 * 2**-8, np.nan, np.inf], np.float32)
    raw = bytes(to_raw(DATATYPES["BF16"], values))
    assert np.frombuffer(raw, "<u2").tolist() == [0x3F80, 0x3F80, 0x3F82, 0x7FC0, 0x7F80]


def test_bytes_have_their_length_before_them() -> None:
    array = np.array(["ab", b"\xff", 7], object)
    assert bytes(to_raw(DATATYPES["BYTES"], array)) == b"\2\0\0\0ab\1\0\0\0\xff\1\0\0\x007"


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.binary(max_size=3), st.integers(0, 300)), max_size=5),
    st.integers(1, 200),
)
def test_any_elements_of_bytes_return(runs: list[tuple[bytes, int]], block: int) -> None:
    """Elements of one length and of several, across the blocks in which they are converted."""
    elements = [element for element, count in runs for _ in range(count)]
    raw = b"".join(len(each).to_bytes(4, "little") + each for each in elements)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(datatypes, "_BLOCK", block)
        patched.setattr(datatypes, "_SHORT", 10)
        array = from_raw(DATATYPES["BYTES"], [len(elements)], raw)
        assert array.tolist() == elements
        assert bytes(to_raw(DATATYPES["BYTES"], array)) == raw
        if raw:
            message = "beyond the end" if elements[-1] else "bytes end|at least"
            with pytest.raises(ValueError, match=message):
                from_raw(DATATYPES["BYTES"], [len(elements)], raw[:-1])
            with pytest.raises(ValueError, match="1 bytes follow"):
                from_raw(DATATYPES["BYTES"], [len(elements)], raw + b"x")


def test_nan_and_infinity_travel_as_bytes() -> None:
    array = np.array([np.nan, np.inf, -np.inf], np.float32)
    read = from_raw(DATATYPES["FP32"], [3], bytes(to_raw(DATATYPES["FP32"], array)))
    assert np.array_equal(read, array, equal_nan=True)


def test_elements_that_are_not_aligned_are_copied() -> None:
    content = memoryview(b"x" + np.arange(4, dtype=np.float64).tobytes())[1:]
    array = from_raw(DATATYPES["FP64"], [4], content)
    assert array.flags.aligned
    assert array.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("name", "shape", "data", "message"),
    [
        ("FP32", [2], [1], "shape [2] has 2 elements, got 1"),
        ("FP32", [2, 2], [[1, 2, 3, 4]], "nested as [2, 2], got [1, 4]"),
        ("FP32", [2, 3], [[1, 2], [3, 4], [5, 6]], "nested as [2, 3], got [3, 2]"),
        ("FP32", [4], [[1, 2], [3, 4]], "nested as [4], got [2, 2]"),
        ("FP32", [3], [[1, 2], [3]], "its lists differ in length"),
        ("FP32", [1], ["1"], "expected numbers, got text"),
        ("FP32", [1], [None], "expected numbers, got null"),
        ("FP32", [1], [{}], "expected numbers"),
        ("FP32", [1], [1e39], "does not fit into FP32"),
        ("FP32", [1], 1.0, "data must be a list"),
        ("FP32", [1], "1", "data must be a list"),
        ("INT8", [1], [128], "128 does not fit into INT8"),
        ("UINT8", [1], [-1], "-1 does not fit into UINT8"),
        ("INT64", [1], [2**63], "does not fit into INT64"),
        ("INT32", [1], [1.5], "expected whole numbers, got 1.5"),
        ("BOOL", [1], [2], "expected true, false, 0 or 1"),
        ("BYTES", [1], [1], "expected strings, got 1"),
        ("BYTES", [1], [None], "expected strings, got None"),
        ("BYTES", [3], [["a", "b"], ["c"]], "its lists differ in length"),
        ("FP32", [2**40, 2**40], [1], "too many elements"),
    ],
)
def test_json_that_does_not_match(name: str, shape: list[int], data: object, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        from_json(DATATYPES[name], shape, data)


@pytest.mark.parametrize(
    ("name", "shape", "content", "message"),
    [
        ("FP32", [2], b"1234", "FP32 of shape [2] has 8 bytes, got 4"),
        ("FP32", [1], b"12345", "FP32 of shape [1] has 4 bytes, got 5"),
        ("BOOL", [2], b"\0\2", "each byte of BOOL must be 0 or 1"),
        ("BYTES", [1], b"", "1 elements of BYTES have at least 4 bytes, got 0"),
        ("BYTES", [2], b"\4\0\0\0abcd", "the bytes end before element 1 of 2"),
        ("BYTES", [1], b"\5\0\0\0abcd", "element 0 of BYTES reaches beyond the end"),
        ("BYTES", [1], b"\xff\xff\xff\xff", "element 0 of BYTES reaches beyond the end"),
        ("BYTES", [1], b"\1\0\0\0abc", "2 bytes follow the 1 elements"),
        ("BYTES", [2**30], b"\0\0\0\0", "have at least"),
        ("FP64", [2**40, 2**40], b"", "too many elements"),
    ],
)
def test_bytes_that_do_not_match(name: str, shape: list[int], content: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        from_raw(DATATYPES[name], shape, content)


def test_bytes_that_are_not_utf_8_are_no_json() -> None:
    with pytest.raises(UserError, match="request it with binary_data"):
        to_json(DATATYPES["BYTES"], np.array([b"\xff"], object))


@pytest.mark.parametrize("name", ALL)
def test_a_numpy_type_has_its_datatype(name: str) -> None:
    if name != "BF16":
        assert datatype_of(ALL[name].dtype) == name
        assert datatype_of(ALL[name].dtype.newbyteorder(">")) == name
    assert datatype_of(np.dtype("U3")) == datatype_of(np.dtype("S3")) == "BYTES"


def test_complex_numbers_have_no_datatype() -> None:
    with pytest.raises(ValueError, match="complex64 has no datatype"):
        datatype_of(np.dtype(np.complex64))


LISTS = {
    "floats": [0.1, -2.5, 3e38],
    "integers": [1, -2, 300],
    "both": [1, 2.5, True],
    "booleans": [True, False, True],
    "whole": [1.0, 2.0, -3.0],
    "text": [1.0, "2", 3.0],
    "null": [1.0, None, 3.0],
    "beyond float32": [1.0, 3.5e38, 3.0],
    "beyond float64": [1, 10**400, 3],
    "integers that a float rounds": [2**53 + 1, 2**54 + 2**30 + 1, 1],
    "integers of 64 bits": [2**64 - 1, 2**63, 1],
    "rows": [[0.5, 1.0], [2.0, 3.0], [4.0, 5.0]],
    "rows of integers": [[1, 2], [3, 4], [5, 6]],
    "rows that differ in length": [[0.5, 1.0], [2.0], [4.0, 5.0, 6.0]],
    "rows and a number": [[0.5], 1.0, [2.0]],
    "rows of text": ["ab", "cd", "ef"],
    "rows of rows": [[[0.5], [1.0]], [[2.0], [3.0]], [[4.0], [5.0]]],
}


@pytest.mark.parametrize("times", [1, 50], ids=["short", "long"])
@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("case", LISTS)
def test_long_and_short_lists_are_converted_alike(case: str, name: str, times: int) -> None:
    data, datatype = LISTS[case] * times, DATATYPES[name]
    assert datatype.number is not None
    try:
        expected = datatype.number.convert(data)
    except ValueError as error:
        with pytest.raises(ValueError, match=re.escape(str(error))):
            from_json(datatype, [len(data)], data)
    else:
        array = from_json(datatype, expected.shape, data)
        assert (array.dtype, array.tobytes()) == (expected.dtype, expected.tobytes())
        assert array.flags.writeable
