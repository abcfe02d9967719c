"""Failed jobs are listed at the admin port, and retried by their clients."""

from collections.abc import Callable
from typing import Any

import httpx
import pytest

from tests.runtime.jobs.conftest import Api
from tests.runtime.queues.servers import until

REPAIRED = """
import os

class Handler:
    def handle_async(self, payload):
        if not os.path.exists(payload["repaired"]):
            raise ValueError("the model is missing")
        return "done"
"""


@pytest.fixture(scope="module")
def repaired(shared: Callable[..., Api]) -> Api:
    made = shared(REPAIRED, spec={"queue": {"maxAttempts": 1}})
    made.gateway()
    made.consumer()
    return made


def read(api: Api, identity: str) -> dict[str, Any]:
    return httpx.get(f"{api.url}/{identity}?wait=60s", timeout=90).json()


def listed(api: Api) -> dict[str, Any]:
    gateway = next(program for program in api.programs if program.port)
    return httpx.get(f"http://127.0.0.1:{gateway.admin_port}/jobs").json()


def test_a_failed_job_is_listed_and_completes_when_it_is_retried(repaired: Api, tmp_path) -> None:
    identity = repaired.submit({"repaired": str(tmp_path / "file")})
    assert read(repaired, identity)["status"] == "failed"
    found = until(lambda: listed(repaired)["failed"], what="the job is listed")
    assert [job["id"] for job in found] == [identity]
    assert found[0]["attempts"] == 1
    assert "the handler raised ValueError" in found[0]["error"]
    assert found[0]["submitted"] <= found[0]["timestamp"]
    assert listed(repaired)["failed_total"] == 1

    (tmp_path / "file").touch()
    answer = httpx.post(f"{repaired.url}/{identity}/retry")
    assert (answer.status_code, answer.json()) == (200, {"id": identity, "status": "in_queue"})
    job = read(repaired, identity)
    assert (job["status"], job["result"]) == ("completed", "done")
    # Its message is deleted after its end is recorded.
    nothing = {"open": [], "failed": [], "failed_total": 0}
    until(lambda: listed(repaired) == nothing, what="the job is not listed any more")


def test_only_failed_jobs_are_retried(repaired: Api, tmp_path) -> None:
    (tmp_path / "file").touch()
    identity = repaired.submit({"repaired": str(tmp_path / "file")})
    assert read(repaired, identity)["status"] == "completed"
    answer = httpx.post(f"{repaired.url}/{identity}/retry")
    assert answer.status_code == 409
    assert answer.json()["error"] == "the job is completed; only a failed job can be retried"
    assert httpx.post(f"{repaired.url}/{'0' * 32}/retry").status_code == 404
    assert httpx.get(f"{repaired.url}/{identity}/retry").status_code == 405
    for path in (f"/{identity}/", f"/{identity}/other", f"/{identity}/retry/"):
        assert httpx.post(repaired.url + path).status_code == 404


def test_queued_jobs_are_listed_the_oldest_first_and_not_retried(api: Callable[..., Api]) -> None:
    made = api(REPAIRED)
    made.gateway()
    ids = [made.submit({"n": n}) for n in range(3)]
    answer = httpx.post(f"{made.url}/{ids[0]}/retry")
    assert answer.status_code == 409
    assert answer.json()["error"] == "the job is in_queue; only a failed job can be retried"
    found = listed(made)
    assert [(job["id"], job["status"]) for job in found["open"]] == [(each, "in_queue") for each in ids]
    assert found["failed"] == []
    made.nats.kill()
    try:
        gateway = made.programs[0]
        answer = httpx.get(f"http://127.0.0.1:{gateway.admin_port}/jobs")
        assert answer.status_code == 503
        assert answer.json()["error"] == "QueueUnreachable"
    finally:
        made.nats.start()
