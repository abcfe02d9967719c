"""The split over HTTP: shares, keys, streams, changes under load. Real replicas."""

import pytest


def test_without_a_split_responses_name_no_version(pair):
    answer = pair.client.post("/", json=1)
    assert answer.json()["by"] == "stable"
    assert "x-cortex-version" not in answer.headers


def test_a_weight_is_the_share_of_requests(pair):
    pair.split(weight=25)
    answers = pair.load(2000)
    assert answers.lost == 0
    assert answers.answered_by("candidate") == pytest.approx(500, abs=10)
    assert answers.answered_by("stable") + answers.answered_by("candidate") == 2000
    report = pair.report()
    assert report["version"] == pair.version
    assert report["requests"] == answers.answered_by("candidate")
    assert report["errors"] == 0
    assert sum(report["latency"]["candidate"]) == report["requests"]
    assert sum(report["latency"]["stable"]) == answers.answered_by("stable")
