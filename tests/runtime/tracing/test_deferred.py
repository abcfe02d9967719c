"""A span of the runtime is exported as if it had been a span of opentelemetry-sdk."""

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import (
    Context,
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    TraceState,
    set_span_in_context,
)

from cortex_runtime.tracing.deferred import DeferredSpan, GivenIds

PARENT = SpanContext(1, 2, True, TraceFlags(3), TraceState([("a", "b")]))
OTHER = SpanContext(3, 4, False, TraceFlags(1))


def fail(span):
    try:
        raise ValueError("no")
    except ValueError as error:
        span.record_exception(error, {"own": 1}, 6)


CALLS = {
    "nothing": lambda span: None,
    "attributes": lambda span: (
        span.set_attribute("a", 1),
        span.set_attributes({"b": [1, 2], "c": "x" * 50}),
    ),
    "many attributes": lambda span: [span.set_attribute(f"a{n}", n) for n in (*range(10), 8, 5)],
    "invalid attribute": lambda span: span.set_attribute("a", {"b": object()}),
    "event": lambda span: span.add_event("e", {"a": 1}, 5),
    "exception": fail,
    "name": lambda span: span.update_name("new"),
    "link": lambda span: span.add_link(OTHER, {"a": 1}),
    "status": lambda span: (span.set_status(StatusCode.OK), span.set_status(StatusCode.ERROR, "late")),
    "error": lambda span: (span.set_status(Status(StatusCode.ERROR, "x")), span.set_status(StatusCode.UNSET)),
    "after the end": lambda span: (
        span.end(9),
        span.set_attribute("a", 1),
        span.update_name("x"),
        span.end(10),
    ),
}


@pytest.fixture(scope="module")
def sdk():
    ids = GivenIds()
    ids.trace_id, ids.span_id = 1, 7
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "8")
        patch.setenv("OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT", "20")
        provider = TracerProvider(id_generator=ids, shutdown_on_exit=False)
    return provider.get_tracer("x"), ids


@pytest.mark.parametrize("parent", [None, PARENT], ids=["root", "child"])
@pytest.mark.parametrize("name", CALLS)
def test_it_is_the_span_that_the_sdk_would_have_made(sdk, name, parent):
    tracer, ids = sdk
    calls, above, ended = CALLS[name], Context(), []
    if parent is not None:
        above = set_span_in_context(NonRecordingSpan(parent), above)
    expected = tracer.start_span("s", above, SpanKind.SERVER, {"first": True}, start_time=1)
    own = expected.get_span_context()
    deferred = DeferredSpan("s", own, parent, SpanKind.SERVER, {"first": True}, None, 1, ended.append)
    for span in (expected, deferred):
        assert span.is_recording()
        calls(span)
        span.end(8)
        assert not span.is_recording()
    assert ended == [deferred]
    replayed = deferred.replay(tracer, ids)
    for detail in ("kind", "parent", "start_time", "end_time", "name", "status", "dropped_attributes"):
        found, wanted = getattr(replayed, detail), getattr(expected, detail)
        assert found.__dict__ == wanted.__dict__ if detail == "status" else found == wanted
    assert (replayed.get_span_context(), dict(replayed.attributes)) == (own, dict(expected.attributes))
    assert [(e.name, e.timestamp, dict(e.attributes)) for e in replayed.events] == [
        (e.name, e.timestamp, dict(e.attributes)) for e in expected.events
    ] or name == "exception"
    assert [dict(e.attributes).keys() for e in replayed.events] == [
        dict(e.attributes).keys() for e in expected.events
    ]
    assert [(link.context, dict(link.attributes)) for link in replayed.links] == [
        (link.context, dict(link.attributes)) for link in expected.links
    ]
