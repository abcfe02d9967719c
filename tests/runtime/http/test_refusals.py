"""Errors that a handler raises for its client always arrive, with the request ID; and clients that disconnect early.

The admin port refuses what the port of the API refuses.
"""

import json
import pathlib
import socket
import struct
import threading

import httpx
import pytest

SOURCE = r"""
import asyncio, pathlib, threading, time
from starlette.exceptions import HTTPException
from starlette.responses import Response
from cortex_runtime import UserError

class Odd:
    def __str__(self): raise ValueError

class Forgetful(UserError):
    def __init__(self): pass

class Late(Response):
    async def __call__(self, scope, receive, send):
        while (await receive())["type"] != "http.disconnect":
            pass
        await super().__call__(scope, receive, send)

class Handler:
    def handle_post(self, payload):
        raise {
            "surrogate": lambda: UserError("no \udcff", 422),
            "detail": lambda: HTTPException(409, {"a": "\udcff"}),
            "object": lambda: HTTPException(409, Odd()),
            "message": lambda: UserError(object, 404),
            "header": lambda: HTTPException(409, "x", headers={"x-own": "\udcff"}),
            "break": lambda: HTTPException(409, "x", headers={"x-own": "a\r\nx-more: b"}),
            "latin": lambda: HTTPException(409, "x", headers={"X-Own": "é"}),
            "status": lambda: HTTPException(1000, "x"),
            "word": lambda: HTTPException("409", "x"),
            "empty": lambda: HTTPException(304),
            "forgetful": Forgetful,
        }[payload]()

    async def handle_put(self, payload):
        folder = pathlib.Path(payload)
        try:
            (folder / "begun").touch()
            await asyncio.sleep(3600)
            yield "never"
        finally:
            (folder / "closed").touch()

    def handle_patch(self, payload):
        folder = pathlib.Path(payload)
        try:
            (folder / "begun").touch()
            while not (folder / "gate").exists():
                time.sleep(0.005)
            yield "late"
        finally:
            (folder / "closed").touch()

    async def handle_delete(self, query_params):
        pathlib.Path(query_params["folder"], "begun").touch()
        return Late("late")

    def handle_get(self):
        return "here"
"""


@pytest.fixture(scope="module")
def api(serve_for_module):
    return serve_for_module(SOURCE)


@pytest.mark.parametrize(
    ("which", "status", "error"),
    [
        ("surrogate", 422, "no \\udcff"),
        ("detail", 409, "{'a': '\\udcff'}"),
        ("object", 409, "<Odd, whose str() raised ValueError>"),
        ("message", 404, "<class 'object'>"),
        ("header", 500, "internal server error"),
        ("break", 500, "internal server error"),
        ("latin", 409, "x"),
        ("status", 500, "internal server error"),
        ("word", 500, "internal server error"),
        ("forgetful", 500, "internal server error"),
    ],
)
def test_an_error_arrives_with_the_id_of_its_request(api, which, status, error):
    answer = api.post(which, headers={"x-request-id": which})
    assert (answer.status_code, answer.json()) == (status, {"error": error, "requestId": which})
    assert answer.headers["x-request-id"] == which
    assert "x-more" not in answer.headers


def test_a_status_that_has_no_body_has_none(api):
    answer = api.post("empty")
    assert (answer.status_code, answer.content) == (304, b"")


def leave(api, verb, folder):
    """Request a stream and reset the connection while its first part is created."""
    body = json.dumps(str(folder)).encode()
    head = f"{verb} / HTTP/1.1\r\nhost: x\r\nx-request-id: {verb}\r\ncontent-type: application/json\r\n"
    with socket.create_connection(("127.0.0.1", api.port)) as client:
        client.sendall(head.encode() + b"content-length: %d\r\n\r\n" % len(body) + body)
        api.until(pathlib.Path(folder, "begun").exists)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def test_a_client_that_leaves_before_the_first_part_ends_the_stream(api, tmp_path):
    # A request of the previous test is counted until it ends, which is after its response.
    api.until(lambda: api.metric("cortex_requests_in_flight") == 0)
    leave(api, "PUT", tmp_path)
    api.until(pathlib.Path(tmp_path, "closed").exists)
    api.until(lambda: api.metric("cortex_requests_in_flight") == 0)
    line = api.until(lambda: [line for line in api.lines() if line.get("requestId") == "PUT"])
    assert [each["status"] for each in line] == [499]


def test_a_generator_in_a_thread_is_closed_after_its_step(api, tmp_path):
    leave(api, "PATCH", tmp_path)
    assert not pathlib.Path(tmp_path, "closed").exists()
    pathlib.Path(tmp_path, "gate").touch()
    api.until(pathlib.Path(tmp_path, "closed").exists)
    line = api.until(lambda: [line for line in api.lines() if line.get("requestId") == "PATCH"])
    assert [each["status"] for each in line] == [499]


@pytest.mark.parametrize("resets", [True, False])
def test_a_response_to_a_client_that_has_left_is_logged_as_such(api, tmp_path, resets):
    identifier = f"left-{resets}"
    head = f"DELETE /?folder={tmp_path} HTTP/1.1\r\nhost: x\r\nx-request-id: {identifier}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", api.port)) as client:
        client.sendall(head.encode())
        api.until(pathlib.Path(tmp_path, "begun").exists)
        if resets:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    line = api.until(lambda: [line for line in api.lines() if line.get("requestId") == identifier])
    assert [each["status"] for each in line] == [499]


@pytest.mark.parametrize("threads", [1, 2])
def test_a_stream_that_stalls_in_a_thread_is_answered_in_time_and_closed_later(serve, tmp_path, threads):
    api = serve(SOURCE, requestTimeout="300ms", threadsPerProcess=threads)

    def has_stalled():
        answer = httpx.patch(api.url, json=str(tmp_path))
        assert (answer.status_code, "requestTimeout" in answer.json()["error"]) == (504, True)
        # On a busy machine, the time of a request may end before its generator has begun.
        return pathlib.Path(tmp_path, "begun").exists()

    api.until(has_stalled)
    closed = pathlib.Path(tmp_path, "closed")
    assert not closed.exists()
    opening = threading.Timer(0, pathlib.Path(tmp_path, "gate").touch)
    opening.start()
    api.until(closed.exists)
    opening.join()
    assert api.until(lambda: httpx.get(api.url).text == "here")
    assert not [line for line in api.lines() if "traceback" in line]


@pytest.mark.parametrize(
    ("head", "status"),
    [
        ("GET /healthz HTTP/1.1\r\n\r\n", 400),
        ("GET /healthz HTTP/2.0\r\nhost: x\r\n\r\n", 505),
        ("GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n", 200),
        ("GET /healthz HTTP/1.0\r\n\r\n", 200),
    ],
)
def test_the_admin_port_answers_valid_requests_after_the_client_has_closed_its_sending_side(
    api, head, status
):
    with socket.create_connection(("127.0.0.1", api.admin_port), timeout=60) as client:
        client.sendall(head.encode())
        client.shutdown(socket.SHUT_WR)
        answer = client.makefile("rb").read()
    # A busy server sends it before the response.
    answer = answer.removeprefix(b"HTTP/1.1 100 Continue\r\n\r\n")
    assert answer.split(b" ", 2)[1] == b"%d" % status
    assert (b'{"ok":true}' in answer) == (status == 200)
