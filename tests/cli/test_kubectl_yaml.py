"""Manifests are read as kubectl reads them. Expected values: those that the API server of Kubernetes stores."""

import pytest

from cortex_cli.manifests import InvalidYAML, parts


def read(text):
    (part,) = parts(text)
    return part.content


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001),
        ("1E5", 100000),
        ("2.0", 2),
        (".5", 0.5),
        ("-1.5e3", -1500),
        ("1.", 1),
        ("+1", 1),
        ("010", 8),
        ("0o17", 15),
        ("-0x1F", -31),
        ("0b101", 5),
        ("08", 8),
        ("1_000", 1000),
        ("9223372036854775807", 9223372036854775807),
        ("9223372036854775808", 9223372036854775808.0),
        ("1e400", "1e400"),
        ("9" * 5000, "9" * 5000),
        ("12:30", "12:30"),
        ("12:30:15.5", "12:30:15.5"),
        ("2026-11-26", "2026-11-26"),
        ("2026-11-26T10:00:00Z", "2026-11-26T10:00:00Z"),
        ("yes", True),
        ("Off", False),
        ("y", True),
        ("tRUE", "tRUE"),
        ("~", None),
        ("", None),
        ("=", "="),
        ("-", [None]),
        ("+", "+"),
        ("1.2.3", "1.2.3"),
        ("100m", "100m"),
        ("'12'", "12"),
        ('"yes"', "yes"),
        ("!!str 12", "12"),
        ("!!float 2", 2),
        ("!!timestamp 2026-11-26", "2026-11-26"),
    ],
)
def test_a_value(text, value):
    found = read(f"key:\n  {text}\n")["key"]
    assert (type(found), found) == (type(value), value)


def test_anchors_and_merge_keys():
    assert read("a: &a {x: 1}\nb: {<<: *a, z: 2}\nc: *a\n") == {
        "a": {"x": 1},
        "b": {"x": 1, "z": 2},
        "c": {"x": 1},
    }


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("a: 1\nb: .inf\n", 2, ".inf is not a number that JSON can represent"),
        ("a: !!int x\n", 1, "x is not a number that JSON can represent"),
        ("a: !!bool x\n", 1, "'x' is not a boolean"),
        ("a: 1\nb: &b [*b]\n", 2, "an alias refers to itself"),
        ("[" * 5000 + "]" * 5000, None, "it is nested too deeply"),
        (
            "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 60)),
            19,
            "its aliases expand to more than 1000000 values",
        ),
    ],
)
def test_an_invalid_document_is_refused_with_its_line(text, line, message):
    with pytest.raises(InvalidYAML, match=message) as refused:
        read(text)
    assert refused.value.line == line
