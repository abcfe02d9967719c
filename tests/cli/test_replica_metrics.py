"""Totals of the metrics of several replicas."""

import pytest

from cortex_cli.replica_metrics import Values, read_totals, samples, sum_metrics, summarize


def test_samples_have_names_labels_and_values():
    text = (
        '# HELP a b\n# TYPE a counter\na_total{x="1",y="q\\"uo\\\\te\\n"} 3.0 1700\nb 1e3\nnonsense\nc NaN\n'
    )
    found = list(samples(text))
    assert [(s.name, s.value) for s in found[:2]] == [("a_total", 3.0), ("b", 1000.0)]
    assert found[0].labels == {"x": "1", "y": 'q"uo\\te\n'}
    assert [s.name for s in found[2:]] == ["c"]


def test_requests_are_summed_by_status_class():
    one = 'cortex_requests_total{method="POST",status="200"} 5\ncortex_requests_total{method="GET",status="204"} 1\n'
    two = 'cortex_requests_total{method="POST",status="503"} 2\ncortex_requests_in_flight 3\n'
    traffic = sum_metrics([one, two])
    assert traffic.classes == {"2XX": 6, "5XX": 2}
    assert traffic.in_flight == 3
    assert traffic.latency is None


def histogram(name: str, **counts: int) -> str:
    """Return the buckets of a histogram. counts: cumulative counts by bound in milliseconds, such as ms10, and inf."""
    bounds = {key: "+Inf" if key == "inf" else str(int(key[2:]) / 1000) for key in counts}
    return "".join(f'{name}_bucket{{le="{bounds[key]}"}} {count}\n' for key, count in counts.items())


def test_percentiles_are_estimated_from_the_buckets_of_all_replicas():
    one = histogram("cortex_request_duration_seconds", ms10=50, ms20=50, ms100=50, inf=50)
    two = histogram("cortex_request_duration_seconds", ms10=0, ms20=40, ms100=50, inf=50)
    latency = sum_metrics([one, two]).latency
    assert latency is not None
    assert (latency.p50, latency.p95, latency.p99) == pytest.approx((0.010, 0.060, 0.092))
    assert (latency.lowest, latency.highest) == (0.01, 0.1)


def test_a_percentile_in_the_last_bucket_is_the_largest_bound():
    latency = sum_metrics([histogram("cortex_request_duration_seconds", ms10=1, inf=2)]).latency
    assert latency is not None
    assert (latency.p50, latency.p95, latency.p99) == (0.01, 0.01, 0.01)
    assert sum_metrics([histogram("cortex_request_duration_seconds", ms10=0, inf=0)]).latency is None


def test_ended_jobs_are_summed_by_status():
    text = 'cortex_async_jobs_total{{status="{}"}} {}\n'
    finish = histogram("cortex_async_finish_seconds", ms1000=0, ms3000=4, inf=4)
    traffic = sum_metrics(
        [text.format("completed", 3) + finish, text.format("failed", 1), "cortex_async_queued 4\n"]
    )
    assert traffic.jobs == {"completed": 3, "failed": 1}
    assert traffic.job_latency is not None
    assert traffic.job_latency.p50 == 2.0


def test_tracked_values_are_combined():
    one = "cortex_tracker_value_count 2\ncortex_tracker_value_sum 3\ncortex_tracker_value_min 1\ncortex_tracker_value_max 2\n"
    two = "cortex_tracker_value_count 1\ncortex_tracker_value_sum 9\ncortex_tracker_value_min 9\ncortex_tracker_value_max 9\n"
    idle = "cortex_tracker_value_count 0\ncortex_tracker_value_min NaN\ncortex_tracker_value_max NaN\n"
    assert sum_metrics([one, two, idle]).values == Values(3, 1.0, 9.0, 4.0)
    assert sum_metrics([idle]).values is None


def test_tracked_classes_are_sorted_by_frequency():
    one = 'cortex_tracker_predictions_total{class="cat"} 1\ncortex_tracker_predictions_total{class="dog"} 2\n'
    two = 'cortex_tracker_predictions_total{class="cat"} 4\n'
    assert list(sum_metrics([one, two]).predictions.items()) == [("cat", 5), ("dog", 2)]


def test_counts_since_an_earlier_scrape_keep_the_buckets_of_the_histogram():
    name = "cortex_request_duration_seconds"
    requests = 'cortex_requests_total{{method="POST",status="200"}} {}\n'
    older = read_totals(requests.format(5) + histogram(name, ms10=5, ms20=5, inf=5))
    newer = read_totals(requests.format(7) + histogram(name, ms10=5, ms20=7, inf=7))
    since = newer.since(older)
    assert dict(since.classes) == {"2XX": 2}
    latency = summarize(since).latency
    assert latency is not None
    assert (latency.p50, latency.lowest) == (pytest.approx(0.015), 0.01)
    assert newer.since(newer).durations == {}


def test_a_restarted_replica_counts_from_zero():
    requests = 'cortex_requests_total{{method="POST",status="200"}} {}\n'
    restarted = read_totals(requests.format(3))
    assert dict(restarted.since(read_totals(requests.format(50))).classes) == {"2XX": 3}
