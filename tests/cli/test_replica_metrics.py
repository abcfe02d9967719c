"""Totals of the metrics of several replicas."""

from cortex_cli.replica_metrics import Values, samples, sum_metrics


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
    assert traffic.seconds is None


def test_average_latency_is_weighted_by_requests():
    one = "cortex_request_duration_seconds_count 1\ncortex_request_duration_seconds_sum 1.0\n"
    two = "cortex_request_duration_seconds_count 3\ncortex_request_duration_seconds_sum 1.0\n"
    assert sum_metrics([one, two]).seconds == 0.5


def test_ended_jobs_are_summed_by_status():
    text = 'cortex_async_jobs_total{{status="{}"}} {}\ncortex_async_finish_seconds_count {}\ncortex_async_finish_seconds_sum {}\n'
    one, two = text.format("completed", 3, 3, 6), text.format("failed", 1, 1, 2)
    traffic = sum_metrics([one, two, "cortex_async_queued 4\n"])
    assert (traffic.jobs, traffic.job_seconds) == ({"completed": 3, "failed": 1}, 2.0)


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
