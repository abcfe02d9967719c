"""spec.tracing: spans of requests over HTTP, with the trace context of the client, in logs and in calls of user code."""

import secrets

import httpx
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from ..conftest import INLINE

HANDLER = (
    INLINE
    + """
import logging
from opentelemetry import propagate, trace
from cortex_runtime import UserError, route
from starlette.responses import StreamingResponse

tracer = trace.get_tracer("user")

class Handler:
    def handle_post(self, payload):
        if payload.get("fail"):
            raise RuntimeError("secret")
        if payload.get("refuse"):
            raise UserError("refused", 422)
        if payload.get("print"):
            print("printed", payload["print"])
            logging.getLogger("own").warning("logged %s", payload["print"])
        with tracer.start_as_current_span("lookup"):
            carrier = {}
            propagate.inject(carrier)
        return {"inline": inline(), "sent": carrier}

    async def handle_put(self, payload):
        with tracer.start_as_current_span("lookup"):
            carrier = {}
            propagate.inject(carrier)
        return carrier

    def handle_get(self):
        carrier = {}
        propagate.inject(carrier)
        def parts():
            with tracer.start_as_current_span("part"):
                yield "a"
            yield "b"
        return parts()

    @route("/items/{id}", method="GET")
    def item(self, id):
        return {"id": id}
"""
)


@pytest.fixture(scope="module")
def traced(serve_for_module, collector):
    """Every request without trace context is traced."""
    return serve_for_module(
        HANDLER, spec={"tracing": {"endpoint": collector.url, "sampling": 100}}, logLevel="debug"
    )


@pytest.fixture(scope="module")
def untraced(serve_for_module, collector):
    """No request without trace context is traced."""
    return serve_for_module(HANDLER, spec={"tracing": {"endpoint": collector.url, "sampling": 0}})


def parent(flags="01"):
    trace, span = secrets.token_hex(16), secrets.token_hex(8)
    return trace, span, f"00-{trace}-{span}-{flags}"


def test_a_request_has_a_span_with_the_http_conventions(traced, collector):
    trace, span, header = parent()
    answer = traced.post({}, headers={"traceparent": header, "user-agent": "tester/1"})
    spans = collector.trace(trace, "POST /", "handler", "lookup")
    server = spans["POST /"]
    assert server.kind == "server"
    assert server.parent == span
    assert not server.is_error
    assert server.attributes == {
        "http.request.method": "POST",
        "url.path": "/",
        "url.scheme": "http",
        "server.address": "127.0.0.1",
        "client.address": "127.0.0.1",
        "user_agent.original": "tester/1",
        "network.protocol.version": "1.1",
        "http.response.status_code": 200,
        "http.route": "/",
        "cortex.request_id": answer.headers["x-request-id"],
    }
    assert server.resource["service.name"] == "tested"
    assert server.resource["service.namespace"] == "default"
    assert server.resource["deployment.environment.name"] == "test"
    assert spans["handler"].parent == server.id
    assert spans["handler"].attributes == {"code.function.name": "Handler.handle_post"}
    assert spans["lookup"].parent == spans["handler"].id
    assert server.start <= spans["handler"].start <= spans["handler"].end <= server.end
    assert collector.headers[-1]["authorization"] == "Bearer collector-token"


def test_inline_requests_have_the_same_spans(traced, collector):
    with httpx.Client(base_url=traced.url, trust_env=False) as client:
        for _ in range(5000):
            trace, span, header = parent()
            sent = client.post("/", json={}, headers={"traceparent": header, "tracestate": "a=1,b=2"}).json()
            if sent["inline"]:
                break
        else:
            pytest.fail("no request was inline")
    spans = collector.trace(trace, "POST /", "handler", "lookup")
    assert spans["POST /"].parent == span
    assert spans["POST /"].state == "a=1,b=2"
    assert spans["lookup"].parent == spans["handler"].id
    assert spans["handler"].parent == spans["POST /"].id
    assert sent["sent"] == {
        "traceparent": f"00-{trace}-{spans['lookup'].id}-01",
        "tracestate": "a=1,b=2",
    }
    # An error of an inline call is sent without the inline path.
    with httpx.Client(base_url=traced.url, trust_env=False) as client:
        for _ in range(100):
            client.post("/", json={})
        trace, _, header = parent()
        assert client.post("/", json={"fail": 1}, headers={"traceparent": header}).status_code == 500
    assert collector.trace(trace, "POST /")["POST /"].is_error


def test_a_request_without_trace_context_begins_a_trace(traced, collector):
    answer = traced.post({})
    sent = answer.json()["sent"]["traceparent"].split("-")
    spans = collector.trace(sent[1], "POST /", "handler", "lookup")
    assert spans["POST /"].parent == ""
    assert spans["lookup"].id == sent[2]
    assert sent[3] == "01"


def test_an_async_method_and_a_stream_are_traced(traced, collector):
    trace, _, header = parent()
    httpx.put(traced.url, json={}, headers={"traceparent": header})
    spans = collector.trace(trace, "PUT /", "handler", "lookup")
    assert spans["lookup"].parent == spans["handler"].id
    trace, _, header = parent()
    assert httpx.get(traced.url, headers={"traceparent": header}).text == "ab"
    spans = collector.trace(trace, "GET /", "part")
    assert spans["part"].parent == spans["GET /"].id
    assert spans["GET /"].end >= spans["part"].end


def test_a_route_names_its_span_by_its_template(traced, collector):
    trace, _, header = parent()
    assert httpx.get(f"{traced.url}/items/7", headers={"traceparent": header}).json() == {"id": "7"}
    span = collector.trace(trace, "GET /items/{id}")["GET /items/{id}"]
    assert span.attributes["http.route"] == "/items/{id}"
    assert span.attributes["url.path"] == "/items/7"
    trace, _, header = parent()
    httpx.get(f"{traced.url}/nothing/here", headers={"traceparent": header})
    span = collector.trace(trace, "GET")["GET"]
    assert "http.route" not in span.attributes
    assert span.attributes["http.response.status_code"] == 404


@pytest.mark.parametrize(
    ("payload", "status", "is_error", "kind"),
    [({"fail": 1}, 500, True, "RuntimeError"), ({"refuse": 1}, 422, False, "UserError")],
    ids=["exception", "user error"],
)
def test_an_error_is_recorded_without_its_message(traced, collector, payload, status, is_error, kind):
    trace, _, header = parent()
    assert traced.post(payload, headers={"traceparent": header}).status_code == status
    spans = collector.trace(trace, "POST /", "handler")
    assert spans["POST /"].attributes["http.response.status_code"] == status
    assert spans["POST /"].is_error is is_error
    assert spans["handler"].is_error is is_error
    assert spans["handler"].attributes["error.type"] == kind
    assert "secret" not in repr(spans)


def test_log_lines_of_a_traced_request_have_its_ids(traced, untraced, collector):
    trace, _, header = parent()
    word = secrets.token_hex(4)
    traced.post({"print": word}, headers={"traceparent": header})
    spans = collector.trace(trace, "POST /", "handler")
    lines = traced.until(
        lambda: (
            found
            if len(found := [line for line in traced.lines() if line.get("trace_id") == trace]) >= 3
            else None
        )
    )
    by_logger = {line.get("logger", "access"): line for line in lines}
    assert by_logger["print"]["message"] == f"printed {word}"
    assert by_logger["own"]["message"] == f"logged {word}"
    assert by_logger["print"]["span_id"] == by_logger["own"]["span_id"] == spans["handler"].id
    assert by_logger["access"]["status"] == 200
    assert by_logger["access"]["span_id"] == spans["POST /"].id
    untraced.post({"print": word})
    (line,) = untraced.until(
        lambda: [each for each in untraced.lines() if each["message"] == f"logged {word}"]
    )
    assert "trace_id" not in line


def test_an_untraced_request_carries_a_context_that_is_not_sampled(untraced, collector):
    first, second = (untraced.post({}).json()["sent"]["traceparent"].split("-") for _ in range(2))
    assert first[3] == second[3] == "00"
    assert first[1] != second[1]
    trace, span, header = parent("00")
    sent = untraced.post({}, headers={"traceparent": header, "tracestate": "a=1"}).json()["sent"]
    version, sent_trace, sent_span, flags = sent["traceparent"].split("-")
    assert (version, sent_trace, flags) == ("00", trace, "00")
    assert sent_span != span
    assert sent["tracestate"] == "a=1"
    # A sampled request is traced even so. Its spans arrive after those of the requests before it.
    trace, _, header = parent()
    untraced.post({}, headers={"traceparent": header})
    collector.trace(trace, "POST /", "handler", "lookup")
    assert {first[1], second[1], sent_trace}.isdisjoint(span.trace for span in collector.spans)


CASES = {
    "a version of the future with more fields": ("cc-{trace}-{span}-01-more", True),
    "a version of the future": ("cc-{trace}-{span}-01", True),
    "unknown flags": ("00-{trace}-{span}-ff", True),
    "the version ff": ("ff-{trace}-{span}-01", False),
    "more fields in version 00": ("00-{trace}-{span}-01-more", False),
    "a trace ID of zeros": ("00-" + "0" * 32 + "-{span}-01", False),
    "a span ID of zeros": ("00-{trace}-" + "0" * 16 + "-01", False),
    "a short trace ID": ("00-{trace:.30}-{span}-01", False),
    "a long span ID": ("00-{trace}-{span}00-01", False),
    "upper case": ("00-{upper}-{span}-01", False),
    "an invalid character": ("00-{trace}-{span:.15}.-01", False),
    "one digit of flags": ("00-{trace}-{span}-1", False),
    "nothing": ("", False),
}


@pytest.mark.parametrize("case", CASES)
def test_traceparent_is_accepted_only_if_it_is_valid(untraced, case):
    template, is_valid = CASES[case]
    trace, span, _ = parent()
    header = template.format(trace=trace, span=span, upper="A" + trace[1:].upper())
    answer = untraced.post({}, headers={"traceparent": header, "tracestate": "a=1"})
    sent = answer.json()["sent"]
    version, sent_trace, sent_span, flags = sent["traceparent"].split("-")
    assert version == "00"
    assert len(sent_trace) == 32
    assert sent_span != span
    assert (sent_trace == trace) is is_valid
    assert int(flags, 16) & 1 == is_valid
    assert ("tracestate" in sent) is is_valid


def test_headers_that_are_repeated(untraced):
    trace, _, header = parent()
    first = [("traceparent", header), ("traceparent", header.replace(trace, secrets.token_hex(16)))]
    sent = untraced.post({}, headers=first).json()["sent"]
    assert trace not in sent["traceparent"]
    sent = untraced.post({}, headers=[("traceparent", header), ("tracestate", "a=1"), ("tracestate", "b=2")])
    assert sent.json()["sent"]["tracestate"].replace(" ", "") == "a=1,b=2"
    logged = len(untraced.log.read_bytes())
    many = ",".join(f"key{number}=1" for number in range(33))
    sent = untraced.post({}, headers={"traceparent": header, "tracestate": many}).json()["sent"]
    assert trace in sent["traceparent"]
    assert "tracestate" not in sent
    for state in ("a@b=1,c@=2,1=3", "a=1,a=2", "z" * 256 + "=1", "a=" + "1" * 256):
        sent = untraced.post({}, headers={"traceparent": header, "tracestate": state}).json()["sent"]
        assert sent["tracestate"] == state
    for state in ("@a=1", "A=1", "z" * 257 + "=1", "a=" + "1" * 257, "a", "a=1=2", "a=1;b=2,c"):
        sent = untraced.post({}, headers={"traceparent": header, "tracestate": state}).json()["sent"]
        assert "tracestate" not in sent
    sent = untraced.post({}, headers={"tracestate": "a=1"}).json()["sent"]
    assert "tracestate" not in sent
    # Clients cannot fill the log.
    untraced.post({}, headers={"traceparent": "0" * 600, "baggage": "a=" + "1" * 9000})
    untraced.post({"print": "end"})
    untraced.until(lambda: "logged end" in untraced.log.read_text())
    assert b"opentelemetry" not in untraced.log.read_bytes()[logged:]


def test_a_collector_that_fails_affects_no_request_and_is_logged_once(serve, collector, monkeypatch):
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "4")
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "2")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
    replica = serve(HANDLER, spec={"tracing": {"endpoint": "http://127.0.0.1:9", "sampling": 100}})
    assert all(replica.post({}).status_code == 200 for _ in range(10))
    # Each span is counted once: at most 4 for each request, one of them for a wait for the thread, and 5 of the start.
    assert replica.wait_metric("cortex_spans_dropped_total", 10) <= 45
    replica.until(lambda: "failed to send traces" in replica.log.read_text())
    assert replica.post({}).status_code == 200
    warnings = [each for each in replica.lines() if each["level"] not in ("info", "debug")]
    assert {each["level"] for each in warnings} == {"warning"}
    assert all("http://127.0.0.1:9/v1/traces" in each["message"] for each in warnings)
    # Once in each process: the worker, and the supervisor, which traces the start.
    assert len({each["process"] for each in warnings}) == len(warnings)


def test_spans_are_sent_before_a_replica_exits(serve, collector, monkeypatch):
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "60000")
    replica = serve(HANDLER, spec={"tracing": {"endpoint": collector.url, "sampling": 100}})
    trace = replica.post({}).json()["sent"]["traceparent"].split("-")[1]
    replica.process.terminate()
    assert replica.process.wait(30) == 0
    collector.trace(trace, "POST /", "handler", "lookup")


def test_without_an_endpoint_nothing_is_imported(serve):
    source = """
import sys

class Handler:
    def handle_post(self, payload):
        return sorted(name for name in sys.modules if "opentelemetry" in name or ".traced" in name)
"""
    replica = serve(source, spec={"tracing": {"sampling": 100}})
    assert replica.post({}, headers={"traceparent": parent()[2]}).json() == []


def test_exemplars_are_in_the_openmetrics_format_only(traced, collector):
    trace, _, header = parent()
    traced.post({}, headers={"traceparent": header})
    span = collector.trace(trace, "POST /")["POST /"]
    accept = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"

    def found():
        answer = httpx.get(f"{traced.admin}/metrics", headers={"accept": accept})
        assert answer.headers["content-type"] == "application/openmetrics-text; version=1.0.0; charset=utf-8"
        families = list(text_string_to_metric_families(answer.text))
        samples = [sample for family in families for sample in family.samples if sample.exemplar]
        return [each for each in samples if each.exemplar.labels["trace_id"] == trace]

    # A later request of the same bucket may replace it.
    sample = traced.until(lambda: traced.post({}, headers={"traceparent": header}) and found())[0]
    assert sample.name == "cortex_request_duration_seconds_bucket"
    assert sample.exemplar.value <= float(sample.labels["le"])
    assert span.trace == sample.exemplar.labels["trace_id"]
    plain = httpx.get(f"{traced.admin}/metrics")
    assert plain.headers["content-type"].startswith("text/plain")
    assert "trace_id" not in plain.text


def test_metrics_without_tracing_are_never_in_the_openmetrics_format(serve):
    replica = serve("class Handler:\n    def handle_post(self, payload): ...")
    answer = httpx.get(f"{replica.admin}/metrics", headers={"accept": "application/openmetrics-text"})
    assert answer.headers["content-type"].startswith("text/plain")
