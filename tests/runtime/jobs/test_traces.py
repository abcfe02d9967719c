"""spec.tracing: a job is one trace from its request to its end, across gateway, queue, consumer and worker process."""

from collections.abc import Iterator

import pytest

from tests.runtime.tracing.collector import Collector
from tests.runtime.tracing.test_requests import parent

HANDLER = """
import logging
from opentelemetry import propagate, trace

tracer = trace.get_tracer("user")

class Handler:
    def handle_async(self, payload):
        logging.getLogger("own").warning("running %s", payload.get("word"))
        if payload.get("fail"):
            raise RuntimeError("secret")
        carrier = {}
        with tracer.start_as_current_span("lookup"):
            propagate.inject(carrier)
        return carrier
"""


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
        collector = Collector()
        yield collector
        collector.close()


@pytest.fixture(scope="module")
def traced(shared, collector):
    spec = {"tracing": {"endpoint": collector.url, "sampling": 0}, "queue": {"maxAttempts": 2}}
    api = shared(HANDLER, spec=spec)
    api.gateway()
    api.consumer()
    return api


def test_a_job_continues_the_trace_of_its_request(traced, collector):
    trace, span, header = parent()
    identity = traced.submit({}, headers={"traceparent": header, "tracestate": "a=1"})
    sent = traced.end(identity)["result"]
    spans = collector.trace(trace, "POST /", "queue", "job", "handler", "lookup")
    assert spans["POST /"].parent == span
    assert spans["POST /"].attributes["http.response.status_code"] == 202
    assert spans["queue"].parent == spans["job"].parent == spans["POST /"].id
    assert spans["handler"].parent == spans["job"].id
    assert sent == {"traceparent": f"00-{trace}-{spans['lookup'].id}-01", "tracestate": "a=1"}
    assert spans["job"].kind == "consumer"
    assert spans["job"].attributes == {
        "cortex.job.id": identity,
        "cortex.job.attempt": 1,
        "cortex.job.status": "completed",
    }
    assert spans["POST /"].start < spans["queue"].start <= spans["queue"].end <= spans["job"].start
    processes = {spans[name].resource["process.pid"] for name in ("POST /", "job", "handler")}
    assert len(processes) == 3


def test_each_attempt_of_a_job_is_a_span(traced, collector):
    trace, _, header = parent()
    identity = traced.submit({"fail": 1, "word": trace}, headers={"traceparent": header})
    assert traced.end(identity)["status"] == "failed"

    def attempts(spans):
        found = [each for each in spans if each.trace == trace and each.name == "job"]
        return len(found) == 2 and found

    first, second = collector.wait(attempts)
    assert first.attributes["cortex.job.status"] == "in_queue"
    assert not first.is_error
    assert second.attributes["cortex.job.attempt"] == 2
    assert second.attributes["cortex.job.status"] == "failed"
    assert second.is_error
    assert "secret" not in repr(collector.spans)
    lines = traced.programs[1].lines()
    logged = [line for line in lines if line["message"] == f"running {trace}"]
    assert [line["trace_id"] for line in logged] == [trace, trace]


def test_a_job_of_an_untraced_request_is_not_traced(traced, collector):
    sent = traced.end(traced.submit({}))["result"]["traceparent"]
    assert sent.endswith("-00")
    trace, _, header = parent("00")
    sent = traced.end(traced.submit({}, headers={"traceparent": header}))["result"]["traceparent"]
    assert sent.split("-")[1::2] == [trace, "00"]
    # Its spans would have arrived before those of a later job.
    later, _, header = parent()
    traced.end(traced.submit({}, headers={"traceparent": header}))
    collector.trace(later, "POST /", "queue", "job", "handler", "lookup")
    assert trace not in {span.trace for span in collector.spans}


def test_the_start_is_a_trace(traced, collector):
    (start,) = collector.wait(lambda spans: [each for each in spans if each.name == "start"])
    spans = collector.trace(start.trace, "start", "download project", "start workers")
    assert spans["download project"].parent == spans["start workers"].parent == start.id
    assert not start.is_error
