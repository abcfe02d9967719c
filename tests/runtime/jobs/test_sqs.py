"""Gateway and consumers of an API with a queue on SQS and S3, with the programs of the tests on NATS."""

import os
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.runtime.jobs.conftest import Api
from tests.runtime.queues.servers import until

DOUBLES = """
import os, pathlib, signal

class Handler:
    def handle_async(self, payload):
        mark = pathlib.Path(os.environ["MARK"])
        if not mark.exists():
            mark.write_text(str(os.getppid()))
            signal.pause()
        return payload.decode() * 2
"""


@pytest.fixture
def api(tmp_path: Path, sqs_url: str) -> Iterator[Api]:
    made = Api(tmp_path, sqs_url, None, "on-sqs")
    made.write(DOUBLES, {"queue": {"lease": "2s", "maxAttempts": 20}}, {})
    yield made
    made.clear()


def test_a_job_survives_its_consumer_and_its_gateway(api: Api, tmp_path: Path) -> None:
    first = api.gateway()
    doomed = api.consumer(MARK=str(tmp_path / "mark"))
    body = b"x" * 200_000
    headers = {"content-type": "application/octet-stream", "idempotency-key": "once"}
    identity = api.submit(content=body, headers=headers)
    assert api.submit(content=body, headers=headers) == identity
    until((tmp_path / "mark").exists, what="the job runs")
    assert api.get(identity)["status"] == "in_progress"
    doomed.kill()
    first.kill()
    api.gateway()
    api.consumer(MARK=str(tmp_path / "mark"))
    job = api.end(identity)
    assert (job["status"], job["result"]) == ("completed", (body * 2).decode())
    assert httpx.get(f"{api.url}/{os.urandom(16).hex()}").status_code == 404
    assert httpx.delete(f"{api.url}/{identity}").json()["status"] == "completed"
