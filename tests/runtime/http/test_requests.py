"""Requests to an API: payloads by content type, results, and the responses to invalid requests."""

import gzip
import socket

import httpx
import pytest

HANDLER = """
import time, sys
import numpy as np
from starlette.responses import JSONResponse
from starlette.exceptions import HTTPException
from cortex_runtime import UserError

class Handler:
    def __init__(self, config):
        self.done = []

    def handle_post(self, payload, query_params, headers):
        what = query_params.get("do")
        if what == "type":
            return {"type": type(payload).__name__, "value": repr(payload)}
        if what == "form":
            return {name: value if isinstance(value, str) else value.file.read().decode() for name, value in payload.items()}
        if what == "user-error":
            raise UserError("the flower has no petals", 422)
        if what == "http-exception":
            raise HTTPException(418, "teapot")
        if what == "bug":
            raise KeyError("secret")
        if what == "nest":
            return {"a": [payload]}
        if what == "exit":
            sys.exit(3)
        if what == "callback":
            return "sent", lambda: self.done.append("called")
        if what == "unserialisable":
            return {"scores": [1, 2, 3, object()]}
        return payload

    def handle_get(self, *, query_params):
        what = query_params.get("give")
        return {
            "none": None, "bytes": b"raw", "text": "hello", "list": [1, 2],
            "numpy": {"array": np.arange(3), "scalar": np.float32(0.5)},
            "response": JSONResponse({"made": "by starlette"}, status_code=201, headers={"x-mine": "1"}),
            "int-keys": {1: "one"},
            "done": self.done,
        }[what]

    async def handle_put(self, payload):
        for part in payload["parts"]:
            yield part

    def handle_patch(self, payload):
        for part in payload["parts"]:
            yield part
"""


@pytest.fixture(scope="module")
def api(serve_for_module):
    return serve_for_module(HANDLER, maxBodySize="1Ki")


def test_the_payload_of_each_content_type(api):
    def sent(content, kind):
        headers = {"content-type": kind} if kind else {}
        return api.post(params={"do": "type"}, content=content, headers=headers).json()

    assert sent(b'{"a": 1}', "application/json; charset=utf-8") == {"type": "dict", "value": "{'a': 1}"}
    assert sent("é".encode("latin-1"), "text/plain; charset=latin-1") == {"type": "str", "value": "'é'"}
    assert sent(b"\x00", "application/x-anything")["type"] == "bytes"
    assert sent(b"x", None)["type"] == "bytes"
    form = api.post(params={"do": "form"}, data={"name": "iris"}, files={"file": b"content"})
    assert form.json() == {"name": "iris", "file": "content"}
    zipped = api.post(
        content=gzip.compress(b"[1]"),
        headers={"content-type": "application/json", "content-encoding": "gzip"},
    )
    assert zipped.json() == [1]


@pytest.mark.parametrize(
    ("give", "kind", "content"),
    [
        ("none", "application/json", b"null"),
        ("bytes", "application/octet-stream", b"raw"),
        ("text", "text/plain; charset=utf-8", b"hello"),
        ("list", "application/json", b"[1,2]"),
        ("numpy", "application/json", b'{"array":[0,1,2],"scalar":0.5}'),
        ("int-keys", "application/json", b'{"1":"one"}'),
    ],
)
def test_the_result_of_a_handler_is_sent(api, give, kind, content):
    answer = httpx.get(api.url, params={"give": give})
    assert (answer.status_code, answer.headers["content-type"], answer.content) == (200, kind, content)


def test_a_starlette_response_is_sent_as_it_is_with_the_request_id(api):
    answer = httpx.get(api.url, params={"give": "response"}, headers={"x-request-id": "mine-1"})
    assert (answer.status_code, answer.json()) == (201, {"made": "by starlette"})
    assert (answer.headers["x-mine"], answer.headers["x-request-id"]) == ("1", "mine-1")


@pytest.mark.parametrize("verb", ["PUT", "PATCH"])
def test_a_generator_is_streamed(api, verb):
    answer = httpx.request(verb, api.url, json={"parts": ["a", "b"]})
    assert (answer.text, answer.headers["transfer-encoding"]) == ("ab", "chunked")


def test_a_callback_runs_after_the_response(api):
    assert api.post(params={"do": "callback"}).text == "sent"
    api.until(lambda: httpx.get(api.url, params={"give": "done"}).json() == ["called"])


@pytest.mark.parametrize(
    ("request_", "status", "words"),
    [
        ({"content": b"{", "headers": {"content-type": "application/json"}}, 400, "not valid JSON"),
        ({"content": b"\xff", "headers": {"content-type": "text/plain"}}, 400, "not valid utf-8"),
        ({"content": b"x", "headers": {"content-type": "multipart/form-data"}}, 400, "form"),
        ({"content": b"x" * 2000}, 413, "1024 bytes"),
        ({"content": iter([b"x" * 600] * 3)}, 413, "1024 bytes"),
        ({"params": {"do": "user-error"}}, 422, "the flower has no petals"),
        ({"params": {"do": "http-exception"}}, 418, "teapot"),
        ({"params": {"do": "bug"}}, 500, "internal server error"),
        ({"params": {"do": "exit"}}, 500, "internal server error"),
        ({"params": {"do": "unserialisable"}}, 500, "internal server error"),
    ],
)
def test_an_invalid_request_gets_its_status_and_reason_and_does_not_affect_others(
    api, request_, status, words
):
    answer = api.post(**request_)
    assert answer.status_code == status
    assert words in answer.json()["error"]
    assert answer.json()["requestId"] == answer.headers["x-request-id"]
    assert "secret" not in answer.text
    assert api.post([1]).json() == [1]
    assert api.metric("cortex_worker_restarts_total") == 0


def levels(count):
    return {"content": b"[" * count + b"]" * count, "headers": {"content-type": "application/json"}}


def test_a_request_and_a_result_with_too_many_levels_are_refused_with_the_limit(api):
    assert api.post(params={"do": "nest"}, **levels(240)).status_code == 200
    answer = api.post(params={"do": "nest"}, **levels(500))
    assert (answer.status_code, "nested more than 250 levels deep" in answer.json()["error"]) == (500, True)


def failure(api, request):
    """Return the log line with the cause of a request's failure."""

    def found():
        lines = (line for line in api.lines() if line.get("requestId") == request)
        return [line for line in lines if line.get("logger") == "cortex" and line["level"] == "error"]

    return api.until(found)[0]


def test_a_failure_is_in_the_log_with_its_traceback_and_request_id(api):
    api.post(params={"do": "bug"}, headers={"x-request-id": "find-me"})
    assert "KeyError: 'secret'" in failure(api, "find-me")["traceback"]


def test_a_result_that_is_not_json_is_logged_with_the_path_to_the_value(api):
    assert api.post(params={"do": "unserialisable"}, headers={"x-request-id": "find-path"}).status_code == 500
    failed = failure(api, "find-path")
    assert 'result["scores"][3] is a object, which can\'t be written as JSON' in failed["message"]
    assert "traceback" not in failed


@pytest.mark.parametrize("number", [2**64, -(2**63) - 1, 10**300], ids=["2**64", "-2**63-1", "10**300"])
def test_integers_of_any_size_arrive_and_are_returned(api, number):
    assert api.post(number).json() == number
    assert api.post(params={"do": "type"}, json=[number]).json()["value"] == repr([number])


def test_responses_to_unknown_paths_and_verbs_list_the_known_ones(api):
    assert httpx.get(f"{api.url}/nothing").status_code == 404
    refused = httpx.delete(api.url)
    assert refused.status_code == 405
    assert "POST" in refused.headers["allow"]


def test_info_lists_the_served_models_and_is_not_counted_as_a_request(api):
    line = "cortex_request_duration_seconds_count"
    before = api.metric(line)
    assert httpx.get(f"{api.url}/info").json() == {
        "api": "tested",
        "kind": "RealtimeAPI",
        "type": "python",
        "interface": "Handler",
        "models": [],
    }
    api.post([1])
    assert api.wait_metric(line, before + 1) == before + 1


def test_a_request_id_that_is_not_sane_is_replaced(api):
    answer = api.post(content=b"", headers={"x-request-id": "a b\tc"})
    assert answer.headers["x-request-id"] != "a b\tc"


def test_a_client_that_disconnects_does_not_affect_others(api):
    with socket.create_connection(("127.0.0.1", api.port)) as gone:
        gone.sendall(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\nhalf")
        api.until(lambda: api.metric("cortex_requests_in_flight") == 1)
    api.until(lambda: api.metric('cortex_requests_total{method="POST",status="499"}') == 1)
    assert api.post([1]).json() == [1]
