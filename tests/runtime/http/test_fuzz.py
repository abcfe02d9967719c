"""No request causes a 500 of the runtime: one handler here cannot fail, and one API has no code."""

import json
import re
import socket

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ..onnx_models import write_model

CANT_FAIL = """
class Handler:
    def handle_post(self, payload, query_params, headers):
        return {"type": type(payload).__name__, "query": len(query_params), "headers": len(headers)}
    def handle_put(self, payload):
        yield type(payload).__name__
    async def handle_patch(self, payload, headers):
        return payload if isinstance(payload, (str, bytes)) else None
    def handle_get(self, query_params):
        return dict(query_params)
"""
FUZZ = settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@pytest.fixture(scope="module")
def echo(serve_for_module):
    return serve_for_module(CANT_FAIL, maxBodySize="4Ki", debug=True)


@pytest.fixture(scope="module")
def model(serve_for_module, tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "m.onnx"
    write_model(path, 2.0)
    return serve_for_module(None, type="onnx", path=None, models={"path": str(path)})


def status_of(api, data, complete=True):
    """Return the status of the last response to some bytes, or None if the connection was closed without one.

    complete: whether the bytes end a request; the server is then asked to close the connection.
    """
    with socket.create_connection(("127.0.0.1", api.port), timeout=60) as connection:
        connection.sendall(data)
        if not complete:
            connection.shutdown(socket.SHUT_WR)
        answer = b""
        while piece := connection.recv(65536):
            answer += piece
    statuses = re.findall(rb"HTTP/1\.1 (\d{3}) ", answer)
    assert bool(statuses) == bool(answer), answer[:100]
    return int(statuses[-1]) if statuses else None


def intact(api):
    api.until(lambda: api.metric("cortex_requests_in_flight") == 0)
    assert api.metric("cortex_worker_restarts_total") == 0
    assert not [line for line in api.lines() if line["level"] == "error"]


printable = st.text(st.characters(min_codepoint=33, max_codepoint=255), max_size=30).map(
    lambda s: s.encode("latin-1")
)
kinds = st.sampled_from(
    [
        *(b"application/json", b"application/json;charset=x", b"text/plain", b"text/plain; charset=utf-16"),
        *(b"text/plain; charset=rot13", b"text/plain; charset=\xff", b"multipart/form-data; boundary=b"),
        *(b"multipart/form-data", b"application/x-www-form-urlencoded", b"application/octet-stream", b""),
    ]
) | printable  # fmt: skip
header = st.tuples(
    st.sampled_from(
        [b"x-request-id", b"accept", b"content-encoding", b"x-own", b"connection", b"expect", b"upgrade", b"cookie"]
    ),
    st.sampled_from([b"gzip", b"br", b"text/event-stream", b"close", b"100-continue", b"websocket", b"h2c"]) | printable,
)  # fmt: skip
PART = b'--b\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n--b--'
bodies = (
    st.binary(max_size=300)
    | st.sampled_from([b"{", b"\x1f\x8b\x08junk", PART, b"x" * 5000])
    | st.recursive(
        st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=10),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
        max_leaves=10,
    ).map(lambda value: json.dumps(value).encode())
)  # fmt: skip


@FUZZ
@given(
    verb=st.sampled_from([b"POST", b"PUT", b"PATCH", b"GET", b"DELETE", b"HEAD", b"OPTIONS", b"TRACE", b"NONSENSE"]),
    target=st.just(b"") | st.sampled_from([b"?debug=true", b"?a=%ff&b", b"info", b"info/", b"../x", b"?%"]) | printable,
    kind=kinds,
    more=st.lists(header, max_size=4),
    body=bodies,
)  # fmt: skip
def test_requests_that_are_nearly_right(echo, verb, target, kind, more, body):
    lines = [b"%b /%b HTTP/1.1" % (verb, target), b"host: x", b"content-type: " + kind]
    lines += [b"content-length: %d" % len(body), *(b"%b: %b" % pair for pair in more)]
    lines.append(b"connection: close")
    status = status_of(echo, b"\r\n".join([*lines, b"", b""]) + body)
    assert status is not None
    assert status < 500


@FUZZ
@given(data=st.binary(max_size=200).map(lambda junk: b"POST / HTTP/1.1\r\n" + junk) | st.binary(max_size=100))
def test_bytes_that_are_hardly_http(echo, data):
    status = status_of(echo, data, complete=False)
    assert status is None or status < 500


def test_nothing_remains_after_deletion(echo):
    intact(echo)
    assert echo.post({"a": 1}).json()["type"] == "dict"


values = st.recursive(
    st.none()
    | st.booleans()
    | st.floats()
    | st.integers(min_value=-(2**70), max_value=2**70)
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["x", "y", ""]), inner, max_size=2),
    max_leaves=12,
)  # fmt: skip


@FUZZ
@given(
    value=values,
    query=st.sampled_from(
        ["", "?version=1", "?version=2", "?version=x", "?model=m", "?version=" + "9" * 400]
    ),
)
def test_values_that_a_model_does_not_take(model, value, query):
    body = json.dumps(value).encode()
    lines = [f"POST /{query} HTTP/1.1", "host: x", "content-type: application/json"]
    lines += [f"content-length: {len(body)}", "connection: close", "", ""]
    assert status_of(model, "\r\n".join(lines).encode() + body) in (200, 400, 404)


def test_the_model_still_answers(model):
    intact(model)
    assert model.post([[1, 2]]).json() == [[[2.0, 4.0]]]
