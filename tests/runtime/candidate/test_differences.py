"""The pairs and classes that a worker keeps (cortex_runtime/candidate/differences.py)."""

import orjson

from cortex_runtime.candidate.compare import Answer, Comparison
from cortex_runtime.candidate.differences import MOST_BYTES, DifferingPairs
from cortex_runtime.candidate.reports import MOST_CLASSES, OTHER, ConfusionMatrix, newest
from cortex_runtime.candidate.values import Difference


def add(pairs: DifferingPairs, number: int, body: bytes = b"1") -> None:
    answers = Answer(200, "application/json", body), Answer(200, "application/json", b"2")
    comparison = Comparison([Difference("", 1, 2)])
    pairs.add(f"id-{number}", "/?a=b", Answer(0, "application/json", b'{"x": 1}'), answers, comparison)


def test_the_last_pairs_are_kept_newest_first():
    pairs = DifferingPairs(3)
    for number in range(5):
        add(pairs, number)
    kept = pairs.as_json()
    assert [pair["requestId"] for pair in kept] == ["id-4", "id-3", "id-2"]
    assert kept[0] | {"time": 0} == {
        "time": 0,
        "requestId": "id-4",
        "path": "/?a=b",
        "request": '{"x": 1}',
        "stable": "1",
        "candidate": "2",
        "differences": [{"path": "", "stable": 1, "candidate": 2}],
    }
    pairs.clear()
    assert pairs.as_json() == []


def test_keep_zero_keeps_nothing():
    pairs = DifferingPairs(0)
    add(pairs, 1)
    assert pairs.as_json() == []


def test_pairs_occupy_bounded_memory():
    pairs = DifferingPairs(10_000)
    for number in range(1000):
        add(pairs, number, b'"' + b"x" * 100_000 + b'"')
    kept = pairs.as_json()
    assert 50 < len(kept) < 1000
    assert kept[0]["requestId"] == "id-999"
    assert len(orjson.dumps(kept)) <= MOST_BYTES + len(kept) + 2


def test_a_request_without_a_body_and_a_body_that_is_not_text_are_kept():
    pairs = DifferingPairs(1)
    image = Answer(200, "image/png", b"\x89PNG\r\n")
    pairs.add("id", "/", None, (image, image), Comparison())
    assert pairs.as_json()[0]["request"] is None
    assert pairs.as_json()[0]["stable"] == "6 bytes of image/png"


def test_pairs_of_several_workers_are_sorted_by_time():
    workers = [[{"time": 3}, {"time": 1}], [{"time": 2}], []]
    assert newest(workers, 2) == [{"time": 3}, {"time": 2}]


def test_a_matrix_counts_pairs_and_is_bounded():
    matrix = ConfusionMatrix()
    matrix.add("cat", "cat", 3)
    matrix.add("cat", "dog")
    other = ConfusionMatrix()
    other.add("cat", "dog")
    matrix.merge(other.counts)
    assert matrix.counts == {"cat": {"cat": 3, "dog": 2}}
    for number in range(1000):
        matrix.add(str(number), str(number + 1))
    names = matrix.counts.keys() | {name for row in matrix.counts.values() for name in row}
    assert len(names) == MOST_CLASSES + 1
    assert OTHER in names
    assert sum(sum(row.values()) for row in matrix.counts.values()) == 1005


def test_a_report_of_long_classes_is_small():
    # Four bytes each.
    matrix, names = ConfusionMatrix(), [f"{number:02}" + "\N{GRINNING FACE}" * 62 for number in range(60)]
    for stable in names:
        for candidate in names:
            matrix.add(stable, candidate)
    assert len(orjson.dumps(matrix.counts)) < 200_000
    assert sum(sum(row.values()) for row in matrix.counts.values()) == 3600
    assert names[0] in matrix.counts
