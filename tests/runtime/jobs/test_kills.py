"""SIGKILL of real processes at each step of a job's life: every job that was acknowledged with 202 ends as completed, or failed
with a reason."""

import os
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from tests.runtime.jobs.conftest import Api, Part
from tests.runtime.queues.servers import Nats, until

LARGE = """
class Handler:
    def handle_async(self, payload):
        return payload.decode() * 2
"""
BODY = b"x" * 300_000
"""Larger than the content of a message."""

POISON = """
import os, signal, time

class Handler:
    def handle_async(self, payload):
        if payload == "poison":
            os.kill(os.getpid(), signal.SIGKILL)
        if payload == "exit":
            os._exit(7)
        if payload == "slow":
            time.sleep(4)
        return payload
"""

TRIVIAL = """
class Handler:
    def handle_async(self, payload, request_id):
        return {"n": payload["n"], "id": request_id}
"""

GATEWAY_STEPS = ["before:put", "after:put", "before:publish", "after:publish"]
WORKER_STEPS = ["after:take", "after:write", "after:get", "after:put", "before:remove", "after:settle"]
"""The steps: the job is taken and claimed, its payload read, its result stored, the job recorded as completed, the message
deleted."""


def test_the_gateway_killed_at_each_step(api: Callable[..., Api]) -> None:
    made = api(LARGE, spec={"queue": {"lease": "2s", "maxAttempts": 20}})
    broken = [made.gateway(wait=False, fault=step) for step in GATEWAY_STEPS]
    until(lambda: all(gateway.ready() for gateway in broken), what="the gateways are ready")
    headers = {"content-type": "application/octet-stream"}
    for number, gateway in enumerate(broken):
        with pytest.raises(httpx.TransportError):
            httpx.post(
                gateway.url, content=BODY, headers={**headers, "idempotency-key": str(number)}, timeout=60
            )
        gateway.process.wait()
    made.gateway()
    made.consumer()
    ids = [
        made.submit(content=BODY, headers={**headers, "idempotency-key": str(number)})
        for number in range(len(broken))
    ]
    assert len(set(ids)) == len(ids)
    for identity in ids:
        job = made.end(identity)
        assert (job["status"], len(job["result"])) == ("completed", 2 * len(BODY))


def test_the_consumer_killed_at_each_step(api: Callable[..., Api]) -> None:
    """Each consumer takes the job of its predecessor, and exits one step later."""
    made = api(LARGE, spec={"queue": {"lease": "3s", "maxAttempts": 20}})
    gateway = made.gateway()
    ids = []
    for step in WORKER_STEPS:
        consumer = made.consumer(wait=False, fault=step)
        ids.append(made.submit(content=BODY, headers={"content-type": "application/octet-stream"}))
        assert consumer.process.wait(60) == -signal.SIGKILL
    last = made.consumer()
    for identity in ids:
        job = made.end(identity, 60)
        assert (job["status"], len(job["result"])) == ("completed", 2 * len(BODY))
    until(lambda: depth(gateway).get("in_flight") == 0, what="nothing is left over")
    assert last.stop() == 0


def test_a_job_that_kills_its_process_becomes_a_dead_letter_and_other_jobs_complete(
    api: Callable[..., Api],
) -> None:
    made = api(POISON, spec={"queue": {"maxAttempts": 2}}, maxConcurrency=3)
    made.gateway()
    consumer = made.consumer()
    poison = [made.submit(what) for what in ("poison", "exit")]
    good = [made.submit(f"good {number}") for number in range(10)]
    for number, identity in enumerate(good):
        job = made.end(identity)
        assert (job["status"], job.get("result")) == ("completed", f"good {number}"), job
    for identity, word in zip(poison, ("SIGKILL", "status 7"), strict=True):
        job = made.end(identity)
        assert (job["status"], job["reason"], job["attempts"]) == ("failed", "WorkerCrashed", 2)
        assert word in job["error"]
    assert consumer.wait_metric('cortex_async_dead_letters_total{reason="WorkerCrashed"}', 2) == 2
    assert consumer.wait_metric("cortex_worker_restarts_total") >= 1


def test_a_job_longer_than_its_lease_runs_once(api: Callable[..., Api]) -> None:
    """A second attempt is allowed, but does not happen."""
    made = api(POISON, spec={"queue": {"lease": "3s"}}, maxConcurrency=2)
    made.gateway()
    consumer = made.consumer()
    identity = made.submit("slow")
    assert made.end(identity)["status"] == "completed"
    assert consumer.wait_metric("cortex_async_attempt_seconds_count") == 1


def depth(gateway: Part) -> dict[str, Any]:
    """Return the length of the queue; an error if the server did not respond in time."""
    return httpx.get(f"{gateway.admin}/queue").json()


FULL = bool(os.environ.get("CORTEX_TESTS_FULL"))


@pytest.mark.timeout(1800 if FULL else 180)
def test_jobs_complete_while_workers_gateways_and_the_server_restart(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """Every job that was acknowledged with 202 completes with its own result, and the counts match."""
    jobs, rounds = (10_000, 5) if FULL else (1_000, 1)
    folder = tmp_path_factory.mktemp("many")
    server = Nats(folder)
    server.start()
    made = Api(folder / "api", server.url, server, "many")
    made.write(
        TRIVIAL,
        {"queue": {"lease": "2s", "maxAttempts": 50}},
        {"maxConcurrency": 8, "maxReplicaConcurrency": 30000},
    )
    ids: dict[str, int] = {}

    def submit(first: int) -> None:
        with httpx.Client(timeout=60) as client:
            for number in range(first, jobs, 4):
                while True:
                    try:
                        answer = client.post(
                            made.url, json={"n": number}, headers={"idempotency-key": f"job {number}"}
                        )
                    except (httpx.TransportError, StopIteration):
                        time.sleep(0.05)
                        continue
                    if answer.status_code == 202:
                        ids[answer.json()["id"]] = number
                        break
                    assert answer.status_code == 503, answer.text
                    time.sleep(0.05)

    try:
        gateways = [made.gateway(), made.gateway()]
        consumers = [made.consumer(), made.consumer()]
        clients = [threading.Thread(target=submit, args=(first,)) for first in range(4)]
        for client in clients:
            client.start()
        for number in range(rounds):
            until(lambda n=number: len(ids) >= jobs * n // rounds, 300, "jobs are accepted")
            consumers.pop(0).kill()
            server.kill()
            server.start()
            gateways.pop(0).kill()
            consumers.append(made.consumer())
            assert consumers.pop(0).stop() == 0
            gateways.append(made.gateway())
            consumers.append(made.consumer())
        for client in clients:
            client.join(600)
        assert sorted(ids.values()) == list(range(jobs))
        with httpx.Client(base_url=made.url, timeout=90) as client:
            for identity, number in ids.items():
                job = client.get(f"/{identity}", params={"wait": "60s"}).json()
                assert (job["status"], job.get("result")) == ("completed", {"n": number, "id": identity}), job
            empty = {"queued": 0, "in_flight": 0}
            until(lambda: depth(gateways[-1]).items() >= empty.items(), what="nothing is left over")
    finally:
        made.clear()
        server.kill()
