"""Which methods run in place: replayed durations in, where the calls ran out."""

import itertools
from collections.abc import Iterable

import pytest

from cortex_runtime.handler.threads import Pace


def in_place(durations: Iterable[float], calls: int = 4000) -> float:
    """The part of so many calls that ran in place."""
    pace, there = Pace(True), 0
    for seconds in itertools.islice(itertools.cycle(durations), calls):
        there += pace.in_place
        pace.note(seconds)
    return there / calls


def test_quick_calls_run_in_place() -> None:
    assert in_place([0.0001]) > 0.98


def test_a_quick_method_stays_when_the_machine_is_busy() -> None:
    """Two calls in twenty are interrupted for as long as others take a processor."""
    assert in_place([0.0001] * 9 + [0.012] + [0.0002] * 9 + [0.006]) > 0.98


@pytest.mark.parametrize(
    "durations",
    [[0.001], [0.0001, 0.001], [0.0001] * 4 + [0.05], [0.0001] * 40 + [0.3]],
    ids=["each a millisecond", "every other", "some much slower", "one that blocks all others"],
)
def test_a_slow_method_keeps_to_its_thread(durations: list[float]) -> None:
    assert in_place(durations) < 0.25


def test_where_it_is_not_allowed_nothing_runs_in_place() -> None:
    pace = Pace(False)
    for _ in range(1000):
        pace.note(0.00001)
    assert not pace.in_place
