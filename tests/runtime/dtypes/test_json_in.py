"""Numbers in JSON keep all their digits, or the body is rejected."""

import json

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cortex_runtime.http import json_parser


@pytest.mark.parametrize(
    "text",
    [
        "18446744073709551615",
        "18446744073709551616",
        "-9223372036854775808",
        "-9223372036854775809",
        "123456789012345678901234567890",
        '{"a": [1, -99999999999999999999], "b": "99999999999999999999"}',
        "[1.5, 10000000000000000000000, 0.1234567890123456789012345, 1e3]",
        str(10**300),
    ],
)
@pytest.mark.parametrize("offset", range(8))
@pytest.mark.parametrize("padding", [0, 50_000], ids=["small", "large"])
def test_integers_keep_all_digits(text, padding, offset):
    body = " " * (padding + offset) + text + " " * padding
    assert repr(json_parser.loads(body.encode())) == repr(json.loads(text))


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-(10**25), 10**25)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]))
    | st.from_regex("[0-9]{15,25}", fullmatch=True),
    lambda inside: (
        st.lists(inside, max_size=4)
        | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=3), inside, max_size=3)
    ),
    max_leaves=10,
)


@given(json_values)
def test_every_request_arrives_unchanged(value):
    assert json_parser.loads(json.dumps(value).encode()) == value


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_every_float_arrives_unchanged(value):
    assert repr(json_parser.loads(repr(value).encode())) == repr(value)
    assert repr(json_parser.loads(repr(value).encode() + b" " * 100_000)) == repr(value)


@pytest.mark.parametrize(
    "body",
    [
        b"[18446744073709551616,]",
        b"[18446744073709551616, NaN]",
        b"[1e400, 18446744073709551616]",
        b'[18446744073709551616, "\\ud800"]',
        b'[18446744073709551616, "\xff"]',
        b"018446744073709551616",
        b"1" * 5000,
    ],
)
def test_invalid_json_is_refused_with_its_line_and_column(body):
    with pytest.raises(orjson.JSONDecodeError, match="line 1 column"):
        json_parser.loads(body)


@pytest.mark.parametrize("content", [b"18446744073709551616", b"1", b"1" + b" " * 100_000])
def test_json_below_too_many_levels_is_refused_in_words(content):
    body = b"[" * 2000 + content + b"]" * 2000
    with pytest.raises(ValueError, match="it is nested too deeply; the limit is about 1000 levels"):
        json_parser.loads(body)
