"""Comparison of the responses of both versions (cortex_runtime/candidate/compare.py)."""

import json
import math

import numpy as np
import orjson
import pytest

from cortex_runtime.candidate.compare import (
    LARGEST_BODY,
    LARGEST_JSON,
    MOST_DIFFERENCES,
    Answer,
    Comparator,
    Comparison,
)
from cortex_runtime.candidate.values import Difference
from cortex_runtime.inference.datatypes import DATATYPES, to_raw
from cortex_runtime.inference.messages import InferRequest, InferResponse, Tensor
from cortex_runtime.inference.rest import encode


def answer(value: object, status: int = 200) -> Answer:
    return Answer(status, "application/json", json.dumps(value).encode())


def compared(stable: object, candidate: object, **config) -> Comparison:
    comparison = Comparator(**config).compare(answer(stable), answer(candidate))
    assert comparison is not None
    return comparison


def paths(stable: object, candidate: object, **config) -> list[str]:
    return [difference.path for difference in compared(stable, candidate, **config).differences]


@pytest.mark.parametrize(
    ("stable", "candidate"),
    [
        (1, 1.0),
        (0, -0.0),
        ({"a": 1, "b": [True, None, "x"]}, {"b": [True, None, "x"], "a": 1}),
        (2**70, 2**70),
        (math.nan, math.nan),
        ([math.inf, 1.5], [math.inf, 1.5]),
        ([], []),
        ({}, {}),
    ],
)
def test_equal_values_do_not_differ(stable, candidate):
    assert paths(stable, candidate) == []


@pytest.mark.parametrize(
    ("stable", "candidate", "path"),
    [
        (1, True, ""),
        (0, False, ""),
        ([True, 1], [1, 1], "/0"),
        (1, "1", ""),
        (None, 0, ""),
        ({"a": None}, {}, "/a"),
        ({}, {"a": None}, "/a"),
        ([1, 2], [1, 2, 3], ""),
        ({"a": [1]}, {"a": {"0": 1}}, "/a"),
        ([], {}, ""),
        (2**53, 2**53 + 1, ""),
        (2**70, 2**70 + 1, ""),
        ([2**53] * 100, [2**53] * 99 + [2**53 + 1], "/99"),
        ({"a/b": {"~": 1}}, {"a/b": {"~": 2}}, "/a~1b/~0"),
        (math.nan, 1.0, ""),
        (math.inf, -math.inf, ""),
        ([[0.5] * 100], [[0.5] * 99 + [0.6]], "/0/99"),
        (["a"] * 99, ["a"] * 98 + ["b"], "/98"),
    ],
)
def test_a_difference_is_found_at_its_path(stable, candidate, path):
    assert paths(stable, candidate) == [path]


@pytest.mark.parametrize(
    ("stable", "candidate", "tolerance", "is_equal"),
    [
        (0.5, 0.5 + 0.9e-3, 1e-3, True),
        (0.5, 0.5 + 1.1e-3, 1e-3, False),
        (0.0, 0.9e-3, 1e-3, True),  # absolute near zero
        (1e6, 1e6 + 900, 1e-3, True),  # relative to the stable number
        (1e6, 1e6 + 1100, 1e-3, False),
        (-1e6, -1e6 - 900, 1e-3, True),
        (-1e-9, 1e-9, 1e-3, True),
        (10, 11, 0.1, True),  # integers as well
        (10, 12, 0.1, False),
        (math.inf, 1e308, 1, False),
        (1e308, math.inf, 1, False),
        (math.inf, math.inf, 1e-3, True),
        (math.nan, 0.0, 1e-3, False),
        (10**400, 10**400 + 1, 1e-3, False),  # beyond float64: compared exactly
        ("0.5", "0.5001", 1, False),
        (True, False, 1, False),
    ],
)
@pytest.mark.parametrize("repeated", [1, 100])
def test_numbers_are_compared_with_a_tolerance(stable, candidate, tolerance, is_equal, repeated):
    found = compared([stable] * repeated, [candidate] * repeated, tolerance=tolerance).differences
    assert (found == []) is is_equal


@pytest.mark.parametrize(
    ("ignore", "expected"),
    [
        ([], ["/time", "/items/0/id", "/items/1/id", "/items/1/v"]),
        (["/time"], ["/items/0/id", "/items/1/id", "/items/1/v"]),
        (["/time", "/items/*/id"], ["/items/1/v"]),
        (["/items"], ["/time"]),
        (["/items/1", "/time"], ["/items/0/id"]),
        (["/nothing", "/time/zone"], ["/time", "/items/0/id", "/items/1/id", "/items/1/v"]),
        ([""], []),
        (["/*"], []),
    ],
)
def test_ignored_values_may_differ(ignore, expected):
    stable = {"time": 1, "items": [{"id": 1, "v": 0.5}, {"id": 2, "v": 0.5}]}
    candidate = {"time": 2, "items": [{"id": 3, "v": 0.5}, {"id": 4, "v": 0.7}]}
    assert sorted(paths(stable, candidate, ignore=ignore)) == sorted(expected)


def test_an_ignored_key_may_be_missing_and_an_escaped_one_is_found():
    assert paths({"a/b": 1, "c": 2}, {"c": 2}, ignore=["/a~1b"]) == []


def test_a_comparison_stops_at_the_most_differences():
    assert len(paths([0] * 5000, [1] * 5000)) == MOST_DIFFERENCES
    assert len(paths([0.5] * 5000, [1.5] * 5000)) == MOST_DIFFERENCES
    assert len(paths({str(n): 0 for n in range(5000)}, {})) == MOST_DIFFERENCES


def test_values_that_are_nested_deeply_are_compared():
    deep = [b"[" * 900 + number + b"]" * 900 for number in (b"1", b"2")]
    found = Comparator().compare(*(Answer(200, "application/json", body) for body in deep)).differences
    assert [difference.path for difference in found] == ["/0" * 900]
    far = [b"[" * 100_000 + number + b"]" * 100_000 for number in (b"1", b"2")]
    assert (
        Comparator().compare(*(Answer(200, "application/json", body) for body in far)).differences[0].path
        == "body"
    )


def test_statuses_differ_before_bodies():
    found = Comparator().compare(answer({"a": 1}), answer({"a": 2}, 500)).differences
    assert found == [Difference("status", 200, 500)]


def test_two_errors_of_one_status_are_equal():
    found = Comparator().compare(answer({"request_id": "a"}, 400), answer({"request_id": "b"}, 400))
    assert found == Comparison()


def test_other_bodies_are_compared_by_bytes():
    def bodies(first: bytes, second: bytes, kind: str = "text/plain; charset=utf-8") -> list[dict]:
        found = (
            Comparator(tolerance=1).compare(Answer(200, kind, first), Answer(200, kind, second)).differences
        )
        return [difference.as_json() for difference in found]

    assert bodies(b"1.0", b"1.0") == []
    assert bodies(b"1.0", b"1.1") == [{"path": "body", "stable": "1.0", "candidate": "1.1"}]
    assert bodies(b"\x89PNG", b"\x89PNG\0", "image/png") == [
        {"path": "body", "stable": "4 bytes of image/png", "candidate": "5 bytes of image/png"}
    ]
    # Invalid JSON is bytes as well.
    assert bodies(b"{", b"{{", "application/json") == [{"path": "body", "stable": "{", "candidate": "{{"}]


def test_different_content_types_differ_but_their_parameters_do_not():
    plain, json_type = Answer(200, "text/plain", b"1"), Answer(200, "application/json", b"1")
    assert Comparator().compare(plain, json_type).differences[0].path == "content-type"
    assert (
        Comparator().compare(Answer(200, "application/json; charset=utf-8", b"1.0"), json_type).differences
        == []
    )


def test_large_bodies_are_compared_only_if_they_are_identical():
    for kind, size in (("application/json", LARGEST_JSON), ("image/png", LARGEST_BODY)):
        large, other = (Answer(200, kind, b'"' + letter * size + b'"') for letter in (b"a", b"b"))
        assert Comparator(has_classes=True).compare(large, large) == Comparison()
        assert Comparator().compare(large, other) is None
        smaller = [Answer(200, kind, each.body[4:]) for each in (large, other)]
        assert len(Comparator().compare(*smaller).differences) == 1


def tensors(version: str, binary: bool, *outputs: Tensor) -> Answer:
    request = InferRequest("iris", "", [], binary=binary)
    kind, size, body = encode(InferResponse("iris", version, list(outputs), id=version), request)
    return Answer(200, kind.decode(), body, None if size is None else int(size))


@pytest.mark.parametrize("binary", [False, True])
def test_tensors_are_compared_element_by_element(binary):
    probabilities = np.linspace(0, 1, 300, dtype=np.float32).reshape(100, 3)
    close, far = probabilities + np.float32(1e-5), probabilities.copy()
    far[50, 1] = 0.0
    labels = Tensor("label", "BYTES", np.array([b"a", b"b"], object))
    swapped = Tensor("label", "BYTES", np.array([b"a", b"c"], object))
    stable = tensors("1", binary, labels, Tensor("p", "FP32", probabilities))

    def differ(*outputs: Tensor, **config) -> list[str]:
        found = Comparator(**config).compare(stable, tensors("2", binary, *outputs)).differences
        return [difference.path for difference in found]

    assert differ(labels, Tensor("p", "FP32", close), tolerance=1e-4) == []
    # The order of the outputs is irrelevant.
    assert differ(Tensor("p", "FP32", far), swapped, tolerance=1e-4) == [
        "/outputs/0/data/1",
        "/outputs/1/data/151",
    ]
    assert differ(swapped, Tensor("p", "FP32", far), tolerance=1e-4, ignore=["/outputs/1"]) == [
        "/outputs/0/data/1"
    ]
    assert differ(labels, Tensor("p", "FP32", far), ignore=["/outputs/*/data/151"]) == []
    assert "/outputs/1/shape/0" in differ(labels, Tensor("p", "FP32", probabilities[:99]), tolerance=1e-4)
    assert "/outputs/1/datatype" in differ(
        labels, Tensor("p", "FP64", probabilities.astype(float)), tolerance=1e-4
    )
    assert differ(labels) == ["/outputs/1"]
    assert differ(labels, Tensor("p", "FP32", probabilities), swapped) != []


def test_exact_integers_nan_and_booleans_of_tensors():
    stable = [
        Tensor("n", "INT64", np.array([2**60, 7])),
        Tensor("f", "FP32", np.array([np.nan, np.inf, 1], np.float32)),
        Tensor("b", "BOOL", np.array([True, False])),
    ]
    candidate = [
        Tensor("n", "INT64", np.array([2**60 + 1, 7])),
        Tensor("f", "FP32", np.array([np.nan, -np.inf, 1], np.float32)),
        Tensor("b", "BOOL", np.array([True, True])),
    ]
    found = Comparator().compare(tensors("1", True, *stable), tensors("2", True, *candidate)).differences
    assert [(each.path, each.stable) for each in found] == [
        ("/outputs/0/data/0", 2**60),
        ("/outputs/1/data/1", "inf"),
        ("/outputs/2/data/1", False),
    ]
    json.dumps([each.as_json() for each in found], allow_nan=False)


def test_tensors_of_a_wrong_size_are_compared_by_bytes():
    good = tensors("1", True, Tensor("p", "FP32", np.ones(4, np.float32)))
    bad = Answer(200, good.content_type, good.body[:-4], good.json_size)
    assert Comparator().compare(good, bad).differences[0].path == "body"
    shape = Answer(200, good.content_type, good.body.replace(b"[4]", b"[{}]")[:-1] + b"1", good.json_size + 1)
    assert Comparator().compare(shape, shape).differences == []
    assert Comparator().compare(good, shape).differences != []


@pytest.mark.parametrize(
    ("stable", "candidate", "key", "classes"),
    [
        ({"label": "cat"}, {"label": "dog"}, "label", ("cat", "dog")),
        ({"label": "cat"}, {"label": "cat"}, "label", ("cat", "cat")),
        ({"label": 1}, {"label": True}, "label", ("1", "true")),
        ("cat", "dog", None, ("cat", "dog")),
        ({"label": 0.5}, {"label": "cat"}, "label", None),
        ({"label": "a\n" + "x" * 99}, {"label": 7}, "label", ("a\ufffd" + "x" * 62, "7")),
        ({}, {"label": "cat"}, "label", None),
        (["cat"], ["cat"], "label", None),
    ],
)
def test_classes_of_the_tracker_are_returned(stable, candidate, key, classes):
    assert compared(stable, candidate, has_classes=True, tracker_key=key).classes == classes
    assert compared(stable, candidate, tracker_key=key).classes is None


def test_a_report_is_json_of_a_bounded_size():
    values = [("x" * 10**6, ["y" * 10**6]), (math.nan, 10**500), ({"a": 1}, None)]
    for first, second in values:
        difference = Difference("/a", first, second).as_json()
        assert len(orjson.dumps(difference)) < 1000


def test_every_datatype_is_compared_in_bytes():
    for datatype in DATATYPES.values():
        values = [b"a", b"b"] if datatype.name == "BYTES" else [0, 1]
        array = np.array(values, object if datatype.name == "BYTES" else None)
        if datatype.number is not None:
            array = array.astype(np.float32 if datatype.name == "BF16" else datatype.dtype)
        assert len(bytes(to_raw(datatype, array))) > 0
        first = tensors("1", True, Tensor("x", datatype.name, array))
        second = tensors("2", True, Tensor("x", datatype.name, array[::-1].copy()))
        found = Comparator(tolerance=1e-3).compare(first, second).differences
        assert [each.path for each in found] == ["/outputs/0/data/0", "/outputs/0/data/1"], datatype.name
