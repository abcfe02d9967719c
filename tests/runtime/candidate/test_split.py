"""The split over HTTP: shares, keys, streams, changes under load. Real replicas."""

import gzip
import json
import os
import signal

import pytest

from tests.runtime.candidate.conftest import in_flight
from tests.runtime.programs import PLAIN


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
    assert (report["version"], report["weight"], report["mirror"]) == (pair.version, 25, 0)
    assert report["requests"] == answers.answered_by("candidate")
    assert report["errors"] == 0
    assert sum(report["latency"]["candidate"]) == report["requests"]
    assert sum(report["latency"]["stable"]) == answers.answered_by("stable")


def test_requests_without_a_split_name_no_version_after_one_was_removed(pair):
    pair.split(weight=100)
    assert pair.client.post("/", json=1).headers["x-cortex-version"] == "candidate"
    pair.remove_split()
    answer = pair.client.post("/", json=1)
    assert answer.json()["by"] == "stable"
    assert "x-cortex-version" not in answer.headers
    assert PLAIN.get(f"{pair.stable.admin}/candidate").status_code == 404
    assert "cortex_candidate" not in PLAIN.get(f"{pair.stable.admin}/metrics").text


def test_a_version_that_is_removed_and_used_again_starts_from_zero(pair):
    pair.split(weight=100)
    pair.load(10)
    assert pair.report()["requests"] == 10
    pair.split(weight=0, mirror=0, same_version=True)
    pair.split(weight=100, same_version=True)
    assert pair.report()["requests"] == 0


def test_an_invalid_split_changes_nothing(pair):
    pair.split(weight=100)
    pair.path.write_text('{"version": "v", "weight": 101}')
    pair.stable.until(lambda: "the previous split stays in use" in pair.stable.log.read_text())
    assert pair.client.post("/", json=1).json()["by"] == "candidate"


def test_a_key_selects_the_same_version_and_a_growing_weight_moves_no_user_back(pair):
    users = [f"user-{number}" for number in range(100)]
    before: set[str] = set()
    for weight in (5, 60, 100):
        pair.split(weight=weight, key="X-User-ID")
        found = {}
        for _ in range(2):
            for user in users:
                by = pair.client.post("/", json=1, headers={"x-user-id": user}).json()["by"]
                assert found.setdefault(user, by) == by
        moved = {user for user, by in found.items() if by == "candidate"}
        assert moved >= before
        assert len(moved) == pytest.approx(weight, abs=12)
        before = moved


def test_a_request_selects_its_version_itself(pair):
    pair.split(weight=50)
    for version in ("stable", "candidate") * 5:
        answer = pair.client.post("/", json=1, headers={"x-cortex-version": version})
        assert (answer.json()["by"], answer.headers["x-cortex-version"]) == (version, version)
    assert pair.report()["requests"] == 0


def test_a_weight_that_changes_under_load_loses_no_request(pair):
    pair.split(weight=5)

    def change():
        for weight in (50, 5, 100, 50):
            pair.split(weight=weight, same_version=True)
        pair.remove_split()
        pair.split(weight=50)

    answers = pair.load(500, clients=4, during=change)
    assert answers.lost == 0
    assert answers.answered_by("candidate") > 0
    assert pair.stable.metric("cortex_worker_restarts_total") == 0


@pytest.mark.parametrize("weight", [0, 100])
def test_streams_bodies_and_errors_are_those_of_the_version(pair, weight):
    version = "candidate" if weight else "stable"
    pair.split(weight=weight, mirror=0 if weight else 1)
    client = pair.client
    lines = client.get("/", params={"parts": 3}).text.splitlines()
    assert [json.loads(line) for line in lines] == [{"by": version, "part": part} for part in range(3)]
    events = client.get("/", params={"parts": 1}, headers={"accept": "text/event-stream"})
    assert events.text == f'data: {{"by":"{version}","part":0}}\n\n'
    body = os.urandom(3_000_000)
    assert client.put("/", content=body).json() == {"by": version, "size": len(body)}
    chunks = iter([body[:1000], body[1000:2000]])
    assert client.put("/", content=chunks).json() == {"by": version, "size": 2000}
    packed = gzip.compress(body[:5000])
    answer = client.put("/", content=packed, headers={"content-encoding": "gzip"})
    assert answer.json() == {"by": version, "size": 5000}
    answer = client.post(
        "/", content=b"{", headers={"content-type": "application/json", "x-request-id": "mine"}
    )
    assert (answer.status_code, answer.json()["requestId"]) == (400, "mine")
    assert answer.headers["x-cortex-version"] == version
    assert client.options("/").status_code == 405
    answer = client.head("/", params={"parts": 3})
    assert (answer.status_code, answer.content, answer.headers["x-cortex-version"]) == (200, b"", version)
    answer = client.post("/", json={"a": "ä"}, headers={"x-request-id": "an-id"})
    assert answer.json() == {
        "by": version,
        "id": "an-id",
        "mirror": None,
        "payload": {"a": "ä"},
        "label": "usual",
    }
    assert answer.headers.get_list("x-request-id") == ["an-id"]
    assert len(answer.headers.get_list("date")) == 1


def test_a_forwarded_request_is_counted_once(pair, tmp_path):
    pair.split(weight=100)
    settled(pair)
    before = [replica.metric(COUNT) for replica in replicas(pair)]
    answers = pair.load(200)
    assert answers.answered_by("candidate") == 200
    settled(pair)
    after = [replica.metric(COUNT) for replica in replicas(pair)]
    assert [b - a for a, b in zip(before, after, strict=True)] == [0, 200]
    durations = PLAIN.get(f"{pair.candidate.admin}/durations").json()
    assert len(durations["counts"]) == len(durations["bounds"]) + 1
    assert sum(durations["counts"]) == pair.candidate.metric("cortex_request_duration_seconds_count")
    gate = tmp_path / "gate"
    with pair.client.stream("GET", "/", params={"gate": str(gate)}) as stream:
        lines = stream.iter_lines()
        assert json.loads(next(lines))["by"] == "candidate"
        assert (in_flight(pair.candidate), in_flight(pair.stable)) == (1, 0)
        gate.touch()
        assert len(list(lines)) == 2


def test_a_client_that_disconnects_ends_its_request_at_the_candidate(pair):
    pair.split(weight=100)
    settled(pair)
    with pair.client.stream("GET", "/", params={"parts": 1_000_000_000}) as stream:
        lines = stream.iter_lines()
        assert json.loads(next(lines))["by"] == "candidate"
        assert in_flight(pair.candidate) == 1
        lines.close()
    pair.candidate.until(lambda: in_flight(pair.candidate) == 0)
    assert pair.report()["errors"] == 0


def test_paths_of_the_runtime_are_answered_by_the_stable_version(pair):
    pair.split(weight=100)
    assert pair.client.get("/info").headers["x-cortex-version"] == "stable"
    answer = pair.client.get("/info", headers={"x-cortex-version": "candidate"})
    assert answer.headers["x-cortex-version"] == "candidate"
    assert pair.client.get("/missing").headers["x-cortex-version"] == "candidate"


def test_a_restarted_worker_uses_the_split_from_its_first_request(pair):
    pair.split(weight=100)
    (pid,) = worker_pids(pair.stable)
    os.kill(pid, signal.SIGKILL)
    pair.stable.until(lambda: pair.stable.metric("cortex_worker_restarts_total") == 1)
    for _ in range(5):
        assert pair.stable.post(1).json()["by"] == "candidate"


COUNT = 'cortex_requests_total{method="POST",status="200"}'


def replicas(pair):
    return pair.stable, pair.candidate


def settled(pair):
    """Wait until all requests have ended and are counted, which happens after their responses."""
    for replica in replicas(pair):
        replica.until(lambda replica=replica: in_flight(replica) == 0)


def worker_pids(replica):
    """Return the processes that have written to the log as workers."""
    return {line["process"] for line in replica.lines() if "the candidate " in line["message"]}
