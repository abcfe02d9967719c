"""The parts of the split that need no replica: the file, selection, breaker, deadlines, counters."""

import asyncio
import json
from types import SimpleNamespace

import pytest

from cortex_runtime.candidate import counters
from cortex_runtime.candidate.breaker import Breaker
from cortex_runtime.candidate.client import Request
from cortex_runtime.candidate.compare import Answer, Comparator
from cortex_runtime.candidate.counters import WorkerCounters, totals
from cortex_runtime.candidate.deadlines import Deadlines
from cortex_runtime.candidate.differences import DifferingPairs
from cortex_runtime.candidate.mirror import Mirror
from cortex_runtime.candidate.reports import ConfusionMatrix
from cortex_runtime.candidate.selection import Selected, Selector
from cortex_runtime.candidate.split import InvalidSplit, parse, read
from cortex_runtime.metrics.shared_memory import CANDIDATE_CELLS, SharedMetrics

SPLIT = {"version": "v1", "host": "10.0.0.1", "port": 80, "weight": 25, "mirror": 0}


def split(**fields):
    return parse(json.dumps({**SPLIT, **fields}).encode())


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


def test_a_missing_file_and_one_without_shares_are_no_split(tmp_path):
    path = tmp_path / "split.json"
    assert read(path) is None
    path.write_text(json.dumps({**SPLIT, "weight": 0}))
    assert read(path) is None
    path.write_text(json.dumps({**SPLIT, "weight": 0, "mirror": 0.5, "key": "X-User", "grpcPort": 81}))
    found = read(path)
    assert found is not None
    assert (found.mirror, found.key, found.grpc_port, found.compare.keep) == (0.5, b"x-user", 81, 50)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"weight": 101}, "weight must be a percentage from 0 to 100; got 101"),
        ({"mirror": "5"}, "mirror has the wrong type"),
        ({"host": None}, "host has the wrong type, or is missing"),
        ({"port": True}, "port has the wrong type"),
        ({"compare": []}, "compare has the wrong type"),
    ],
)
def test_an_invalid_split_names_its_field(fields, message):
    with pytest.raises(InvalidSplit, match=message):
        split(**fields)


@pytest.mark.parametrize("content", [b"", b"[]", b"{"])
def test_a_file_that_is_no_object_is_invalid(content):
    with pytest.raises(InvalidSplit):
        parse(content)


@pytest.mark.parametrize("weight", [0, 0.5, 25, 99.5, 100])
@pytest.mark.parametrize("every", [1, 2, 7])
def test_the_share_holds_for_every_nth_request_too(weight, every):
    selector = Selector(split(weight=weight), "iris")
    found = [selector.select({}) is Selected.WEIGHTED for _ in range(10_000)][::every]
    assert 100 * sum(found) / len(found) == pytest.approx(weight, abs=0.5)


def test_a_key_selects_the_same_version_in_every_worker_and_for_every_version_of_the_candidate():
    users = [{b"x-user": b"user-%d" % number} for number in range(2000)]
    first = Selector(split(weight=10, key="x-user"), "iris")
    second = Selector(split(weight=10, key="x-user", version="v2", host="10.0.0.2"), "iris")
    found = [first.select(user) for user in users]
    assert found == [second.select(user) for user in users]
    assert found.count(Selected.WEIGHTED) == pytest.approx(200, abs=50)
    other = Selector(split(weight=10, key="x-user"), "mpg")
    assert found != [other.select(user) for user in users]
    larger = Selector(split(weight=20, key="x-user"), "iris")
    moved = [larger.select(user) for user in users]
    assert all(after is Selected.WEIGHTED for before, after in zip(found, moved, strict=True) if before.value)


def test_the_breaker_opens_for_failures_and_closes_with_a_response():
    clock, changes = Clock(), []
    breaker = Breaker(changes.append, clock=clock)
    for _ in range(4):
        breaker.record_failure("status 500")
    assert not breaker.is_open
    breaker.record_failure("status 500")
    assert breaker.is_open
    assert not breaker.take_probe()
    clock.now += 1
    assert breaker.take_probe()
    assert not breaker.take_probe()
    # The pauses grow up to ten seconds.
    for pause in (2, 4, 8, 10, 10):
        clock.now += pause - 0.1
        assert not breaker.take_probe()
        clock.now += 0.1
        assert breaker.take_probe()
    breaker.record_success()
    assert changes == [True, False]


def test_a_candidate_with_some_errors_is_still_asked():
    breaker = Breaker()
    for number in range(1000):
        if number % 10 < 4:
            breaker.record_failure("status 500")
        else:
            breaker.record_success()
    assert not breaker.is_open


def test_two_timeouts_in_a_row_are_a_hang():
    hangs = []
    breaker = Breaker(on_hang=lambda: hangs.append(True))
    breaker.record_failure("late", is_timeout=True)
    breaker.record_success()
    breaker.record_failure("late", is_timeout=True)
    assert not breaker.is_open
    breaker.record_failure("late", is_timeout=True)
    assert (breaker.is_open, hangs) == (True, [True])


@pytest.mark.parametrize(
    ("latency", "first_byte", "silence"),
    [
        (None, 30, 30),
        ((0.01, 0.05), 1.0, 0.5),
        ((0.5, 2.5), 3.75, 1.5),
        ((10.0, 60.0), 30, 30),
        ((float("inf"), float("inf")), 30, 30),
    ],
)
def test_deadlines_follow_the_latency_of_the_stable_version(latency, first_byte, silence):
    deadlines = Deadlines(lambda: latency, 60)
    deadlines.update()
    assert (deadlines.first_byte, deadlines.silence) == (first_byte, silence)


def test_counts_of_the_workers_are_added_up_and_start_from_zero_with_each_version():
    assert counters._CELLS <= CANDIDATE_CELLS
    shared = SharedMetrics.create(2)
    workers = [WorkerCounters(shared, slot) for slot in range(2)]
    for worker in workers:
        worker.start_version("v1")
        worker.add(counters.ANSWERED)
        worker.record_candidate(0.002)
        worker.record_stable(0.0001)
    workers[0].add_error(counters.FALLBACK, is_late=True)
    workers[1].add_error(counters.DIVERTED, is_late=False)
    workers[1].set_breaker(True)
    report = totals(shared, "v1").as_json()
    assert (report["requests"], report["errors"], report["fallbacks"], report["late"]) == (4, 2, 1, 1)
    assert report["breaker"] == "open"
    assert report["latency"]["stable"][0] == 2
    assert len(report["latency"]["candidate"]) == len(report["latency"]["bounds"]) + 1
    # The next worker of a slot goes on, unless the version has changed.
    shared.reset_gauges(1)
    WorkerCounters(shared, 1).start_version("v1")
    assert totals(shared, "v1").as_json() == {**report, "breaker": "closed"}
    workers[0].start_version("v2")
    assert totals(shared, "v1").answered == 1
    assert totals(shared, "v2").answered == 0


def test_the_latency_since_the_start_is_used_until_there_is_enough_of_the_split():
    shared = SharedMetrics.create(1)
    worker = WorkerCounters(shared, 0)
    worker.start_version("v1")
    assert worker.stable_latency() is None
    for number in range(200):
        shared.worker(0).record_request("POST", 200, 2.0 if number == 0 else 0.004)
    assert worker.stable_latency() == (0.005, 2.5)
    for _ in range(100):
        worker.record_stable(0.04)
    assert worker.stable_latency() == (0.05, 0.05)


def test_the_selected_version_of_a_request_wins():
    selector = Selector(split(weight=100), "iris")
    assert selector.select({b"x-cortex-version": b"stable"}) is Selected.STABLE
    assert selector.select({b"x-cortex-version": b"candidate"}) is Selected.EXPLICIT
    assert selector.select({b"x-cortex-version": b"other"}) is Selected.WEIGHTED
    assert Selector(SimpleNamespace(weight=0, mirror=50, key=None), "iris").select({}) is Selected.STABLE


class Unanswered:
    """A forwarder whose requests wait."""

    def __init__(self):
        self.asked = 0

    async def ask(self, request, added=()):
        self.asked += 1
        await asyncio.Event().wait()


def mirror_of(clock, **more):
    shared = SharedMetrics.create(2)
    worker = WorkerCounters(shared, 0)
    worker.start_version("v1")
    forwarder = Unanswered()
    mirror = Mirror(
        forwarder, worker, Comparator(), DifferingPairs(1), ConfusionMatrix(), clock=clock, **more
    )
    return mirror, forwarder, shared


def offer(mirror, count, size=10):
    for _ in range(count):
        mirror.offer(Request("POST", "/", [], b"", "id"), Answer(200, "", b"x" * size))


@pytest.mark.parametrize(("size", "sent"), [(10, 32), (1_000_000, 3)])
async def test_copies_are_bounded_in_number_and_bytes(size, sent):
    mirror, forwarder, shared = mirror_of(Clock())
    offer(mirror, 100, size)
    await asyncio.sleep(0)
    found = totals(shared, "v1")
    assert (found.mirrored, found.dropped, forwarder.asked) == (sent, 100 - sent, sent)
    mirror.close()


@pytest.mark.parametrize(("cpus", "sent"), [(1.0, 200), (4.0, 200), (0.2, 40)])
async def test_copies_take_a_tenth_of_the_cpu(cpus, sent):
    clock = Clock()
    mirror, _, shared = mirror_of(clock, cpus=cpus)
    for _ in range(4000):
        offer(mirror, 1)
        await asyncio.sleep(0)
        mirror.close()
        await asyncio.sleep(0)
        clock.now += 0.0025
    # In ten seconds, apart from the first burst.
    assert totals(shared, "v1").mirrored - 200 == pytest.approx(10 * sent, rel=0.05)


async def test_copies_pause_while_the_event_loop_is_late():
    clock = Clock()
    mirror, _, shared = mirror_of(clock)
    offer(mirror, 1)
    clock.now += 0.02
    await asyncio.sleep(0)
    offer(mirror, 1)
    await asyncio.sleep(0)
    assert (totals(shared, "v1").mirrored, totals(shared, "v1").dropped) == (0, 2)
    clock.now += 0.6
    offer(mirror, 1)
    await asyncio.sleep(0)
    assert totals(shared, "v1").mirrored == 1
    mirror.close()


async def test_probes_of_a_candidate_that_has_failed_are_sent_under_load():
    clock, failing = Clock(), True
    mirror, _, shared = mirror_of(clock, is_probing=lambda: failing)
    offer(mirror, 1)
    clock.now += 0.02
    await asyncio.sleep(0)
    assert (totals(shared, "v1").mirrored, totals(shared, "v1").dropped) == (1, 0)
    failing = False
    offer(mirror, 1)
    clock.now += 0.02
    await asyncio.sleep(0)
    failing = True
    offer(mirror, 1)
    await asyncio.sleep(0)
    # The second copy was late, which suspends all but the third.
    assert (totals(shared, "v1").mirrored, totals(shared, "v1").dropped) == (2, 1)
    mirror.close()
