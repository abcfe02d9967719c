"""Generators: each part is sent at once, as an event if the client accepts events, and the generator is always closed."""

import json
import pathlib
import socket

import httpx
import pytest

SOURCE = """
import pathlib, time
from cortex_runtime import UserError

class Handler:
    def handle_post(self, payload):
        folder = pathlib.Path(payload["folder"])
        if payload.get("refuse"):
            raise UserError("no stream for you", 422)
        try:
            for part in payload.get("parts", ()):
                yield part
            if payload.get("gate"):
                while not (folder / "gate").exists():
                    time.sleep(0.005)
                yield "after the gate"
            if payload.get("break"):
                raise RuntimeError("secret")
            while payload.get("forever"):
                yield "x" * 1000
                time.sleep(0.001)
        finally:
            (folder / "closed").touch()

    async def handle_put(self, payload):
        import asyncio
        folder = pathlib.Path(payload["folder"])
        try:
            yield {"n": 1}
            await asyncio.sleep(payload["seconds"])
            yield {"n": 2}
        finally:
            (folder / "closed").touch()
"""


@pytest.fixture(scope="module")
def api(serve_for_module):
    return serve_for_module(SOURCE, requestTimeout="3s")


@pytest.fixture
def folder(tmp_path):
    return str(tmp_path)


def closed(api, folder):
    return api.until(pathlib.Path(folder, "closed").exists)


def test_the_first_part_is_there_before_the_second_exists(api, folder):
    with httpx.stream("POST", api.url, json={"folder": folder, "parts": ["first"], "gate": True}) as answer:
        parts = answer.iter_text()
        assert next(parts) == "first"
        pathlib.Path(folder, "gate").touch()
        assert next(parts) == "after the gate"


def test_objects_are_lines_of_json(api, folder):
    answer = api.post({"folder": folder, "parts": [{"n": 1}, [2], None]})
    assert answer.headers["content-type"] == "application/x-ndjson"
    assert answer.text == '{"n":1}\n[2]\nnull\n'


def test_events_if_the_client_accepts_them(api, folder):
    headers = {"accept": "text/event-stream", "x-request-id": "sse"}
    answer = api.post({"folder": folder, "parts": ["one\ntwo", {"n": 1}]}, headers=headers)
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert (answer.headers["cache-control"], answer.headers["x-request-id"]) == ("no-cache", "sse")
    assert answer.text == 'data: one\ndata: two\n\ndata: {"n":1}\n\n'


def test_an_error_before_the_first_part_is_an_ordinary_answer(api, folder):
    answer = api.post({"folder": folder, "refuse": True})
    assert (answer.status_code, answer.json()["error"]) == (422, "no stream for you")


def read(verb, api, body):
    """Return all received parts, and whether the response was complete."""
    parts = []
    with httpx.stream(verb, api.url, json=body) as answer:
        assert answer.status_code == 200
        try:
            parts += answer.iter_text()
        except httpx.RemoteProtocolError:
            return parts, False
    return parts, True


def test_an_error_after_the_first_part_breaks_the_connection(api, folder):
    parts, whole = read("POST", api, {"folder": folder, "parts": ["a"], "break": True})
    assert not whole
    assert "secret" not in "".join(parts)
    assert closed(api, folder)
    api.until(lambda: "RuntimeError: secret" in api.log.read_text())


def test_a_generator_whose_client_leaves_is_closed(api, folder):
    body = json.dumps({"folder": folder, "forever": True}).encode()
    head = (
        b"POST / HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
        % len(body)
    )
    with socket.create_connection(("127.0.0.1", api.port)) as client:
        client.sendall(head + body)
        assert client.recv(1000)
    assert closed(api, folder)
    api.until(lambda: api.metric("cortex_requests_in_flight") == 0)


def test_a_generator_that_stalls_is_given_up(api, folder):
    assert not read("PUT", api, {"folder": folder, "seconds": 30})[1]
    assert closed(api, folder)
    parts, whole = read("PUT", api, {"folder": folder, "seconds": 0})
    assert ("".join(parts), whole) == ('{"n":1}\n{"n":2}\n', True)
