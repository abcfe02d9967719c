"""Charts: shapes, labels, and gaps where nothing is known."""

import re

import pytest

from cortex_cli import number_text
from cortex_cli.ui.api_charts import charts, period
from cortex_cli.ui.charts import Chart, Series, nice
from cortex_cli.ui.highlight import json_text, yaml_lines
from cortex_cli.ui.history import History, Point

from .test_history import totals


def chart(*values: float | None, style: str = "line") -> Chart:
    points = [(float(second), value) for second, value in enumerate(values)]
    series = Series("2XX", "blue", points, style)  # type: ignore[arg-type]
    return Chart("requests", "Requests", [series], 0.0, float(len(values) - 1), number_text.rate)


def paths(chart: Chart) -> list[str]:
    return re.findall(r' d="([^"]+)"', chart.svg())


def test_a_line_goes_through_all_points():
    assert paths(chart(0, 5, 10)) == ["M0.0 120.0L300.0 60.0L600.0 0.0"]


def test_unknown_values_interrupt_the_line_and_zero_does_not():
    assert len(paths(chart(1, 2, None, 2, 1))) == 2
    assert len(paths(chart(1, 2, 0, 2, 1))) == 1
    empty = chart(None, None)
    assert (empty.has_data, empty.description) == (False, "Requests: no data")


def test_steps_change_at_once():
    assert paths(chart(1, 2, style="step")) == ["M0.0 60.0L600.0 60.0L600.0 0.0"]


def test_negative_values_are_below_zero():
    assert paths(chart(-10, 10)) == ["M0.0 120.0L600.0 0.0"]
    assert chart(-10, 10).ticks == ["10/s", "0/s", "-10/s"]


def test_labels_have_units():
    found = chart(0, 8, 10)
    assert found.ticks == ["10/s", "5/s", "0/s"]
    assert found.description.endswith("2XX now 10/s, highest 10/s")
    assert found.rows[0][1] == ["10/s"]


@pytest.mark.parametrize(
    ("value", "top"), [(0, 1), (0.03, 0.04), (7, 10), (10, 10), (11, 20), (420, 500), (1001, 2000)]
)
def test_the_upper_edge_is_a_round_number(value, top):
    assert nice(value) == pytest.approx(top)


def test_time_without_points_is_a_gap():
    history = History()
    for second in (1000, 1005, 1010, 1200, 1205):
        history.add(Point(second, 5, totals(10), 1, 1))
    requests, *_ = charts("RealtimeAPI", history, period(history, 1210, 300))
    assert [value for _, value in requests.series[0].values] == [2, 2, 2, None, 2, 2]


def test_status_classes_without_responses_have_no_line():
    history = History()
    history.add(Point(1000, 5, totals(10), 1, 1))
    assert [s.name for s in charts("RealtimeAPI", history, period(history, 1010, 300))[0].series] == ["2XX"]
    history.add(Point(1005, 5, totals(9, 1), 1, 1))
    assert [s.name for s in charts("RealtimeAPI", history, period(history, 1010, 300))[0].series] == [
        "2XX",
        "5XX",
    ]


def test_a_long_period_has_a_bounded_number_of_points():
    history = History()
    for second in range(0, 10800, 5):
        history.add(Point(second, 5, totals(1), 1, 1))
    found = charts("RealtimeAPI", history, period(history, 10800, 10800))
    assert len(found[0].series[0].values) <= 200


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0123, "12 ms"), (0.25, "250 ms"), (2.5, "2.5 s")],
)
def test_durations(seconds, text):
    assert number_text.duration(seconds) == text


@pytest.mark.parametrize(
    ("value", "text"), [(None, "–"), (0, "0%"), (0.0004, "<0.1%"), (0.012, "1.2%"), (0.5, "50%"), (1, "100%")]
)
def test_shares_are_not_rounded_to_zero(value, text):
    assert number_text.share(value) == text


def test_highlighted_text_is_escaped_and_complete():
    source = 'a: "<b>"\nb:\n- c: 1\n  d: |\n    x: <script>\n    y\n- true\n# note\n'
    found = yaml_lines(source)
    assert "<script>" not in found
    assert re.sub(r"<[^>]+>", "", found).replace("&lt;", "<").replace("&gt;", ">").replace(
        "&#34;", '"'
    ) == source.rstrip("\n")
    assert '<span class="hl-string">    x: &lt;script&gt;</span>' in found
    assert (
        json_text('{"a": "<i>"}')
        == '{<span class="hl-key">&#34;a&#34;</span>: <span class="hl-string">&#34;&lt;i&gt;&#34;</span>}'
    )
