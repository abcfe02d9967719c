"""What the page keeps of an API: rates of the last minute, changes of the replicas, and one point a minute after ten minutes."""

import pytest

from cortex_cli.replica_metrics import Totals
from cortex_cli.ui.history import History, Point


def totals(count: int, failed: int = 0, in_flight: int = 0) -> Totals:
    found = Totals(in_flight=in_flight)
    found.classes.update({"2XX": count, "5XX": failed} if failed else {"2XX": count})
    return found


def test_rates_are_those_of_the_last_minute():
    history = History()
    history.add(Point(900, 0, totals(0), 1, 1))
    for second in (940, 950, 960):
        history.add(Point(second, 10, totals(45, 5, in_flight=second), 1, 1))
    recent = history.recent(1000)
    # The point at 940 is older than a minute.
    assert recent.rate() == pytest.approx(5.0)
    assert recent.rate("5XX") == pytest.approx(0.5)
    assert recent.error_share == pytest.approx(0.1)
    assert recent.traffic.in_flight == 960


def test_nothing_measured_is_not_zero():
    history = History()
    assert history.recent(1000).rate() is None
    history.add(Point(990, 0, totals(0), 1, 1))
    assert history.recent(1000).rate() is None
    history.add(Point(992, 2, totals(0), 1, 1))
    assert (history.recent(1000).rate(), history.recent(1000).error_share) == (0, None)


def test_unreadable_replicas_leave_a_gap():
    history = History()
    history.add(Point(990, 5, totals(50), 1, 1))
    history.add(Point(995, 0, None, 1, 1))
    assert history.recent(1000).rate() == pytest.approx(10)
    assert history.recent(1000).traffic.in_flight == 0


def test_old_points_are_merged_without_losing_requests():
    history = History()
    for second in range(0, 7200, 10):
        history.add(Point(second, 10, totals(1, in_flight=second % 70), 1, 1))
    points = history.points()
    assert len(points) < 200
    assert sum(point.counted.classes["2XX"] for point in points if point.counted) == 720
    assert sum(point.seconds for point in points) == 7200
    assert [point.time for point in points] == sorted(point.time for point in points)


def test_points_are_dropped_after_three_hours():
    history = History()
    for second in range(0, 5 * 3600, 60):
        history.add(Point(second, 60, totals(1), 1, 1))
    assert history.points()[0].time >= 2 * 3600 - 120


def test_decisions_are_the_changes_of_the_desired_replicas():
    history = History()
    for second, desired in ((10, 1), (20, None), (30, 1), (40, 3), (50, 3), (60, 2)):
        history.add(Point(second, 10, totals(0), 1, desired, f"reason at {second}"))
    found = [(each.time, each.before, each.after, each.reason) for each in history.decisions(0)]
    assert found == [(40, 1, 3, "reason at 40"), (60, 3, 2, "reason at 60")]
    assert [each.time for each in history.decisions(45)] == [60]
