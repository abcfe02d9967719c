"""A candidate that fails costs clients time, but no request, and copies to it cost neither. Real replicas."""

import json
import signal
import socket

import httpx
import pytest

from tests.runtime.queues.servers import free_port


@pytest.fixture(scope="module")
def usual_pair(start_pair):
    """A pair whose stable version waits as long as usually. Of a machine that stands still for a second, it sees a hang."""
    return start_pair(is_patient=False)


@pytest.fixture(params=["500", "hang"])
def faulty(request, usual_pair, shared_pair):
    """Yield a kind of fault, and a pair that may get it."""
    pair = usual_pair if request.param == "hang" else shared_pair
    yield request.param, pair
    pair.fault.unlink(missing_ok=True)


def test_a_candidate_with_a_fault_loses_no_request_and_is_asked_again_when_it_works(faulty):
    fault, pair = faulty
    pair.split(weight=50)
    assert pair.load(100).lost == 0
    pair.fault.write_text(fault)
    answers = pair.load(400, clients=8)
    assert answers.lost == 0
    report = pair.report()
    assert report["breaker"] == "open"
    assert report["requests"] == pytest.approx(250, abs=4)
    assert report["errors"] >= 400 // 2 - 4
    assert report["fallbacks"] < 50
    if fault == "hang":
        # Probes are copies, which may be late as well.
        assert report["errors"] <= report["late"] <= report["errors"] + report["failed"]
    else:
        assert report["late"] == 0
    assert pair.stable.metric('cortex_candidate_requests_total{outcome="diverted"}') > 140
    pair.fault.unlink()
    pair.candidate.until(lambda: pair.client.post("/", json=1) and pair.report()["breaker"] == "closed", 60)
    pair.candidate.until(lambda: pair.load(100).answered_by("candidate") == pytest.approx(50, abs=4), 60)


@pytest.mark.parametrize("faulty", ["hang"], indirect=True)
def test_copies_are_bounded_and_do_not_slow_the_answers(faulty):
    fault, pair = faulty
    pair.split(mirror=100)
    pair.fault.write_text(fault)
    sent, report = 0, pair.report()
    # On a machine with much load, copies are dropped.
    while report["breaker"] == "closed":
        assert pair.load(1000, clients=8).answered_by("stable") == 1000
        sent += 1000
        report = pair.settled(sent)
    assert report["compared"] == 0
    assert 0 < report["mirrored"] <= 40
    # Copies that are not sent because the candidate fails count as failed, so that it is rolled back.
    assert pair.load(200, clients=8).answered_by("stable") == 200
    assert pair.settled(sent + 200)["failed"] > report["failed"] + 100


def test_a_candidate_at_an_address_that_does_not_exist_loses_no_request(usual_pair):
    pair = usual_pair
    with socket.create_server(("127.0.0.1", 0)) as full:
        # A port that nobody listens on, and an address that does not answer.
        for host, port in (
            ("127.0.0.1", free_port()),
            ("candidate.invalid", 80),
            ("127.0.0.1", full.getsockname()[1]),
        ):
            pair.split(weight=50, host=host, port=port)
            answers = pair.load(60)
            assert answers.lost == 0
            assert answers.answered_by("stable") == 60
            report = pair.report()
            assert report["errors"] == report["requests"] == pytest.approx(30, abs=4)


def test_a_failed_request_keeps_its_body_and_id(pair):
    pair.split(weight=100)
    pair.fault.write_text("500")
    for number in range(3):
        answer = pair.client.post("/", json={"n": number}, headers={"x-request-id": f"id-{number}"})
        assert answer.headers["x-cortex-version"] == "stable"
        assert answer.json() == {
            "by": "stable",
            "id": f"id-{number}",
            "mirror": None,
            "payload": {"n": number},
            "label": "usual",
        }
        assert answer.headers.get_list("x-request-id") == [f"id-{number}"]


def test_a_body_that_is_too_large_is_refused_by_the_stable_version(start_pair):
    pair = start_pair(maxBodySize="1Mi")
    pair.split(weight=100)
    answer = pair.client.put("/", content=b"x" * 1_100_000)
    assert (answer.status_code, answer.headers["x-cortex-version"]) == (413, "stable")
    answer = pair.client.put("/", content=iter([b"x" * 600_000] * 2))
    assert (answer.status_code, answer.headers["x-cortex-version"]) == (413, "stable")
    assert pair.client.put("/", content=b"x" * 1_000_000).headers["x-cortex-version"] == "candidate"
    assert pair.report()["errors"] == 0


def test_a_candidate_that_is_killed_under_load_loses_no_request(start_pair):
    pair = start_pair()
    pair.split(weight=50)
    assert pair.load(50).lost == 0

    def kill():
        pair.stable.until(lambda: pair.report()["requests"] > 100)
        pair.candidate.process.kill()
        pair.candidate.process.wait()

    answers = pair.load(400, during=kill)
    assert answers.lost == 0
    assert pair.report()["breaker"] == "open"


def test_a_stream_whose_candidate_fails_after_its_first_part_is_aborted(start_pair):
    pair = start_pair()
    pair.split(weight=100)
    with pytest.raises(httpx.RemoteProtocolError):
        pair.client.get("/", params={"exit": "candidate", "parts": 100})

    def counts():
        report = pair.report()
        return report["requests"], report["errors"], report["fallbacks"]

    pair.stable.until(lambda: counts() == (1, 1, 0))
    assert "Traceback" not in pair.stable.log.read_text()


def test_a_stable_replica_that_stops_finishes_forwarded_requests(start_pair, tmp_path):
    pair = start_pair()
    pair.split(weight=100, mirror=100)
    gate = tmp_path / "gate"
    with pair.client.stream("GET", "/", params={"gate": str(gate)}) as stream:
        lines = stream.iter_lines()
        first = next(lines)
        pair.stable.process.send_signal(signal.SIGTERM)
        # It accepts no connections any more.
        pair.stable.until(lambda: is_refused(pair.stable.port))
        gate.touch()
        parts = [json.loads(line) for line in (first, *lines)]
    assert parts == [{"by": "candidate", "part": part} for part in range(3)]
    assert pair.stable.process.wait(30) == 0


def is_refused(port):
    with socket.socket() as connection:
        return connection.connect_ex(("127.0.0.1", port)) != 0
