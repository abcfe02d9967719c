"""Metrics and logs of requests: the tracker, the handler's own metrics, and the stages of a request with ?debug=true."""

import enum
import math
import threading
from decimal import Decimal

import httpx
import numpy as np
import pytest
from starlette.responses import JSONResponse

from cortex_runtime.metrics.client import MetricsClient
from cortex_runtime.metrics.prometheus import families
from cortex_runtime.metrics.series import MOST_SERIES, NamedSeries, merge
from cortex_runtime.metrics.shared_memory import SharedMetrics
from cortex_runtime.metrics.tracker import MOST_CLASSES, OTHER, Tracker

from ..onnx_models import write_model

TRACKED = """
from starlette.responses import JSONResponse
class Handler:
    def handle_post(self, payload):
        if payload == "response":
            return JSONResponse({"label": "from starlette"})
        if payload == "refusal":
            return JSONResponse({"label": "no"}, status_code=400)
        if payload == "stream":
            return iter(["a"])
        return payload
"""


def test_classes_are_counted_over_all_processes_without_failing_requests(serve):
    api = serve(
        TRACKED, processesPerReplica=2, spec={"tracker": {"key": "label", "modelType": "classification"}}
    )
    bodies = [
        {"label": "iris"},
        {"label": "rose"},
        {"label": "iris"},
        {"label": 7},
        {"label": True},
        "response",
    ] * 10
    for body in bodies:
        assert api.post(body).status_code == 200
    for body in ([], 1.5, None, {"other": 1}, {"label": [1]}, {"label": 0.5}, "text", "stream"):
        assert api.post(body).status_code == 200
    assert api.post("refusal").status_code == 400

    def count(name):
        return api.metric(f'cortex_tracker_predictions_total{{class="{name}"}}')

    assert {name: count(name) for name in ("iris", "rose", "7", "true", "from starlette", "no")} == {
        "iris": 20, "rose": 10, "7": 10, "true": 10, "from starlette": 10, "no": 0,
    }  # fmt: skip
    skipped = {
        reason: api.metric(f'cortex_tracker_skipped_total{{reason="{reason}"}}')
        for reason in ("not an object", "missing key", "wrong type")
    }
    assert skipped == {"not an object": 4, "missing key": 1, "wrong type": 2}
    logged = [line for line in api.lines() if "tracker can't count" in line["message"]]
    assert {line["level"] for line in logged} == {"warning"}
    for words in ("not an object", "missing key", "wrong type"):
        assert any(words in line["message"] for line in logged), words
    # Once for each reason in each process.
    assert len(logged) == len({(line["process"], line["message"]) for line in logged})


def test_predicted_values_have_minimum_maximum_and_average(serve):
    api = serve(TRACKED, spec={"tracker": {"modelType": "regression"}})
    for value in (3, -1.5, 4):
        assert api.post(value).json() == value
    for value in ("text", True, {"a": 1}, [1]):
        assert api.post(value).status_code == 200
    numbers = {
        ending: api.metric(f"cortex_tracker_value_{ending}") for ending in ("count", "sum", "min", "max")
    }
    assert numbers == {"count": 3, "sum": 5.5, "min": -1.5, "max": 4}
    warnings = [line["message"] for line in api.lines() if line["level"] == "warning"]
    expected = "the tracker can't count a response: an object, but tracker.key is not set"
    assert [expected in line for line in warnings].count(True) == 1


def spec(**fields):
    from cortex_api.deployment import Tracker as Spec

    return Spec(**fields)


def counts(shared_metrics):
    return {
        series.tags: series.values
        for series in merge(shared_metrics.series_region(slot) for slot in range(shared_metrics.slots))
    }


def test_the_number_of_classes_is_bounded():
    shared_metrics = SharedMetrics.create(1)
    tracker = Tracker(spec(modelType="classification"), NamedSeries(shared_metrics.series_region(0)))
    for number in range(MOST_CLASSES + 50):
        tracker.note(f"class {number}")
    tracker.note("class 0")
    found = counts(shared_metrics)
    assert len(found) == MOST_CLASSES + 1
    assert found[(("class", OTHER),)] == (50,)
    assert found[(("class", "class 0"),)] == (2,)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_value_that_is_not_finite_is_skipped(value):
    shared_metrics = SharedMetrics.create(1)
    Tracker(spec(modelType="regression"), NamedSeries(shared_metrics.series_region(0))).note(value)
    assert counts(shared_metrics) == {(("reason", "not finite"),): (1,)}


class Kind(enum.Enum):
    ROSE = "rose"


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (np.int8(-3), "-3"),
        (np.array([7]), "7"),
        (np.bool_(True), "true"),
        (np.array("rose"), "rose"),
        (Kind.ROSE, "rose"),
        (2**70, str(2**70)),
        (JSONResponse(2**70), str(2**70)),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_classes_of_any_type_are_counted_by_their_serialized_text(value, name):
    shared_metrics = SharedMetrics.create(1)
    Tracker(spec(modelType="classification"), NamedSeries(shared_metrics.series_region(0))).note(value)
    assert counts(shared_metrics) == {(("class", name),): (1,)}


@pytest.mark.parametrize(
    "value", [np.float32(0.5), np.array([[0.5]], ">f8"), Decimal("0.5"), np.longdouble(0.5)]
)
def test_numbers_of_any_type_are_values(value):
    shared_metrics = SharedMetrics.create(1)
    Tracker(spec(modelType="regression"), NamedSeries(shared_metrics.series_region(0))).note(value)
    assert [values[:2] for values in counts(shared_metrics).values()] == [(1, 0.5)]


def test_a_restarted_worker_continues_its_counters_and_gauges_keep_the_last_value():
    shared_metrics = SharedMetrics.create(2)
    first, second = (
        MetricsClient(NamedSeries(shared_metrics.series_region(0))),
        MetricsClient(NamedSeries(shared_metrics.series_region(1))),
    )
    first.increment("seen", 2, tags={"kind": "a"})
    first.gauge("depth", 5)
    second.increment("seen", tags={"kind": "a"})
    second.gauge("depth", 3)
    after = MetricsClient(NamedSeries(shared_metrics.series_region(0)))
    after.increment("seen", tags={"kind": "a"})
    by_name = {
        family.name: family
        for family in families(merge(shared_metrics.series_region(slot) for slot in range(2)))
    }
    assert [sample.value for sample in by_name["seen"].samples] == [4]
    assert [sample.value for sample in by_name["depth"].samples] == [3]


def test_concurrent_increments_are_not_lost():
    shared_metrics = SharedMetrics.create(1)
    client = MetricsClient(NamedSeries(shared_metrics.series_region(0)))
    threads = [
        threading.Thread(target=lambda: [client.increment("n", tags={"t": i % 7}) for i in range(2000)])
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(values[0] for values in counts(shared_metrics).values()) == 8000


def test_too_many_combinations_of_tags_are_dropped_and_counted():
    shared_metrics = SharedMetrics.create(1)
    client = MetricsClient(NamedSeries(shared_metrics.series_region(0)))
    for number in range(MOST_SERIES + 20):
        client.gauge("by_user", 1, tags={"user": "u" * 200 + str(number)})
    series = merge([shared_metrics.series_region(0)])
    dropped = [each for each in series if each.name == "cortex_metrics_dropped"]
    kept = len(series) - 1
    assert kept <= MOST_SERIES
    assert dropped[0].values == (MOST_SERIES + 20 - kept,)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda m: m.gauge("cortex_x", 1), "must not begin with cortex_ or istio_"),
        (lambda m: m.increment("istio_x"), "must not begin"),
        (lambda m: m.gauge("a b", 1), "must consist of letters"),
        (lambda m: m.gauge("x", "many"), "must be a number"),
        (lambda m: m.histogram("x", float("nan")), "must be finite"),
        (lambda m: m.increment("x", -1), "negative"),
        (lambda m: m.gauge("x", 1, tags={"le": "1"}), "reserved"),
        (lambda m: (m.gauge("y", 1), m.increment("y")), "is already a gauge"),
    ],
)
def test_an_invalid_metric_raises_value_error_with_the_reason(call, words):
    with pytest.raises(ValueError, match=words):
        call(MetricsClient(NamedSeries(SharedMetrics.create(1).series_region(0))))


MEASURED = """
class Handler:
    def __init__(self, config, metrics_client):
        self.metrics = metrics_client
    def handle_post(self, payload):
        self.metrics.increment("flowers.seen", tags={"kind": payload["kind"]})
        self.metrics.gauge("petals", payload["petals"])
        self.metrics.histogram("length", payload["petals"] / 10, tags={"kind": payload["kind"]})
        return "ok"
"""


def test_metrics_of_a_handler_are_exported_alongside_those_of_cortex(serve):
    api = serve(MEASURED, processesPerReplica=2)
    for petals in range(1, 41):
        kind = "iris" if petals % 2 else 'ro"se'
        assert api.post({"kind": kind, "petals": petals}).status_code == 200
    assert api.metric('flowers_seen_total{kind="iris"}') == 20
    assert api.metric('flowers_seen_total{kind="ro\\"se"}') == 20
    assert api.metric("petals") == 40
    assert api.metric('length_count{kind="iris"}') == 20
    assert api.metric('length_sum{kind="iris"}') == pytest.approx(40)
    assert api.metric('length_bucket{kind="iris",le="1.0"}') == 5


STAGED = """
def pre_inference(sample):
    return {"x": sample["numbers"]}
def post_inference(prediction):
    return {"doubled": prediction[0]}
"""


def stages(api, identity):
    return [line["stage"] for line in api.lines() if line.get("requestId") == identity and "stage" in line]


def test_debug_shows_the_stages_of_a_request_and_changes_nothing(serve, tmp_path):
    write_model(tmp_path / "m.onnx", 2.0)
    api = serve(STAGED, type="onnx", models={"path": "m.onnx"}, debug=True, logLevel="warning")
    body = {"numbers": [[float(n), 1.0] for n in range(30)], "secret": "s" * 900}
    plain = api.post(body, headers={"x-request-id": "plain"})
    shown = api.post(json=body, params={"debug": "true"}, headers={"x-request-id": "shown"})
    assert plain.json() == shown.json()
    assert stages(api, "shown") == ["sample", "pre_inference", "inference", "post_inference", "prediction"]
    assert stages(api, "plain") == []
    sample = next(line for line in api.lines() if line.get("stage") == "sample")["value"]
    assert (len(sample["numbers"]), sample["numbers"][-1]) == (11, "... 20 more")
    assert len(sample["secret"]) < 540


BEFORE, AFTER = "def pre_inference(x): return x\n", "def post_inference(x): return x\n"


@pytest.mark.parametrize(
    ("source", "around"),
    [
        (None, ["inference"]),
        (BEFORE, ["pre_inference", "inference"]),
        (AFTER, ["inference", "post_inference"]),
        (BEFORE + AFTER, ["pre_inference", "inference", "post_inference"]),
    ],
)
def test_debug_shows_only_the_stages_that_exist(serve, tmp_path, source, around):
    write_model(tmp_path / "m.onnx", 2.0)
    path = {} if source else {"path": None}
    api = serve(source, type="onnx", models={"path": "m.onnx"}, debug=True, **path)
    assert (
        api.post(json=[[1.0, 2.0]], params={"debug": "true"}, headers={"x-request-id": "d"}).status_code
        == 200
    )
    assert stages(api, "d") == ["sample", *around, "prediction"]


def test_debug_of_a_handler_shows_the_payload_and_the_result(serve):
    api = serve(TRACKED, debug=True)
    httpx.post(f"{api.url}/?debug=true", json={"a": 1}, headers={"x-request-id": "d"})
    httpx.post(f"{api.url}/?debug=false", json={"a": 2}, headers={"x-request-id": "e"})
    assert (stages(api, "d"), stages(api, "e")) == (["sample", "prediction"], [])


def test_debug_is_off_unless_it_is_allowed(serve):
    api = serve(TRACKED)
    httpx.post(f"{api.url}/?debug=true", json={"secret": "sesame"})
    assert "sesame" not in api.log.read_text()
