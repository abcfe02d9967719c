"""Handlers of AsyncAPIs, in each form that the documentation of a release had."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.runtime.compatibility.forms import Ask, Form
from tests.runtime.jobs.conftest import Api
from tests.runtime.onnx_models import write_model

TEXT = {"content": "hello", "headers": {"content-type": "text/plain"}}
BINARY = {"content": b"\xff\x00", "headers": {"content-type": "application/octet-stream"}}

FORMS = [
    Form(
        "python-predictor-job",
        "0.31 to 0.33",
        "class PythonPredictor:\n"
        "    def __init__(self, config, metrics_client):\n"
        "        self.factor, self.metrics = config['factor'], metrics_client\n"
        "    def predict(self, payload, request_id):\n"
        "        self.metrics.increment('seen')\n"
        "        return {'value': payload * self.factor, 'id': request_id}\n",
        [Ask({"json": 4}, {"value": 12})],
        {"config": {"factor": 3}},
    ),
    Form(
        "onnx-predictor-job",
        "0.32",
        "class ONNXPredictor:\n"
        "    def __init__(self, config, onnx_client, metrics_client):\n        self.client = onnx_client\n"
        "    def predict(self, payload, request_id):\n"
        "        return {'value': self.client.predict(payload)[0].tolist(), 'id': request_id}\n",
        [Ask({"json": {"x": [[1, 2]]}}, {"value": [[3.0, 6.0]]})],
        {"type": "onnx", "models": {"path": "three.onnx"}},
    ),
    Form(
        "handler-job",
        "0.34 to 0.35",
        "class Handler:\n"
        "    def __init__(self, config):\n        pass\n"
        "    def handle_async(self, payload, request_id):\n"
        "        size = len(payload) if isinstance(payload, (str, bytes)) else payload['n']\n"
        "        return {'type': type(payload).__name__, 'size': size, 'id': request_id}\n",
        [
            Ask({"json": {"n": 7}}, {"type": "dict", "size": 7}),
            Ask(TEXT, {"type": "str", "size": 5}),
            Ask(BINARY, {"type": "bytes", "size": 2}),
        ],
    ),
    Form(
        "structured-logger-job",
        "0.31 to 0.35",
        "from cortex_internal.lib.log import logger as log\n"
        "class Handler:\n"
        "    def __init__(self, config):\n        pass\n"
        "    def handle_async(self, payload, request_id):\n"
        "        log.info('received payload', extra={'payload': payload})\n"
        "        return {'id': request_id}\n",
        [Ask({"json": 1}, {})],
    ),
]


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose three.onnx returns three times its input."""
    path = tmp_path_factory.mktemp("model") / "three.onnx"
    write_model(path, 3)
    return path


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_a_documented_handler_form_runs_jobs(api: Callable[..., Api], three: Path, form: Form) -> None:
    made = api(form.source, **form.handler)
    shutil.copy(three, made.folder / "project")
    made.gateway()
    made.consumer()
    for ask in form.asks:
        identity = made.submit(**ask.request)
        assert made.end(identity)["result"] == {**ask.answer, "id": identity}


@pytest.mark.parametrize("argument", ["", ", request_id"])
def test_a_job_runs_when_its_method_has_no_payload_argument(api: Callable[..., Api], argument: str) -> None:
    result = "request_id" if argument else "'done'"
    made = api(f"class Handler:\n    def handle_async(self{argument}):\n        return {result}\n")
    made.gateway()
    made.consumer()
    for body in ({"json": {"unused": 1}}, BINARY):
        identity = made.submit(**body)
        job = made.end(identity)
        assert (job["status"], job.get("result")) == ("completed", identity if argument else "done"), job


def test_a_job_handler_records_metrics_with_tags(api: Callable[..., Api]) -> None:
    made = api(
        "class Handler:\n"
        "    def __init__(self, config, metrics_client):\n        self.metrics = metrics_client\n"
        "    def handle_async(self, payload):\n"
        "        tags = {'model': payload['model']}\n"
        "        self.metrics.increment('words', payload['count'], tags)\n"
        "        self.metrics.gauge('longest', payload['count'], tags)\n"
        "        self.metrics.histogram('counts', payload['count'], tags)\n"
        "        self.metrics.increment('untagged')\n"
    )
    made.gateway()
    consumer = made.consumer()
    for model, count in (("v1", 3), ("v1", 1), ("v2", 8)):
        made.end(made.submit({"model": model, "count": count}))
    seen = {
        line: consumer.metric(line)
        for line in (
            *(f'{name}{{model="{model}"}}' for name in ("words_total", "longest") for model in ("v1", "v2")),
            *(f'{name}{{model="v1"}}' for name in ("counts_count", "counts_sum")),
            "untagged_total",
        )
    }
    assert list(seen.values()) == [4, 8, 1, 8, 2, 4, 3], seen


def test_a_failing_constructor_leaves_the_queue_unchanged(
    api: Callable[..., Api],
) -> None:
    source = (
        "class Handler:\n"
        "    def __init__(self):\n        raise RuntimeError('the vocabulary is missing')\n"
        "    def handle_async(self, payload):\n        return payload\n"
    )
    made = api(source)
    made.gateway()
    before = [made.submit({"n": number}) for number in range(3)]
    reason, message = made.consumer(wait=False).cause_of_death()
    assert (reason, "the vocabulary is missing" in message) == ("HandlerInitError", True), message
    assert [made.get(job)["status"] for job in before] == ["in_queue"] * 3
    after = made.submit({"n": 3})
    (made.folder / "project" / "handler.py").write_text(
        source.replace("raise RuntimeError('the vocabulary is missing')", "pass")
    )
    made.consumer()
    ended = [made.end(job) for job in (*before, after)]
    assert [job["result"] for job in ended] == [{"n": number} for number in range(4)]
    # Each job ran for the first time: the failed constructor did not count as an attempt.
    assert {job.get("attempts", 1) for job in ended} == {1}
