"""InlinePolicy, over replayed durations: which calls run on the event loop's thread."""

import itertools
from collections.abc import Iterable

import pytest

from cortex_runtime.handler.inline_policy import InlinePolicy


def inline(durations: Iterable[float], calls: int = 4000) -> float:
    """Return the fraction of calls that ran inline."""
    policy, count = InlinePolicy(True), 0
    for seconds in itertools.islice(itertools.cycle(durations), calls):
        count += policy.inline
        policy.record(seconds)
    return count / calls


def test_quick_calls_run_inline() -> None:
    assert inline([0.0001]) > 0.98


def test_a_quick_method_stays_inline_on_a_busy_machine() -> None:
    """Two calls in twenty are preempted by other processes."""
    assert inline([0.0001] * 9 + [0.012] + [0.0002] * 9 + [0.006]) > 0.98


@pytest.mark.parametrize(
    "durations",
    [[0.001], [0.0001, 0.001], [0.0001] * 4 + [0.05], [0.0001] * 40 + [0.3]],
    ids=[
        "every call takes 1 ms",
        "every second call is slow",
        "every fifth call is very slow",
        "a rare call blocks for long",
    ],
)
def test_a_slow_method_runs_in_its_thread(durations: list[float]) -> None:
    assert inline(durations) < 0.25


def test_no_call_runs_inline_unless_allowed() -> None:
    policy = InlinePolicy(False)
    for _ in range(1000):
        policy.record(0.00001)
    assert not policy.inline
