"""Exceptions, prints and log calls of a job never keep a worker from running the next job."""

import pytest

SOURCE = """
import logging, sys
from cortex_runtime import UserError, report_progress
logging.basicConfig(stream=sys.stdout, force=True)
class Handler:
    def handle_async(self, payload):
        print("job", payload)
        if payload == "error":
            raise ValueError("no such file: \\udcff.png")
        if payload == "user error":
            raise UserError("no such file: \\udcff.png")
        if payload == "progress":
            report_progress(0.5, "at \\udcff.png")
        if payload == "log":
            logging.error("no %s", "\\udcff")
        return payload
"""


@pytest.fixture(scope="module")
def jobs(shared):
    api = shared(SOURCE, spec={"queue": {"maxAttempts": 1}})
    api.gateway()
    api.consumer()
    return api


@pytest.mark.parametrize(
    ("payload", "status", "error"),
    [
        ("error", "failed", "the handler raised ValueError"),
        ("user error", "failed", "no such file: \\udcff.png"),
        ("progress", "completed", ""),
        ("log", "completed", ""),
    ],
)
def test_a_job_fails_and_the_next_one_runs(jobs, payload, status, error):
    identity = jobs.submit(payload)
    job = jobs.end(identity)
    assert (job["status"], error in job.get("error", "")) == (status, True)
    assert jobs.end(jobs.submit("next"))["result"] == "next"
    lines = [line for line in jobs.programs[1].lines() if line.get("requestId") == identity]
    assert [line["message"] for line in lines].count(f"job {payload}") == 1
    if payload == "error":
        assert ["\\udcff.png" in line["traceback"] for line in lines if "traceback" in line] == [True]
    if payload == "log":
        assert [line["message"] for line in lines].count("ERROR:root:no \\udcff") == 1
