"""The commands that ask a cluster: get, predict, logs, doctor."""

import json
import os
import subprocess
import sys
import threading

import pytest
import yaml

from cortex_cli import get as get_command

from .conftest import GROUP, METRICS, Workplace, resource

CLASSES = METRICS + 'cortex_tracker_predictions_total{class="setosa"} 30\n'
MORE_CLASSES = METRICS + (
    'cortex_tracker_predictions_total{class="virginica"} 10\ncortex_tracker_skipped_total{reason="missing key"} 2\n'
)
JOBS = METRICS + (
    'cortex_async_jobs_total{status="completed"} 3\ncortex_async_jobs_total{status="failed"} 1\n'
    "cortex_async_finish_seconds_count 4\ncortex_async_finish_seconds_sum 6\n"
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


def test_get_is_a_table_of_all_apis(place):
    lines = [line.split() for line in place.cortex("get").stdout.splitlines()]
    assert lines[0] == ["NAME", "KIND", "READY", "REASON", "REPLICAS", "LATENCY", "2XX", "4XX", "5XX", "AGE"]
    assert [line[:-1] for line in lines[1:]] == [
        ["broken", "RealtimeAPI", "False", "HandlerNotFound", "0/1", "-", "-", "-", "-"],
        ["flowers", "RealtimeAPI", "True", "Ready", "1/2", "5", "ms", "60", "4", "-"],
        ["letters", "AsyncAPI", "True", "Ready", "1/1", "1.5", "s", "30", "2", "-"],
        ["locked", "RealtimeAPI", "True", "Ready", "1/1", "5", "ms", "30", "2", "-"],
        ["prices", "RealtimeAPI", "True", "Ready", "1/1", "-", "-", "-", "-"],
    ]
    assert place.cortex("get", "-n", "elsewhere").stdout == "No APIs in namespace elsewhere.\n"
    assert "NAMESPACE" in place.cortex("get", "-A").stdout


def test_get_of_a_classification_shows_classes_as_bars(place):
    said = place.cortex("get", "flowers").stdout
    words = " ".join(said.split())
    for expected in (
        "ready True (Ready)",
        "replicas 1/2",
        "endpoint http://api-flowers.default.svc:8080",
        "requests 60 2XX, 4 4XX; 2 in flight",
        "latency 5 ms on average",
        "setosa " + "█" * 40 + " 30 (75%)",
        "virginica " + "█" * 13 + " 10 (25%)",
        "2 responses not counted: missing key",
        "iris 1, 3 (latest) 3",
        "api-flowers-1 yes 0",
    ):
        assert expected in words, expected


def test_get_of_a_regression_shows_its_range(place):
    words = " ".join(place.cortex("get", "prices").stdout.split())
    assert "MIN MAX AVERAGE COUNT 1 4 2.5 4" in words


def test_get_of_an_async_api_speaks_of_jobs(place):
    words = " ".join(place.cortex("get", "letters").stdout.split())
    assert "jobs 2 queued, 1 in progress; 3 completed, 1 failed" in words
    assert "latency 1.5 s on average, from acceptance to end" in words
    assert "requests" not in words


def test_get_says_why_an_api_is_not_ready(place):
    words = " ".join(place.cortex("get", "broken").stdout.split())
    assert "ready False (HandlerNotFound) there is no file x.py" in words
    assert "requests none" in words


def test_get_for_programs(place):
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


def test_get_watch_looks_again(place, monkeypatch):
    looks = []

    def pause(_: float) -> None:
        looks.append(1)
        if len(looks) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(get_command.time, "sleep", pause)
    result = place.cortex("get", "--watch")
    assert (result.exit_code, result.stdout.count("flowers")) == (130, 3)


def test_an_api_that_is_not_there_is_told_with_those_that_are(place):
    result = place.cortex("get", "none")
    assert (result.exit_code, result.stderr) == (
        1,
        "Error: there is no API none in namespace default (there are: broken, flowers, letters, locked, prices)\n",
    )


def test_predict_posts_json_and_prints_the_answer(place):
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
    said = json.loads(place.cortex("predict", "flowers", f"@{tmp_path}/cat.png").stdout)
    assert (said["type"], said["got"]) == ("image/png", "not really")
    said = json.loads(place.cortex("predict", "flowers", "-", stdin="[1]").stdout)
    assert (said["type"], said["got"]) == ("application/json", "[1]")


def test_predict_fails_when_the_answer_is_no_success(place):
    result = place.cortex("predict", "flowers", '"bad"')
    assert (result.exit_code, json.loads(result.stdout)["got"]) == (1, '"bad"')
    assert result.stderr == "the answer is 400\n"


def test_predict_of_an_api_that_does_not_run_says_why(place):
    result = place.cortex("predict", "broken", "{}")
    assert (result.exit_code, result.stderr) == (
        1,
        "Error: broken doesn't answer: HandlerNotFound: there is no file x.py\n",
    )


def test_predict_refuses_what_is_no_json(place):
    result = place.cortex("predict", "flowers", "{a}")
    assert (result.exit_code, "the payload is no JSON" in result.stderr) == (1, True)


@pytest.mark.parametrize(("payload", "code", "status"), [("1", 0, "completed"), ('"bad"', 1, "failed")])
def test_predict_of_an_async_api_waits_for_the_job(place, payload, code, status):
    words = ("predict", "letters", payload, "-q", "job=1", "--api-key", "s3cret")
    result = place.cortex(*words)
    assert (result.exit_code, json.loads(result.stdout)["status"]) == (code, status), result.output
    job = json.loads(place.cortex(*words, "--no-wait").stdout)["id"]
    again = place.cortex("predict", "letters", "--job", job, "--api-key", "s3cret")
    assert (again.exit_code, again.stdout) == (code, result.stdout)
    look = place.cortex("predict", "letters", "--job", job, "--no-wait", "--api-key", "s3cret")
    assert (look.exit_code, look.stdout) == (0, result.stdout)


def test_jobs_that_cannot_be_asked_for(place):
    unknown = place.cortex("predict", "letters", "--job", "none", "--api-key", "s3cret")
    assert (unknown.exit_code, "the answer is 404" in unknown.stderr) == (1, True)
    for words in (["letters", "{}"], ["flowers"]):
        result = place.cortex("predict", *words, "--job", "good")
        assert (result.exit_code, "--job asks an AsyncAPI" in result.stderr) == (2, True)


def test_an_api_that_asks_for_a_key_is_shown_it(place, tmp_path, monkeypatch):
    refused = place.cortex("predict", "locked", "{}")
    assert refused.exit_code == 1
    hint = "the answer is 401: give a valid key by --api-key-file, --api-key or CORTEX_API_KEY\n"
    assert refused.stderr.endswith(hint)
    assert "it asks for a key, and was shown no valid one" in place.cortex("get", "locked").stdout
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
    # One that asks for none is shown none: its handler would see it.
    assert json.loads(place.cortex("predict", "flowers", "{}").stdout)["secret"] is None


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--api-key", " "], 1, "the API key is empty"),
        (["--api-key", "schlüssel"], 1, "characters that no HTTP header can carry"),
        (["--api-key", "a", "--api-key-file", "b"], 2, "--api-key and --api-key-file both name a key"),
        (["--api-key-file", "/none"], 1, "/none: can't be read: No such file or directory"),
        (["-H", "Authorization: Bearer x"], 2, "Authorization is read by the API server and goes no further"),
    ],
)
def test_a_key_that_cannot_be_shown(place, words, code, said):
    result = place.cortex("predict", "flowers", "{}", *words)
    assert (result.exit_code, said in result.stderr) == (code, True), result.output


def test_predict_debug_shows_what_the_log_says_of_the_request(place):
    result = place.cortex("predict", "flowers", "{}", "--debug")
    assert json.loads(result.stdout)["path"] == "/?debug=true"
    assert "status 200 after" in result.stderr
    assert [line for line in result.stderr.splitlines() if "asked" in line and "requestId" not in line]


def test_logs_of_all_replicas_are_merged_by_time(place):
    lines = place.cortex("logs", "flowers").stdout.splitlines()
    assert [(line.split()[0], line.split()[-3]) for line in lines if "from" in line] == [
        ("0", "hello"),
        ("1", "hello"),
        ("0", "again"),
        ("1", "again"),
    ]
    # What brings no time stays where it was said.
    assert [lines[lines.index(f"{pod} a line of no format") - 1].split()[-3] for pod in (0, 1)] == [
        "hello"
    ] * 2


def test_logs_as_json_name_the_pod_and_obey_the_level(place):
    result = place.cortex("logs", "flowers", "-o", "json", "--level", "warning")
    lines = [json.loads(line) for line in result.stdout.splitlines() if "again" in line]
    assert [(line["pod"], line["message"]) for line in lines] == [
        ("api-flowers-0", "again from api-flowers-0"),
        ("api-flowers-1", "again from api-flowers-1"),
    ]
    assert "hello" not in result.stdout


def test_logs_follow_what_comes_later(place):
    command = [sys.executable, "-m", "cortex_cli", "logs", "prices", "--follow", "--tail", "0"]
    environment = {**os.environ, "KUBECONFIG": str(place.kubeconfig)}
    over = threading.Event()

    def post() -> None:
        while not over.wait(0.2):
            place.cortex("predict", "prices", "{}")

    posting = threading.Thread(target=post)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as following:
        try:
            posting.start()
            assert "asked" in following.stdout.readline()
        finally:
            over.set()
            following.kill()
            posting.join()


def test_logs_of_an_api_without_pods(place):
    result = place.cortex("logs", "broken")
    assert (result.exit_code, "broken has no pods: HandlerNotFound" in result.stderr) == (1, True)


def test_doctor_says_what_is_wrong_and_what_to_do(place):
    result = place.cortex("doctor", "broken")
    assert result.exit_code == 1
    assert "BAD Ready: False: HandlerNotFound: there is no file x.py" in result.stdout
    assert "-> Check the path, counted from the project's root" in result.stdout
    assert "BAD Deployment: is missing" in result.stdout


def test_doctor_notices_that_no_operator_runs(place):
    place.create(f"{GROUP}/realtimeapis", resource("fresh"))
    try:
        result = place.cortex("doctor", "fresh")
    finally:
        place.delete(f"{GROUP}/realtimeapis/fresh")
    assert result.exit_code == 1
    assert "BAD operator: has not looked at the latest change, and there is no pod of it" in result.stdout
