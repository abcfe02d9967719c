"""A job from POST to result, as a client sees it."""

import gzip
import json
import socket
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.runtime.jobs.conftest import Api
from tests.runtime.queues.servers import until

VARIOUS = """
import asyncio, contextvars, os, sys, time
import numpy as np
from cortex_runtime import UserError
from cortex_runtime.jobs.progress import report_progress

at_start, of_job = contextvars.ContextVar("at_start"), contextvars.ContextVar("of_job", default="unset")

class Handler:
    def __init__(self):
        at_start.set("constructor")
        self.calls = {}

    def handle_async(self, payload, request_id):
        self.calls[request_id] = self.calls.get(request_id, 0) + 1
        what = payload["what"] if isinstance(payload, dict) else type(payload).__name__
        if what == "context":
            found = [at_start.get(), of_job.get()]
            of_job.set("an earlier job")
            return found
        if what == "its id":
            return request_id
        if what == "array":
            return np.arange(3, dtype=np.float32)
        if what == "no json":
            return object()
        if what == "generator":
            return (n for n in range(3))
        if what == "rejected":
            raise UserError("the colour must be red")
        if what == "fails once":
            if self.calls[request_id] == 1:
                raise ValueError("secret")
            return self.calls[request_id]
        if what == "fails":
            raise ValueError("secret")
        if what == "exits":
            sys.exit(3)
        if what == "callback":
            return "answer", lambda: print("after the answer")
        if what == "progress":
            number = 0
            while not os.path.exists(payload["gate"]):
                number += 1
                report_progress(number / (number + 1), f"step {number}")
                time.sleep(0.1)
            return "done"
        return what
"""


@pytest.fixture(scope="module")
def various(shared: Callable[..., Api]) -> Api:
    made = shared(VARIOUS, spec={"queue": {"maxAttempts": 2}}, maxConcurrency=4, maxBodySize="1Mi")
    made.gateway()
    made.consumer()
    return made


def test_a_job_completes_with_the_result_of_the_handler(various: Api) -> None:
    identity = various.submit({"what": "its id"})
    job = various.end(identity)
    assert job == {"id": identity, "status": "completed", "result": identity, "timestamp": job["timestamp"]}
    assert datetime.fromisoformat(job["timestamp"]).tzinfo is not None
    assert various.get(identity) == job


@pytest.mark.parametrize(
    ("content", "content_type", "result"),
    [
        (b'{"what": "dict"}', "application/json", "dict"),
        (b"[1]", "application/json; charset=utf-8", "list"),
        (b"plain", "text/plain", "str"),
        (b"a=1&b=2", "application/x-www-form-urlencoded", "FormData"),
        (b"\x00\xff", "application/octet-stream", "bytes"),
        (b"", "", "bytes"),
    ],
)
def test_the_content_type_decides_the_type_of_the_payload(
    various: Api, content: bytes, content_type: str, result: str
) -> None:
    identity = various.submit(content=content, headers={"content-type": content_type})
    assert various.end(identity)["result"] == result


def test_a_compressed_body_is_decompressed(various: Api) -> None:
    body = gzip.compress(json.dumps({"what": "compressed"}).encode())
    headers = {"content-type": "application/json", "content-encoding": "gzip"}
    assert various.end(various.submit(content=body, headers=headers))["result"] == "compressed"


def test_each_job_runs_in_its_own_context(various: Api) -> None:
    for _ in range(2):
        assert various.end(various.submit({"what": "context"}))["result"] == ["constructor", "unset"]


def test_numpy_results_are_serialized_to_json(various: Api) -> None:
    assert various.end(various.submit({"what": "array"}))["result"] == [0, 1, 2]


@pytest.mark.parametrize(
    ("what", "reason", "attempts", "word"),
    [
        ("no json", "ResultInvalid", 1, "object"),
        ("generator", "ResultInvalid", 1, "generator"),
        ("rejected", "Rejected", 1, "the colour must be red"),
        ("fails", "HandlerError", 2, "ValueError"),
        ("exits", "HandlerError", 2, "SystemExit"),
    ],
)
def test_a_failed_job_has_reason_message_and_attempts(
    various: Api, what: str, reason: str, attempts: int, word: str
) -> None:
    job = various.end(various.submit({"what": what}))
    assert (job["status"], job["reason"], job["attempts"]) == ("failed", reason, attempts)
    assert word in job["error"]
    assert "secret" not in json.dumps(job)
    assert "result" not in job


def test_a_failed_attempt_is_retried(various: Api) -> None:
    job = various.end(various.submit({"what": "fails once"}))
    assert (job["status"], job["result"]) == ("completed", 2)


def test_the_traceback_is_logged_with_the_id_of_the_job(various: Api) -> None:
    identity = various.submit({"what": "fails"})
    various.end(identity)
    lines = [line for line in various.programs[1].lines() if line.get("requestId") == identity]
    assert any("ValueError: secret" in line.get("traceback", "") for line in lines)


def test_a_callback_runs_after_the_job_has_ended(various: Api) -> None:
    assert various.end(various.submit({"what": "callback"}))["result"] == "answer"
    until(lambda: "after the answer" in various.programs[1].log.read_text(), what="the callback ran")


def test_progress_is_visible_while_the_job_runs(various: Api, tmp_path: Path) -> None:
    identity = various.submit({"what": "progress", "gate": str(tmp_path / "gate")})

    def progressing() -> dict[str, Any] | None:
        job = various.get(identity)
        return job if job.get("progress") else None

    job = until(progressing, what="progress is seen")
    assert job["status"] == "in_progress"
    assert 0 < job["progress"] < 1
    assert job["note"].startswith("step ")
    (tmp_path / "gate").touch()
    assert various.end(identity)["result"] == "done"


def test_the_same_idempotency_key_returns_the_same_job(various: Api) -> None:
    headers = {"idempotency-key": "one"}
    first = various.submit({"what": "once"}, headers=headers)
    assert various.submit({"what": "once"}, headers=headers) == first
    other = various.post({"what": "something else"}, headers=headers)
    assert other.status_code == 422
    assert "Idempotency-Key" in other.json()["error"]


@pytest.mark.parametrize(
    ("verb", "path", "more", "status", "word"),
    [
        ("GET", "/00000000000000000000000000000000", {}, 404, "not found"),
        ("DELETE", "/00000000000000000000000000000000", {}, 404, "not found"),
        ("GET", "/00000000000000000000000000000000?wait=5s", {}, 404, "not found"),
        ("GET", "/", {}, 405, "submit"),
        ("POST", "/some/path", {"content": b"x"}, 404, "submit"),
        ("GET", "/..%2fadmin", {}, 404, "submit"),
        ("GET", "/abc.*", {}, 404, "submit"),
        ("PUT", "/0123", {}, 405, "GET"),
        ("GET", "/0123?wait=soon", {}, 400, "wait"),
        ("POST", "/", {"content": b"{", "headers": {"content-type": "application/json"}}, 400, "JSON"),
        ("POST", "/", {"content": b"x" * (1 << 20) + b"x"}, 413, "1048576"),
        ("POST", "/", {"content": b"x", "headers": {"content-encoding": "br"}}, 415, "gzip"),
        ("POST", "/", {"content": b"x", "headers": {"idempotency-key": "k" * 256}}, 400, "255"),
        ("POST", "/", {"content": b"x", "headers": {"x-cortex-webhook": "http://x/"}}, 400, "webhook"),
    ],
)
def test_invalid_requests_get_a_message(
    various: Api, verb: str, path: str, more: dict[str, Any], status: int, word: str
) -> None:
    answer = httpx.request(verb, various.url + path, timeout=60, **more)
    assert answer.status_code == status, answer.text
    assert word in answer.json()["error"]
    assert answer.json()["requestId"] == answer.headers["x-request-id"]


def test_metrics_count_jobs_attempts_and_requests(various: Api) -> None:
    various.end(various.submit({"what": "fails"}))
    various.end(various.submit({"what": "array"}))
    gateway, consumer = various.programs[:2]
    gateway.wait_metric("cortex_async_accepted_total", 2)
    gateway.wait_metric('cortex_requests_total{method="POST",status="202"}', 2)
    consumer.wait_metric('cortex_async_jobs_total{status="completed"}')
    consumer.wait_metric('cortex_async_jobs_total{status="failed"}')
    consumer.wait_metric('cortex_async_attempts_total{outcome="retried"}')
    consumer.wait_metric('cortex_async_dead_letters_total{reason="HandlerError"}')
    consumer.wait_metric("cortex_async_start_seconds_count", 2)
    consumer.wait_metric("cortex_async_finish_seconds_count", 2)
    assert consumer.metric("cortex_workers_ready") == 1
    depth = httpx.get(f"{gateway.admin}/queue").json()
    assert sorted(depth) == ["in_flight", "oldest_seconds", "queued"]


def test_a_client_may_wait_for_100_continue_and_pipeline(various: Api) -> None:
    body = b'{"what": "continued"}'
    with socket.create_connection(("127.0.0.1", various.programs[0].port), 60) as client:
        client.sendall(
            b"POST / HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\nexpect: 100-continue\r\n"
            b"content-length: %d\r\n\r\n" % len(body)
        )
        assert client.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.sendall(body + b"GET /none HTTP/1.1\r\nhost: x\r\n\r\nGET / HTTP/1.1\r\nhost: x\r\n\r\n")
        answers = b""
        while answers.count(b"HTTP/1.1 ") < 3 or not answers.endswith(b"}"):
            answers += client.recv(10_000)
    statuses = [line for line in answers.split(b"\r\n") if b"HTTP/1.1 " in line]
    assert [line.rpartition(b"HTTP/1.1 ")[2][:3] for line in statuses] == [b"202", b"404", b"405"]
