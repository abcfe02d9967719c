"""Pauses double up to their maximum, by a generator and by the number of attempts alike."""

from itertools import islice

from cortex_runtime.backoff import backoff, pause_after


def test_pauses_double_up_to_the_maximum() -> None:
    assert list(islice(backoff(0.5, 3), 5)) == [0.5, 1, 2, 3, 3]
    assert list(islice(backoff(1, 10, 1.5), 4)) == [1, 1.5, 2.25, 3.375]


def test_the_pause_after_an_attempt_is_that_of_the_generator() -> None:
    pauses = list(islice(backoff(2, 3600), 14))
    assert [pause_after(attempt, 2, 3600) for attempt in range(1, 15)] == pauses


def test_any_number_of_attempts_has_a_pause() -> None:
    assert pause_after(10**6, 2.0, 3600) == 3600
