"""Numbers in JSON keep all their digits, or the body is rejected."""

import json
import types

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cortex_runtime.http import json_parser

LARGE = 200_000
"""Size in bytes from which bodies are searched in a different way."""


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
@pytest.mark.parametrize("padding", [0, LARGE, 5 * LARGE], ids=["small", "large", "very large"])
def test_integers_keep_all_digits(text, padding):
    body = f'[{text}, "{"x7" * (padding // 2)}", [{"1234.567890123456," * (padding // 17)}0]]'
    value = json_parser.loads(body.encode())
    assert value == json.loads(body)
    assert repr(value[0]) == repr(json.loads(text))


@pytest.mark.parametrize("offset", range(40))
def test_a_large_integer_is_found_at_any_place_of_a_large_body(offset):
    body = b" " * (LARGE + offset) + b"[18446744073709551616]" + b" " * LARGE
    assert json_parser.loads(body) == [18446744073709551616]


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


@given(
    st.lists(st.integers(-(10**21), 10**21) | st.floats(allow_nan=False, allow_infinity=False)),
    st.integers(0, 7),
)
def test_every_number_of_a_large_body_arrives_as_it_is(values, shift):
    body = " " * (LARGE + shift) + json.dumps(values)
    assert repr(json_parser.loads(body.encode())) == repr(values)


@pytest.mark.parametrize(
    "body",
    [
        b"[18446744073709551616,]",
        b"[18446744073709551616, NaN]",
        b"[1e400, 18446744073709551616]",
        b'[18446744073709551616, "\\ud800"]',
        b'[18446744073709551616, "\xff"]',
        b"018446744073709551616",
        b"1" * 400,
    ],
)
def test_a_body_with_large_integers_is_as_strict_as_any(body):
    with pytest.raises(orjson.JSONDecodeError):
        json_parser.loads(body)


@pytest.fixture(params=[True, False], ids=["numpy imported", "numpy not imported"])
def imported(request, monkeypatch):
    """Both ways of searching a large body: most bodies do not require an import of numpy."""
    if not request.param:
        monkeypatch.setattr(json_parser, "sys", types.SimpleNamespace(modules={}))


@pytest.mark.usefixtures("imported")
@pytest.mark.parametrize(
    ("text", "value"),
    [
        (b"[18446744073709551616]", [18446744073709551616]),
        (b"18446744073709551616", 18446744073709551616),
        (b"[-9223372036854775809]", [-9223372036854775809]),
        (b"-9223372036854775809", -9223372036854775809),
        (b"[1, 2.5, 12345678901234567]", [1, 2.5, 12345678901234567]),
        (b"[9223372036854775807, 0.00012345678901234567890]", [9223372036854775807, 0.00012345678901234567]),
        (
            b"[0.00012345678901234567890, -9223372036854775809]",
            [0.00012345678901234567, -9223372036854775809],
        ),
        (b'["1:2;3", 7]', ["1:2;3", 7]),
    ],
)
@pytest.mark.parametrize("shift", range(9))
def test_a_large_body_with_and_without_large_integers(text, value, shift):
    found = json_parser.loads(b" " * shift + text + b" " * LARGE)
    assert repr(found) == repr(value)


def test_large_integers_below_many_levels_are_refused_in_words():
    """orjson allows more levels than json."""
    body = b"[" * 1020 + b"18446744073709551616" + b"]" * 1020
    with pytest.raises(ValueError, match="it is nested too deeply"):
        json_parser.loads(body)
