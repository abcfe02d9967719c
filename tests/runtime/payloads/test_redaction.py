"""JSON paths of spec.payloadLogging.redact."""

import copy

import pytest

from cortex_api import InvalidManifest
from cortex_api import parse as parse_manifest
from cortex_runtime.payloads.redaction import REDACTED, parse, redact

DOCUMENT = {
    "user": {"name": "a", "password": "p", "a key": 1, "tags": ["x", "y"]},
    "rows": [{"name": "b", "id": 1}, {"id": 2, "deep": [{"password": ["q"]}]}, 7],
    "password": None,
}


def selected(path):
    """Return the paths of the values that were replaced."""
    document = copy.deepcopy(DOCUMENT)
    redact(document, [parse(path)])
    found = []

    def walk(before, after, where):
        if after == REDACTED:
            found.append(where)
        elif isinstance(before, dict):
            assert before.keys() == after.keys()
            for key in before:
                walk(before[key], after[key], f"{where}.{key}")
        elif isinstance(before, list):
            assert len(before) == len(after)
            for index in range(len(before)):
                walk(before[index], after[index], f"{where}[{index}]")
        else:
            assert before == after

    walk(DOCUMENT, document, "$")
    return sorted(found)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("$.password", ["$.password"]),
        ("$.user.name", ["$.user.name"]),
        ("$['user']['a key']", ["$.user.a key"]),
        ("$.user.tags[1]", ["$.user.tags[1]"]),
        ("$.user.tags[5]", []),
        ("$.user.tags", ["$.user.tags"]),
        ("$.user.tags[*]", ["$.user.tags[0]", "$.user.tags[1]"]),
        ("$.rows[*].id", ["$.rows[0].id", "$.rows[1].id"]),
        ("$.*", ["$.password", "$.rows", "$.user"]),
        ("$.*.name", ["$.user.name"]),
        ("$..password", ["$.password", "$.rows[1].deep[0].password", "$.user.password"]),
        ("$.rows..password", ["$.rows[1].deep[0].password"]),
        ("$..name", ["$.rows[0].name", "$.user.name"]),
        ("$.missing.name", []),
        ("$.rows.name", []),
        ("$[0]", []),
    ],
)
def test_a_path_selects_values(path, expected):
    assert selected(path) == expected


def test_everything_can_be_redacted():
    document = copy.deepcopy(DOCUMENT)
    redact(document, [parse("$..*")])
    assert document == dict.fromkeys(DOCUMENT, REDACTED)
    for value in ("text", 1, None, []):
        redact(value, [parse("$.a"), parse("$..a"), parse("$[*]")])


def manifest(**logging):
    handler = {"type": "python", "path": "handler.py"}
    spec = {"handler": handler, "payloadLogging": {"url": "http://sink/", **logging}}
    return {"kind": "RealtimeAPI", "metadata": {"name": "a"}, "spec": spec}


@pytest.mark.parametrize(
    "path", ["password", "$", "$.", "$.a b", "$.a[?(@.b)]", "$[-1]", "$[1:2]", "$['a'", "$...a", "$.a."]
)
def test_other_paths_are_rejected(path):
    with pytest.raises(InvalidManifest, match="is not a supported JSON path"):
        parse_manifest(manifest(redact=[path]))


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"url": "kafka://a"}, "url"),
        ({"sampling": 101}, "sampling"),
        ({"maxPayloadSize": "17Mi"}, "maxPayloadSize must not be greater than 16Mi"),
        ({"redact": ["$." + "a" * 255]}, r"redact\[0\].*256 characters"),
    ],
)
def test_invalid_fields_are_rejected(fields, named):
    with pytest.raises(InvalidManifest, match=named):
        parse_manifest(manifest(**fields))
