"""Limits of an AsyncAPI: a full, unreachable or failing queue; webhooks; shutdown; programs that fail to start."""

import base64
import hashlib
import hmac
import json
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.runtime.jobs.conftest import Api
from tests.runtime.queues.servers import Nats, free_port, until

SLOW = """
import asyncio, os, time

class Handler:
    def handle_async(self, payload, request_id):
        open(payload["started"], "a").write(request_id + "\\n")
        while not os.path.exists(payload["gate"]):
            time.sleep(0.02)
        return "done"
"""

ASYNC = """
import asyncio
from pathlib import Path

class Handler:
    async def handle_async(self, payload):
        try:
            await asyncio.sleep(payload["seconds"])
        except asyncio.CancelledError:
            Path(payload["cancelled"]).write_text("yes")
            raise
        return payload
"""

LARGE = """
class Handler:
    def handle_async(self, payload):
        return "x" * payload
"""


def started(path: Path) -> list[str]:
    return path.read_text().split() if path.exists() else []


def test_a_full_queue_refuses_jobs_with_503_until_there_is_room(
    api: Callable[..., Api], tmp_path: Path
) -> None:
    made = api(SLOW, maxReplicaConcurrency=2)
    gateway = made.gateway(CORTEX_MAX_REPLICAS="2")
    gate, begun = tmp_path / "gate", tmp_path / "started"
    body = {"gate": str(gate), "started": str(begun)}
    ids: list[str] = []
    while (answer := made.post(body)).status_code == 202 or len(ids) < 4:
        # Near the limit a job may be refused too early: one that is stored while the queue is measured counts twice for a second.
        if answer.status_code == 202:
            ids.append(answer.json()["id"])
    assert (len(ids), answer.status_code) == (4, 503)
    assert int(answer.headers["retry-after"]) > 0
    assert "the limit is 4" in answer.json()["error"]
    assert gateway.metric("cortex_async_refused_total") >= 1
    until(lambda: httpx.get(f"{gateway.admin}/queue").json().get("queued") == 4, what="the queue is seen")
    gate.touch()
    made.consumer()
    assert [made.end(identity)["result"] for identity in ids] == ["done"] * 4
    until(lambda: made.post(body).status_code == 202, what="jobs are taken again")


def test_on_sigterm_a_gateway_still_accepts_connections(api: Callable[..., Api]) -> None:
    made = api(SLOW)
    gateway = made.gateway("--drain-delay", "1000", "--drain-limit", "1000")
    gateway.process.terminate()
    until(lambda: made.post({}).headers.get("connection") == "close", what="it drains")
    identity = made.submit({})
    assert gateway.ready()
    with ThreadPoolExecutor(1) as clients:
        waiting = clients.submit(made.get, identity, "60s")
        until(lambda: httpx.get(f"{gateway.admin}/load").json()["inFlight"] == 1, what="a client waits")
        gateway.process.send_signal(signal.SIGINT)
        assert waiting.result() == {"id": identity, "status": "in_queue"}
    assert gateway.process.wait(30) == 0


def test_on_sigterm_running_jobs_finish_and_queued_jobs_stay(api: Callable[..., Api], tmp_path: Path) -> None:
    made = api(SLOW)
    made.gateway()
    consumer = made.consumer()
    gate, begun = tmp_path / "gate", tmp_path / "started"
    body = {"gate": str(gate), "started": str(begun)}
    running = made.submit(body)
    until(lambda: started(begun) == [running], what="the job runs")
    waiting = made.submit(body)
    consumer.process.terminate()
    until(lambda: consumer.problem().get("reason") == "Draining", what="it drains")
    gate.touch()
    assert consumer.process.wait(60) == 0
    assert made.get(running)["status"] == "completed"
    assert made.get(waiting) == {"id": waiting, "status": "in_queue"}
    assert started(begun) == [running]


def test_jobs_unfinished_after_the_grace_period_return_to_the_queue(
    api: Callable[..., Api], tmp_path: Path
) -> None:
    made = api(SLOW, spec={"queue": {"lease": "10m"}})
    made.gateway()
    consumer = made.consumer("--grace", "0.2")
    gate, begun = tmp_path / "gate", tmp_path / "started"
    identity = made.submit({"gate": str(gate), "started": str(begun)})
    until(lambda: started(begun) == [identity], what="the job runs")
    assert consumer.stop() == 0
    assert made.get(identity) == {"id": identity, "status": "in_queue"}
    gate.touch()
    made.consumer()
    assert made.end(identity)["status"] == "completed"


def test_a_cancelled_job_of_an_async_method_is_interrupted(api: Callable[..., Api], tmp_path: Path) -> None:
    made = api(ASYNC, spec={"queue": {"lease": "1s", "maxAttempts": 20}}, maxConcurrency=2)
    made.gateway()
    made.consumer()
    seen = tmp_path / "cancelled"
    identity = made.submit({"seconds": 3600, "cancelled": str(seen)})
    until(lambda: made.get(identity)["status"] == "in_progress", what="the job runs")
    answer = httpx.delete(f"{made.url}/{identity}")
    assert (answer.status_code, answer.json()["status"], answer.json()["reason"]) == (
        200,
        "failed",
        "Cancelled",
    )
    until(seen.exists, what="the method was told")
    assert made.end(made.submit({"seconds": 0}))["status"] == "completed"
    assert made.get(identity)["reason"] == "Cancelled"


def test_an_unreachable_queue_is_reported_until_it_is_reachable(tmp_path: Path) -> None:
    server = Nats(tmp_path)
    made = Api(tmp_path / "api", server.url, server, "away")
    made.write(ASYNC, {}, {})
    try:
        gateway, consumer = made.gateway(wait=False), made.consumer(wait=False)
        for program in (gateway, consumer):
            until(lambda p=program: p.problem().get("reason") == "QueueUnreachable", what="it says so")
        answer = made.post({"seconds": 0})
        assert (answer.status_code, "retry-after" in answer.headers) == (503, True)
        assert "unreachable" in answer.json()["error"]
        assert httpx.get(f"{made.url}/0123").status_code == 503
        depth = httpx.get(f"{gateway.admin}/queue")
        assert (depth.status_code, depth.json()["error"]) == (503, "QueueUnreachable")

        server.start()
        until(lambda: gateway.ready() and consumer.ready(), what="both are ready")
        identity = made.submit({"seconds": 0})
        assert made.end(identity)["status"] == "completed"

        server.kill()
        until(lambda: consumer.problem().get("reason") == "QueueUnreachable", what="the consumer says so")
        # The gateway stays in the Service, so that it can report this.
        assert gateway.ready()
        assert httpx.get(f"{made.url}/{identity}").status_code == 503
        until(lambda: httpx.get(f"{gateway.admin}/queue").status_code == 503, what="the gateway says so")

        server.start()
        until(lambda: httpx.get(f"{made.url}/{identity}").status_code == 200, what="it is back")
        assert made.end(made.submit({"seconds": 0}))["status"] == "completed"
        assert made.get(identity)["status"] == "completed"
    finally:
        made.clear()
        server.kill()


def test_a_frozen_queue_server_is_reported_and_jobs_continue_when_it_resumes(tmp_path: Path) -> None:
    """Its connections stay open, so only missing responses show it."""
    server = Nats(tmp_path)
    server.start()
    made = Api(tmp_path / "api", server.url, server, "frozen")
    try:
        made.write(ASYNC, {}, {})
        gateway, consumer = made.gateway(), made.consumer()
        assert made.end(made.submit({"seconds": 0}))["status"] == "completed"
        assert server.process is not None
        os.killpg(server.process.pid, signal.SIGSTOP)
        problem = until(
            lambda: (found := consumer.problem()).get("reason") == "QueueUnreachable" and found,
            what="the consumer notices",
        )
        assert "does not respond" in problem["message"] or "did not respond" in problem["message"]
        answer = until(
            lambda: (found := httpx.get(f"{gateway.admin}/queue")).status_code == 503 and found,
            what="the gateway notices",
        )
        assert answer.json()["error"] == "QueueUnreachable"
        os.killpg(server.process.pid, signal.SIGCONT)
        until(consumer.ready, what="the consumer works again")
        assert made.end(made.submit({"seconds": 0}))["status"] == "completed"
    finally:
        made.clear()
        server.kill()


def test_a_full_disk_refuses_new_jobs_and_loses_no_accepted_job(tmp_path: Path) -> None:
    server = Nats(tmp_path, storage=24 * 1024 * 1024)
    server.start()
    made = Api(tmp_path / "api", server.url, server, "full")
    made.write(LARGE, {"queue": {"maxAttempts": 2, "lease": "3s"}}, {})
    try:
        made.gateway()
        accepted: list[str] = []
        filler = b'"' + b"f" * 4_000_000 + b'"'
        while True:
            answer = httpx.post(made.url, content=filler, headers={"content-type": "text/plain"}, timeout=60)
            if answer.status_code != 202:
                break
            accepted.append(answer.json()["id"])
        assert answer.status_code == 503, answer.text
        assert "out of space" in answer.json()["error"]
        assert accepted
        for identity in accepted:
            assert made.get(identity)["status"] == "in_queue"
        for identity in accepted[1:]:
            assert httpx.delete(f"{made.url}/{identity}").json()["reason"] == "Cancelled"
        until(lambda: made.post(20_000_000).status_code == 202, what="there is room again")
        identity = made.submit(30_000_000)
        made.consumer()
        job = made.end(identity, 60)
        assert (job["status"], job["reason"], job["attempts"]) == ("failed", "ResultNotStored", 2)
    finally:
        made.clear()
        server.kill()


class Receiver(ThreadingHTTPServer):
    """A receiver of webhooks that answers with these statuses in turn, and repeats the last."""

    def __init__(self, *statuses: int) -> None:
        self.statuses = list(statuses)
        self.got: list[tuple[dict[str, str], bytes]] = []
        super().__init__(("127.0.0.1", 0), _Receive)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/ended"


class _Receive(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.got.append(({k.lower(): v for k, v in self.headers.items()}, body))
        statuses = self.server.statuses
        self.send_response(statuses.pop(0) if len(statuses) > 1 else statuses[0])
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, format: str, *arguments: Any) -> None:
        pass


@pytest.fixture
def receiver() -> Iterator[Callable[..., Receiver]]:
    made: list[Receiver] = []

    def make(*statuses: int) -> Receiver:
        made.append(Receiver(*statuses))
        return made[-1]

    yield make
    for one in made:
        one.shutdown()
        one.server_close()


def test_a_webhook_is_signed_and_retried_until_it_is_accepted(
    api: Callable[..., Api], receiver: Callable[..., Receiver]
) -> None:
    usual, other = receiver(500, 204), receiver(200)
    made = api(ASYNC, spec={"webhook": {"url": usual.url, "timeout": "60s"}})
    gateway = made.gateway(CORTEX_WEBHOOK_SECRET="key")
    made.consumer()
    first = made.submit({"seconds": 0})
    second = made.submit({"seconds": 0}, headers={"x-cortex-webhook": other.url})
    until(lambda: len(usual.got) == 2 and len(other.got) == 1, what="the webhooks are delivered")
    for (headers, body), identity in zip([*usual.got, *other.got], [first, first, second], strict=True):
        job = json.loads(body)
        assert (job["id"], job["status"], job["result"]) == (identity, "completed", {"seconds": 0})
        content = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
        expected = base64.b64encode(hmac.new(b"key", content, hashlib.sha256).digest()).decode()
        assert headers["webhook-signature"] == f"v1,{expected}"
        assert headers["webhook-id"] == identity
    until(lambda: gateway.metric('cortex_async_webhooks_total{outcome="delivered"}') == 2, what="counted")
    assert gateway.metric('cortex_async_webhooks_total{outcome="retried"}') == 1
    assert len(usual.got) == 2


def test_an_unreachable_webhook_delays_no_other_delivery(api: Callable[..., Api]) -> None:
    made = api(ASYNC, spec={"webhook": {"timeout": "1s"}})
    gateway = made.gateway()
    made.consumer()
    nobody = {"x-cortex-webhook": f"http://127.0.0.1:{free_port()}/"}
    identity = made.submit({"seconds": 0}, headers=nobody)
    assert made.end(identity)["status"] == "completed"
    until(lambda: gateway.metric('cortex_async_webhooks_total{outcome="retried"}') >= 1, what="counted")
    answer = made.post({}, headers={"x-cortex-webhook": "file:///etc/passwd"})
    assert (answer.status_code, "http" in answer.json()["error"]) == (400, True)


@pytest.mark.parametrize(
    ("url", "word"),
    [
        ("", "CORTEX_QUEUE_URL must be set"),
        ("redis://x", "must begin with"),
        ("nats://127.0.0.1:1?copies=3", "replicas"),
        ("sqs://", "bucket"),
    ],
)
def test_an_invalid_queue_url_is_in_the_termination_log(api: Callable[..., Api], url: str, word: str) -> None:
    made = api(ASYNC)
    reason, message = made.gateway(wait=False, CORTEX_QUEUE_URL=url).cause_of_death()
    assert reason == "InvalidSpec"
    assert word in message


def test_a_worker_whose_handler_fails_to_start_takes_no_job(api: Callable[..., Api]) -> None:
    made = api("class Handler:\n    def handler_async(self, payload):\n        pass\n")
    made.gateway()
    identity = made.submit({})
    reason, message = made.consumer(wait=False).cause_of_death()
    assert reason == "HandlerInvalid"
    assert "did you mean handle_async?" in message
    assert made.get(identity) == {"id": identity, "status": "in_queue"}
