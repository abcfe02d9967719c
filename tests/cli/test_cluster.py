"""The commands that use a cluster: get, predict, logs and doctor."""

import json
import os
import subprocess
import sys
import threading
from types import SimpleNamespace

import pytest
import yaml

from cortex_cli import bench_target
from cortex_cli.commands import get as get_command

from .conftest import GROUP, METRICS, Workplace, resource

CLASSES = METRICS + 'cortex_tracker_predictions_total{class="setosa"} 30\n'
MORE_CLASSES = METRICS + (
    'cortex_tracker_predictions_total{class="virginica"} 10\ncortex_tracker_skipped_total{reason="missing key"} 2\n'
)
JOBS = METRICS + (
    'cortex_async_jobs_total{status="completed"} 3\ncortex_async_jobs_total{status="failed"} 1\n'
    'cortex_async_finish_seconds_bucket{le="1.0"} 0\ncortex_async_finish_seconds_bucket{le="2.0"} 4\n'
    'cortex_async_finish_seconds_bucket{le="+Inf"} 4\n'
)
VALUES = "cortex_tracker_value_count 4\ncortex_tracker_value_sum 10\ncortex_tracker_value_min 1\ncortex_tracker_value_max 4\n"
HANDLER = {"type": "python", "path": "handler.py"}
LOCKED = {"apiKeys": {"secret": {"name": "keys"}}}
INFO = json.dumps({"models": [{"name": "iris", "versions": ["1", "3"], "loaded": ["3"]}]})


@pytest.fixture(scope="module")
def place(workplace: Workplace) -> Workplace:
    handler = {"type": "onnx", "models": {"path": "s3://bucket/iris/"}}
    tracker = {"key": "label", "modelType": "classification"}
    workplace.api("flowers", handler=handler, tracker=tracker, replicas=2)
    workplace.replicas(
        "flowers", {"METRICS": CLASSES, "INFO": INFO}, {"METRICS": MORE_CLASSES, "INFO": INFO, "FIRST": "5"}
    )
    workplace.api("prices", tracker={"modelType": "regression"})
    workplace.replicas("prices", {"METRICS": VALUES})
    queue = {"queue": {"queued": 2, "inFlight": 1}}
    workplace.api("letters", kind="AsyncAPI", handler=HANDLER | LOCKED, status=queue)
    workplace.replicas("letters", {"KEY": "s3cret", "METRICS": JOBS, "KIND": "AsyncAPI"})
    workplace.api("locked", handler=HANDLER | LOCKED | {"models": {"path": "s3://bucket/x/"}})
    workplace.replicas("locked", {"KEY": "s3cret", "INFO": INFO})
    workplace.api("broken", ready=False)
    workplace.until_ready()
    return workplace


def test_get_shows_a_table_of_all_apis(place):
    lines = [line.split() for line in place.cortex("get").stdout.splitlines()]
    assert lines[0] == [
        "NAME",
        "KIND",
        "READY",
        "REASON",
        "REPLICAS",
        "P50",
        "P95",
        "P99",
        "2XX",
        "4XX",
        "5XX",
        "AGE",
    ]
    assert [line[:-1] for line in lines[1:]] == [
        ["broken", "RealtimeAPI", "False", "HandlerNotFound", "0/1", "-", "-", "-", "-", "-", "-"],
        ["flowers", "RealtimeAPI", "True", "Ready", "1/2", "5", "ms", "5.9", "ms", "6", "ms", "60", "4", "-"],
        ["letters", "AsyncAPI", "True", "Ready", "1/1", "1.5", "s", "1.95", "s", "1.99", "s", "30", "2", "-"],
        ["locked", "RealtimeAPI", "True", "Ready", "1/1", "5", "ms", "5.9", "ms", "6", "ms", "30", "2", "-"],
        ["prices", "RealtimeAPI", "True", "Ready", "1/1", "-", "-", "-", "-", "-", "-"],
    ]
    assert place.cortex("get", "-n", "elsewhere").stdout == "No APIs in namespace elsewhere.\n"
    assert "NAMESPACE" in place.cortex("get", "-A").stdout


def test_get_shows_the_classes_of_a_classification_as_bars(place):
    words = " ".join(place.cortex("get", "flowers").stdout.split())
    for expected in (
        "ready True (Ready)",
        "replicas 1/2",
        "endpoint http://api-flowers.default.svc:8080",
        "requests 60 2XX, 4 4XX; 2 in flight",
        "latency p50 5 ms, p95 5.9 ms, p99 6 ms",
        "setosa " + "█" * 40 + " 30 (75%)",
        "virginica " + "█" * 13 + " 10 (25%)",
        "2 responses not counted: missing key",
        "iris 1, 3 (latest) 3",
        "api-flowers-1 yes 0",
    ):
        assert expected in words, expected


def test_get_shows_the_range_of_a_regression(place):
    words = " ".join(place.cortex("get", "prices").stdout.split())
    assert "MIN MAX AVERAGE COUNT 1 4 2.5 4" in words


def test_get_shows_the_jobs_of_an_async_api(place):
    words = " ".join(place.cortex("get", "letters").stdout.split())
    assert "jobs 2 queued, 1 in progress; 3 completed, 1 failed" in words
    assert "latency p50 1.5 s, p95 1.95 s, p99 1.99 s, from submission to end" in words
    assert "requests" not in words


def test_get_shows_why_an_api_is_not_ready(place):
    words = " ".join(place.cortex("get", "broken").stdout.split())
    assert "ready False (HandlerNotFound) x.py does not exist" in words
    assert "requests none" in words


def test_get_prints_json_and_yaml(place):
    one = json.loads(place.cortex("get", "flowers", "-o", "json").stdout)
    assert one["resource"]["metadata"]["name"] == "flowers"
    assert one["replicas"]["traffic"]["predictions"] == {"setosa": 30, "virginica": 10}
    assert one["replicas"]["info"]["models"][0]["name"] == "iris"
    every = yaml.safe_load(place.cortex("get", "-o", "yaml").stdout)
    assert [api["resource"]["metadata"]["name"] for api in every] == [
        "broken",
        "flowers",
        "letters",
        "locked",
        "prices",
    ]


def test_get_watch_updates_the_output(place, monkeypatch):
    pauses = []

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(get_command, "time", SimpleNamespace(sleep=pause))
    result = place.cortex("get", "--watch")
    assert (result.exit_code, result.stdout.count("flowers")) == (130, 3)


def test_error_for_an_unknown_api_lists_the_existing_ones(place):
    result = place.cortex("get", "none")
    assert (result.exit_code, result.stderr) == (
        1,
        "Error: no API none in namespace default (existing: broken, flowers, letters, locked, prices)\n",
    )


def test_predict_posts_json_and_prints_the_response(place):
    result = place.cortex(
        "predict", "flowers", '{"a": 1}', "-q", "version=2", "-q", "version=3", "-H", "X-Key: s"
    )
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout) == {
        "path": "/?version=2&version=3",
        "type": "application/json",
        "got": '{"a": 1}',
        "key": "s",
        "secret": None,
    }


def test_predict_sends_files_and_standard_input(place, tmp_path):
    (tmp_path / "cat.png").write_bytes(b"not really")
    echo = json.loads(place.cortex("predict", "flowers", f"@{tmp_path}/cat.png").stdout)
    assert (echo["type"], echo["got"]) == ("image/png", "not really")
    echo = json.loads(place.cortex("predict", "flowers", "-", stdin="[1]").stdout)
    assert (echo["type"], echo["got"]) == ("application/json", "[1]")


def test_predict_fails_if_the_response_is_an_error(place):
    result = place.cortex("predict", "flowers", '"bad"')
    assert (result.exit_code, json.loads(result.stdout)["got"]) == (1, '"bad"')
    assert result.stderr == "response status 400\n"


def test_predict_shows_why_an_api_is_unreachable(place):
    result = place.cortex("predict", "broken", "{}")
    assert (result.exit_code, result.stderr) == (
        1,
        "Error: broken is unreachable: HandlerNotFound: x.py does not exist\n",
    )


def test_predict_rejects_invalid_json(place):
    result = place.cortex("predict", "flowers", "{a}")
    assert (result.exit_code, "the payload is not valid JSON" in result.stderr) == (1, True)


@pytest.mark.parametrize(("payload", "code", "status"), [("1", 0, "completed"), ('"bad"', 1, "failed")])
def test_predict_waits_for_the_job_of_an_async_api(place, payload, code, status):
    words = ("predict", "letters", payload, "-q", "job=1", "--api-key", "s3cret")
    result = place.cortex(*words)
    assert (result.exit_code, json.loads(result.stdout)["status"]) == (code, status), result.output
    job = json.loads(place.cortex(*words, "--no-wait").stdout)["id"]
    waited = place.cortex("predict", "letters", "--job", job, "--api-key", "s3cret")
    assert (waited.exit_code, waited.stdout) == (code, result.stdout)
    polled = place.cortex("predict", "letters", "--job", job, "--no-wait", "--api-key", "s3cret")
    assert (polled.exit_code, polled.stdout) == (0, result.stdout)


def test_predict_rejects_an_unknown_job_and_invalid_uses_of_job(place):
    unknown = place.cortex("predict", "letters", "--job", "none", "--api-key", "s3cret")
    assert (unknown.exit_code, "response status 404" in unknown.stderr) == (1, True)
    for words in (["letters", "{}"], ["flowers"]):
        result = place.cortex("predict", *words, "--job", "good")
        assert (result.exit_code, "--job requires an AsyncAPI and no payload" in result.stderr) == (2, True)


def test_api_key_is_sent_to_an_api_that_requires_it(place, tmp_path, monkeypatch):
    refused = place.cortex("predict", "locked", "{}")
    assert refused.exit_code == 1
    hint = "response status 401; pass a valid API key with --api-key-file, --api-key or CORTEX_API_KEY\n"
    assert refused.stderr.endswith(hint)
    assert "it requires an API key, and no valid key was sent" in place.cortex("get", "locked").stdout
    (tmp_path / "key").write_text("s3cret\n")
    for words in (
        ["--api-key", "s3cret"],
        ["--api-key-file", f"{tmp_path}/key"],
        ["-H", "X-API-Key: s3cret"],
    ):
        assert place.cortex("predict", "locked", "{}", *words).exit_code == 0, words
    monkeypatch.setenv("CORTEX_API_KEY", "s3cret")
    debug = place.cortex("predict", "locked", "{}", "--debug")
    assert (debug.exit_code, "s3cret" in debug.stderr) == (0, False)
    assert "iris 1, 3 (latest) 3" in " ".join(place.cortex("get", "locked").stdout.split())
    # The handler of an API that requires no key must not see the key.
    assert json.loads(place.cortex("predict", "flowers", "{}").stdout)["secret"] is None


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--api-key", " "], 1, "the API key is empty"),
        (["--api-key", "schlüssel"], 1, "characters that are not allowed in an HTTP header"),
        (["--api-key", "a", "--api-key-file", "b"], 2, "--api-key and --api-key-file are mutually exclusive"),
        (["--api-key-file", "/none"], 1, "/none: cannot be read: No such file or directory"),
        (["-H", "Authorization: Bearer x"], 2, "the API server does not forward the Authorization header"),
    ],
)
def test_invalid_api_keys_are_rejected(place, words, code, message):
    result = place.cortex("predict", "flowers", "{}", *words)
    assert (result.exit_code, message in result.stderr) == (code, True), result.output


def test_predict_debug_shows_the_log_of_the_request(place):
    result = place.cortex("predict", "flowers", "{}", "--debug")
    assert json.loads(result.stdout)["path"] == "/?debug=true"
    assert "status 200 after" in result.stderr
    assert [line for line in result.stderr.splitlines() if "received" in line and "requestId" not in line]


@pytest.mark.parametrize("is_reachable", [True, False])
def test_bench_measures_an_api_by_its_name(place, monkeypatch, tmp_path, is_reachable):
    (tmp_path / "payload.json").write_text("{}")
    monkeypatch.setattr(bench_target, "is_reachable", lambda url: is_reachable)
    words = (
        "--payload",
        str(tmp_path / "payload.json"),
        "--step",
        "1",
        "--max-time",
        "2",
        "--goal",
        "5000",
    )
    result = place.cortex("bench", "flowers", *words)
    if is_reachable:
        # The Service has no address on this machine: the error is that of a request.
        assert "the request fails" in result.stderr
        return
    assert "one pod is measured" in result.stderr
    assert "Capacity: " in result.stdout
    assert "targetInFlight: " in result.stdout


def test_bench_refuses_apis_that_it_cannot_measure(place):
    refused = place.cortex("bench", "letters")
    assert refused.exit_code == 1
    assert "letters is an AsyncAPI: it accepts jobs at any rate" in refused.stderr
    assert "cortex predict letters @FILE --no-wait" in refused.stderr
    assert "broken has no ready replica: HandlerNotFound" in place.cortex("bench", "broken").stderr


def test_logs_of_all_replicas_are_merged_by_time(place):
    lines = place.cortex("logs", "flowers", "-o", "text").stdout.splitlines()
    assert [(line.split()[0], line.split()[-3]) for line in lines if "from" in line] == [
        ("0", "hello"),
        ("1", "hello"),
        ("0", "bye"),
        ("1", "bye"),
    ]
    # A line without a time keeps its position.
    assert [lines[lines.index(f"{pod} a plain line") - 1].split()[-3] for pod in (0, 1)] == ["hello"] * 2


def test_json_logs_contain_the_pod_and_are_filtered_by_level(place):
    result = place.cortex("logs", "flowers", "--level", "warning")
    lines = [json.loads(line) for line in result.stdout.splitlines() if "bye" in line]
    assert [(line["pod"], line["message"]) for line in lines] == [
        ("api-flowers-0", "bye from api-flowers-0"),
        ("api-flowers-1", "bye from api-flowers-1"),
    ]
    assert "hello" not in result.stdout


def test_logs_follow_shows_new_lines(place):
    command = [sys.executable, "-m", "cortex_cli", "logs", "prices", "--follow", "--tail", "0"]
    environment = {**os.environ, "KUBECONFIG": str(place.kubeconfig)}
    stop = threading.Event()

    def post() -> None:
        while not stop.wait(0.2):
            place.cortex("predict", "prices", "{}")

    posting = threading.Thread(target=post)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as following:
        try:
            posting.start()
            assert "received" in following.stdout.readline()
        finally:
            stop.set()
            following.kill()
            posting.join()


def test_logs_of_an_api_without_pods(place):
    result = place.cortex("logs", "broken")
    assert (result.exit_code, "broken has no pods: HandlerNotFound" in result.stderr) == (1, True)


def test_doctor_shows_problems_and_remedies(place):
    result = place.cortex("doctor", "broken")
    assert result.exit_code == 1
    assert "BAD Ready: False: HandlerNotFound: x.py does not exist" in result.stdout
    assert "-> Check the path, which is relative to the project" in result.stdout
    assert "BAD Deployment: is missing" in result.stdout


def test_doctor_reports_a_missing_operator(place):
    place.create(f"{GROUP}/realtimeapis", resource("fresh"))
    try:
        result = place.cortex("doctor", "fresh")
    finally:
        place.delete(f"{GROUP}/realtimeapis/fresh")
    assert result.exit_code == 1
    assert "BAD operator: has not reconciled the latest change: no operator pod exists" in result.stdout


def test_doctor_without_a_name_checks_the_platform_and_shows_unhealthy_apis(place):
    result = place.cortex("doctor")
    assert result.exit_code == 1
    platform, *rest = result.stdout.split("\n\n")
    assert platform.startswith(
        "Platform\n  ok  CustomResourceDefinitions: exist\n  ..  Operator: no pod exists, but the APIs"
    )
    assert "BAD Ready: False: HandlerNotFound: x.py does not exist" in rest[0]
    assert "flowers" not in result.stdout
    assert rest[-1] == "4 of 5 APIs in namespace default are ready and not degraded.\n"
