"""spec.payloadLogging of an AsyncAPI: the payload and the result of each attempt of a job."""

import pytest

from tests.runtime.jobs.conftest import Api, api, shared  # noqa: F401
from tests.runtime.queues.servers import until

JOBS = """
import os
import sys
from cortex_runtime import UserError

class Handler:
    def handle_async(self, payload, request_id):
        if payload == "modules":
            return [name for name in sys.modules if "payloads" in name or "logged" in name]
        if payload.get("once"):
            flag = f"{request_id}.flag"
            if not os.path.exists(flag):
                open(flag, "w").close()
                raise RuntimeError("not yet")
        if payload.get("refuse"):
            raise UserError("refused")
        return {"given": payload}
"""


@pytest.fixture(scope="module")
def logged(shared, sink):  # noqa: F811
    logging = {"url": sink.url, "maxPayloadSize": "1Ki", "redact": ["$..password"]}
    made = shared(JOBS, spec={"payloadLogging": logging})
    made.gateway()
    made.consumer()
    return made


def test_payload_and_result_of_a_job_are_cloudevents(logged: Api, sink):
    identity = logged.submit({"n": 2**70, "password": "s3cret"})
    job = logged.end(identity)
    request, response = sink.found(identity, 2)
    common = {
        "specversion": "1.0",
        "source": f"/namespaces/default/asyncapis/{logged.name}",
        "subject": f"/{identity}",
        "requestid": identity,
        "method": "job",
        "attempt": 1,
        "datacontenttype": "application/json",
    }
    assert request.items() >= {**common, "type": "dev.cortex.request"}.items()
    assert response.items() >= {**common, "type": "dev.cortex.response", "status": "completed"}.items()
    assert request["data"] == {"n": 2**70, "password": "[redacted]"}
    assert job["result"]["given"]["password"] == "s3cret"
    assert response["data"] == {"given": request["data"]}
    assert request["time"] <= response["time"]


def test_each_attempt_is_logged_and_a_failure_with_its_reason(logged: Api, sink):
    identity = logged.submit({"once": True})
    logged.end(identity)
    events = sink.found(identity, 4)
    ends = {each["attempt"]: each for each in events if "status" in each}
    assert [ends[attempt]["status"] for attempt in (1, 2)] == ["failed", "completed"]
    assert ends[1]["data"]["reason"] == "HandlerError"
    identity = logged.submit({"refuse": True})
    logged.end(identity)
    _, response = sink.found(identity, 2)
    assert (response["status"], response["data"]) == ("failed", {"error": "refused", "reason": "Rejected"})


def test_of_a_large_payload_only_the_size_is_logged(logged: Api, sink):
    payload = {"large": "x" * 2000}
    identity = logged.submit(payload)
    assert logged.end(identity)["result"] == {"given": payload}
    request, response = sink.found(identity, 2)
    assert request["omitted"] == response["omitted"] == "larger than 1024 bytes"
    assert request["datasize"] > 2000


def test_the_last_events_are_sent_before_a_worker_exits_and_the_sample_is_one_of_jobs(api, sink):  # noqa: F811
    made = api(JOBS, spec={"payloadLogging": {"url": sink.url, "sampling": 50}, "queue": {"maxAttempts": 2}})
    made.gateway()
    worker = made.consumer()
    sink.seconds = 0.02
    try:
        identities = [made.submit({"n": n}) for n in range(40)]
        for identity in identities:
            made.end(identity)
        assert worker.stop() == 0, worker.log.read_text()
    finally:
        sink.seconds = 0.0
    logged = [each["requestid"] for each in sink.events if each["requestid"] in identities]
    assert 0 < len(set(logged)) < 40
    assert all(logged.count(identity) == 2 for identity in logged)


def test_without_payload_logging_nothing_is_imported(api):  # noqa: F811
    made = api(JOBS)
    made.gateway()
    made.consumer()
    assert made.end(made.submit("modules"))["result"] == []


def test_the_events_of_a_traced_job_have_its_trace(api, sink):  # noqa: F811
    tracing = {"endpoint": "http://127.0.0.1:9", "sampling": 0}
    made = api(JOBS, spec={"payloadLogging": {"url": sink.url}, "tracing": tracing})
    made.gateway()
    made.consumer()
    for flag, is_traced in (("01", True), ("00", False)):
        identity = made.submit({}, headers={"traceparent": f"00-{'ab' * 16}-{'cd' * 8}-{flag}"})
        made.end(identity)
        traces = [each.get("traceparent", "") for each in sink.found(identity, 2)]
        assert all(trace.startswith(f"00-{'ab' * 16}-") is is_traced for trace in traces), traces


def test_events_that_the_sink_refuses_are_counted(api):  # noqa: F811
    made = api(JOBS, spec={"payloadLogging": {"url": "http://127.0.0.1:9/"}})
    made.gateway()
    worker = made.consumer()
    assert made.end(made.submit({}))["status"] == "completed"
    worker.wait_metric('cortex_payload_events_dropped_total{reason="sink"}', 2)
    # The events are counted before the failure is logged.
    (line,) = until(lambda: [each for each in worker.lines() if each["level"] == "warning"])
    assert "failed to send payloads to http://127.0.0.1:9/" in line["message"]
