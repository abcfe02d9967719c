"""Mirrored requests: copies that the candidate answers too, which are compared and dropped. Real replicas."""

import json
import time

import pytest

from tests.runtime.candidate.conftest import OWN, copies
from tests.runtime.programs import PLAIN

SETTINGS = {"tolerance": 0, "ignore": OWN, "keep": 5}


@pytest.fixture(scope="module")
def shared_pair(start_pair):
    return start_pair(spec={"tracker": {"key": "label", "modelType": "classification"}})


def compare(pair, send, count=1):
    """Send requests until this many were compared. On a machine with much load, copies are dropped."""
    wanted, sent = count + pair.report()["compared"], copies(pair.report())
    while True:
        send()
        sent += 1
        report = pair.settled(sent)
        if report["compared"] >= wanted:
            return report


def differences(pair):
    return PLAIN.get(f"{pair.stable.admin}/candidate/differences").json()


@pytest.mark.parametrize("clients", [1, 4])
def test_a_disagreement_is_reported_with_its_share_and_its_classes(pair, clients):
    pair.split(mirror=100, compare=SETTINGS)
    report = pair.report()
    sent = 0
    while report["compared"] < 300 or report["differing"] < 5:
        answers = pair.load(100, clients)
        assert answers.answered_by("stable") == 100
        sent += 100
        report = pair.settled(sent)
        # Copies take a tenth of the time.
        time.sleep(0.3)
    assert report["requests"] == report["failed"] == 0
    differing = report["differing"]
    # Three of each 100, apart from those that were dropped because of the load.
    assert 3 * sent // 100 - report["dropped"] <= differing <= 3 * sent // 100
    classes = {"usual": {"usual": report["compared"] - differing, "changed": differing}}
    assert report["classes"] == classes
    assert pair.stable.metric("cortex_candidate_differing_total") == differing
    assert pair.stable.metric('cortex_candidate_mirrored_total{outcome="compared"}') == report["compared"]
    pairs = differences(pair)
    assert len(pairs) == 5
    assert [each["differences"] for each in pairs] == [
        [{"path": "/label", "stable": "usual", "candidate": "changed"}]
    ] * 5
    assert [each["time"] for each in pairs] == sorted((each["time"] for each in pairs), reverse=True)
    first = pairs[0]
    assert json.loads(first["request"])["n"] in (0, 46, 73)
    assert (json.loads(first["stable"])["by"], json.loads(first["candidate"])["by"]) == (
        "stable",
        "candidate",
    )
    assert json.loads(first["candidate"])["mirror"] == "true"
    assert json.loads(first["stable"])["id"] is None
    assert json.loads(first["candidate"])["id"] == first["requestId"]


def test_keep_0_keeps_no_responses(pair):
    pair.split(mirror=100, compare={**SETTINGS, "ignore": [], "keep": 0})
    assert compare(pair, lambda: pair.client.post("/", json=1), 5)["differing"] == 5
    assert differences(pair) == []


def test_bodies_streams_and_statuses_are_compared(pair):
    pair.split(mirror=100, compare={"ignore": [], "keep": 10})
    compare(pair, lambda: pair.client.put("/", content=b"x" * 50_000))
    compare(pair, lambda: pair.client.get("/", params={"parts": 4}))
    pair.fault.write_text("500")
    # A status from 500 on is a failure, and is shown, but is no differing response.
    pair.stable.until(lambda: pair.client.post("/", json=1) and pair.report()["failed"])
    assert pair.report()["differing"] == 2
    found = {each["path"]: each["differences"][0] for each in differences(pair)}
    assert found["/?parts=4"]["path"] == "body"
    paths = [each["differences"][0] for each in differences(pair)]
    assert {"path": "status", "stable": 200, "candidate": 500} in paths
    assert {"path": "/by", "stable": "stable", "candidate": "candidate"} in paths


def test_large_bodies_are_dropped(pair):
    pair.split(mirror=100, compare=SETTINGS)
    body = b"x" * 2_000_000
    assert pair.client.put("/", content=body).json() == {"by": "stable", "size": len(body)}
    assert pair.settled(1)["dropped"] == 1
    assert PLAIN.get(f"{pair.candidate.admin}/load").json()["inFlight"] == 0
