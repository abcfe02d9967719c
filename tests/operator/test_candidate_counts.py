"""What stable replicas count is added up, survives their end, and exceeds the thresholds of a rollback when it should."""

from collections.abc import Callable
from typing import Any

import pytest

from cortex_api.candidate import Rollback
from cortex_operator.candidate.counts import Counts, History, Recent, parse, parse_durations, percentile
from cortex_operator.candidate.thresholds import exceeded

REPORT = {
    "version": "v",
    "requests": 10,
    "errors": 2,
    "fallbacks": 1,
    "compared": 4,
    "differing": 1,
    "failed": 3,
    "breaker": "closed",
}


def rules(**fields: Any) -> Rollback:
    return Rollback.model_validate({"minRequests": 100, **fields})


def recent(**fields: Any) -> Recent:
    counts = Counts(**fields)
    return Recent(counts, counts, counts, counts)


def test_a_report_is_read() -> None:
    assert parse(REPORT, "v") == Counts(17, 5, 4, 1)
    assert parse({**REPORT, "late": 4}, "v") == Counts(17, 5, 4, 1, late=4)
    assert parse({**REPORT, "late": 6}, "v") == Counts(17, 5, 4, 1, late=5)


def test_a_report_of_another_version_is_ignored() -> None:
    assert parse(REPORT, "w") is None


@pytest.mark.parametrize(
    "change",
    [
        {"requests": -1},
        {"requests": "10"},
        {"requests": True},
        {"requests": 2**60},
        {"errors": None},
        {"compared": 1.5},
    ],
)
def test_an_unexpected_report_is_ignored(change: dict[str, Any]) -> None:
    assert parse({**REPORT, **change}, "v") is None
    assert parse([REPORT], "v") is None


def test_durations_are_those_of_the_version_of_the_replica() -> None:
    answer = {"bounds": [0.01, 0.1], "counts": [5, 3, 0]}
    assert parse_durations(answer, "api") == Counts(bounds=(0.01, 0.1), stable=(5, 3, 0))
    assert parse_durations(answer, "candidate") == Counts(bounds=(0.01, 0.1), candidate=(5, 3, 0))


@pytest.mark.parametrize(
    "answer",
    [
        None,
        {"bounds": [0.01]},
        {"bounds": [0.01], "counts": [1]},
        {"bounds": ["a"], "counts": [1, 2]},
        {"bounds": [0.01], "counts": [1, -2]},
        {"bounds": [0.01] * 1000, "counts": [1] * 1001},
    ],
)
def test_unexpected_durations_are_ignored(answer: Any) -> None:
    assert parse_durations(answer, "api") is None


def test_durations_before_the_first_report_do_not_count() -> None:
    def stable(*counts: int) -> Counts:
        return Counts(bounds=(0.01,), stable=counts)

    def candidate(*counts: int) -> Counts:
        return Counts(bounds=(0.01,), candidate=counts)

    history, uids = History("v", 10), {"a", "b"}
    history.add(0.0, {}, uids, {"a": stable(1000, 5), "b": candidate(1, 0)})
    history.add(1.0, {"a": Counts(3)}, uids, {"a": stable(1004, 6), "b": candidate(1, 7)})
    assert history.recent.total == Counts(3, bounds=(0.01,), stable=(4, 1), candidate=(0, 7))
    # A replica that starts again keeps its part.
    history.add(2.0, {}, uids, {"a": stable(2, 0)})
    history.add(3.0, {}, uids, {"a": stable(3, 0)})
    assert history.recent.total == Counts(3, bounds=(0.01,), stable=(7, 1), candidate=(0, 7))
    history.add(4.0, {}, {"a"}, {"a": stable(3, 0)})
    assert history.recent.total.candidate == (0, 7)


def test_replicas_are_added_up() -> None:
    history = History("v", 100)
    history.add(0.0, {"a": Counts(10, 1), "b": Counts(20, 2)}, {"a", "b"})
    assert history.recent.total == Counts(30, 3)


def test_a_replica_that_does_not_respond_keeps_its_counts() -> None:
    history = History("v", 100)
    history.add(0.0, {"a": Counts(10), "b": Counts(20)}, {"a", "b"})
    history.add(1.0, {"a": Counts(11)}, {"a", "b"})
    assert history.recent.total == Counts(31)


def test_a_replica_that_ends_or_starts_again_keeps_its_part() -> None:
    history = History("v", 100)
    history.add(0.0, {"a": Counts(10, 1), "b": Counts(20)}, {"a", "b"})
    history.add(1.0, {"b": Counts(3)}, {"b"})
    assert history.recent.total == Counts(33, 1)
    history.add(2.0, {"b": Counts(4)}, {"b"})
    assert history.recent.total == Counts(34, 1)


def test_a_candidate_that_breaks_late_is_found_in_the_last_minute() -> None:
    history, errors = History("v", 100), 0
    for second in range(1000):
        errors += 100 if second > 900 else 0
        history.add(float(second), {"a": Counts(100 * (second + 1), errors)}, {"a"})
        if exceeded(rules(errorRate="5%"), history.recent):
            break
    # 300 of the last 6,000 requests are exactly 5%.
    assert second == 904
    assert history.recent.total.errors / history.recent.total.requests < 0.01


def seconds_to_rollback(late: Callable[[int], bool], rate: int, until: int = 200) -> int | None:
    """Return the second in which a candidate with `rate` requests each second is rolled back, or None.

    late: whether it does not answer in time during a second.
    """
    history, requests, unanswered = History("v", 100), 0, 0
    for second in range(until):
        history.add(float(second), {"a": Counts(requests, unanswered, late=unanswered)}, {"a"})
        if exceeded(rules(errorRate="5%"), history.recent):
            return second
        requests += rate
        unanswered += rate if late(second) else 0
    return None


@pytest.mark.parametrize("rate", [5, 25, 1000])
@pytest.mark.parametrize("start", [0, 1, 5, 100])
def test_one_short_stall_does_not_end_a_release(rate: int, start: int) -> None:
    assert seconds_to_rollback(lambda second: start <= second < start + 3, rate) is None


@pytest.mark.parametrize("rate", [1, 10, 25, 50, 1000])
def test_a_candidate_that_hangs_is_rolled_back_within_five_seconds(rate: int) -> None:
    found = seconds_to_rollback(lambda second: True, rate)
    assert found is not None
    assert found <= max(100 / rate, 4)
    found = seconds_to_rollback(lambda second: second >= 120, rate)
    # At a low rate, more than 5% of the last minute, or of the last 100 requests.
    assert found is not None
    assert found - 120 <= 7


def test_stalls_that_return_end_a_release() -> None:
    assert seconds_to_rollback(lambda second: second % 30 in (10, 11, 12, 13), 25) is not None


def test_a_candidate_that_does_not_answer_the_last_requests_is_rolled_back() -> None:
    history = History("v", 100)
    history.add(0.0, {"a": Counts(100)}, {"a"})
    history.add(1.0, {"a": Counts(200, 100, late=100)}, {"a"})
    history.add(4.0, {"a": Counts(200, 100, late=100)}, {"a"})
    assert exceeded(rules(), history.recent) is None
    history.add(5.0, {"a": Counts(200, 100, late=100)}, {"a"})
    assert exceeded(rules(), history.recent) is not None


def test_the_message_of_an_error_rate_has_all_requests_of_the_window() -> None:
    history = History("v", 100)
    for second in range(5):
        history.add(float(second), {"a": Counts(40 * second, 40 * second, late=40 * second)}, {"a"})
    found = exceeded(rules(), history.recent)
    assert found is not None
    assert "160 of 160 requests (100%)" in found.message


def test_a_slow_candidate_is_judged_by_its_last_requests_however_long_they_took() -> None:
    history = History("v", 100)
    for second in range(0, 100_000, 10):
        requests = second // 100
        history.add(float(second), {"a": Counts(requests, max(0, requests - 900))}, {"a"})
    window = history.recent.requests
    assert 100 <= window.requests <= 110
    assert window.errors == 99


def test_the_memory_of_a_slow_candidate_is_bounded() -> None:
    history = History("v", 1000)
    for second in range(15_000):
        history.add(float(second), {"a": Counts(requests=10 * second, compared=second // 10)}, {"a"})
    assert len(history._compared._sums) < 200
    assert len(history._requests._sums) < 200
    assert history.recent.compared.compared >= 1000
    assert 1000 <= history.recent.requests.requests <= 1020


@pytest.mark.parametrize(
    ("counts", "share", "expected"),
    [
        ((0, 0, 0), 0.95, None),
        ((100, 0, 0), 0.5, 0.005),
        ((0, 100, 0), 0.5, 0.055),
        ((90, 10, 0), 0.95, 0.055),
        ((0, 0, 10), 0.95, 0.1),
    ],
)
def test_a_percentile_is_interpolated(counts: tuple[int, ...], share: float, expected: float | None) -> None:
    found = percentile((0.01, 0.1), counts, share)
    assert found == (None if expected is None else pytest.approx(expected))


@pytest.mark.parametrize(
    ("thresholds", "counts", "reason"),
    [
        ({}, {"requests": 99, "errors": 99}, None),
        ({}, {"requests": 100, "errors": 5}, None),
        ({}, {"requests": 100, "errors": 6}, "ErrorRate"),
        ({"errorRate": "0%"}, {"requests": 100, "errors": 1}, "ErrorRate"),
        ({"errorRate": "100%"}, {"requests": 100, "errors": 100}, None),
        ({"minRequests": 1}, {"requests": 1, "errors": 1}, "ErrorRate"),
        ({}, {"compared": 1000, "differing": 1000}, None),
        ({"disagreement": "5%"}, {"compared": 1000, "differing": 50}, None),
        ({"disagreement": "5%"}, {"compared": 1000, "differing": 51}, "Disagreement"),
        ({"disagreement": "5%"}, {"requests": 1000, "compared": 99, "differing": 99}, None),
        ({"disagreement": "0.5%"}, {"compared": 1000, "differing": 6}, "Disagreement"),
    ],
)
def test_thresholds(thresholds: dict[str, Any], counts: dict[str, int], reason: str | None) -> None:
    found = exceeded(rules(**thresholds), recent(**counts))
    assert (None if found is None else found.reason) == reason


BOUNDS = (0.001, 0.01, 0.1, 1.0)


@pytest.mark.parametrize(
    ("stable", "candidate", "reason"),
    [
        ((0, 100, 0, 0, 0), (0, 0, 100, 0, 0), "Latency"),
        ((0, 100, 0, 0, 0), (0, 100, 0, 0, 0), None),
        ((0, 0, 100, 0, 0), (0, 0, 0, 100, 0), "Latency"),
        # Only 99 requests of one version.
        ((0, 99, 0, 0, 0), (0, 0, 100, 0, 0), None),
        ((0, 100, 0, 0, 0), (0, 0, 99, 0, 0), None),
        # A ratio of 5 that is a difference of 4 ms.
        ((100, 0, 0, 0, 0), (0, 100, 0, 0, 0), "Latency"),
        ((100, 0, 0, 0, 0), (55, 45, 0, 0, 0), "Latency"),
        ((100, 0, 0, 0, 0), (92, 8, 0, 0, 0), None),
    ],
)
def test_the_latency_of_the_candidate(
    stable: tuple[int, ...], candidate: tuple[int, ...], reason: str | None
) -> None:
    counts = recent(bounds=BOUNDS, stable=stable, candidate=candidate)
    found = exceeded(rules(latencyRatio=1.5), counts)
    assert (None if found is None else found.reason) == reason
    assert exceeded(rules(), counts) is None


def test_a_message_has_the_value_and_the_threshold() -> None:
    found = exceeded(rules(disagreement="5%"), recent(compared=1000, differing=62))
    assert found is not None
    assert found.message == "62 of 1000 compared responses differ (6.2%); rollback.disagreement is 5%"
