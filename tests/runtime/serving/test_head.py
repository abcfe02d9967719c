"""HEAD is answered wherever GET is, with the same headers and without a body. A wrong method gets the right ones."""

import httpx
import pytest

SOURCE = """
import pathlib
from starlette.responses import JSONResponse
from cortex_runtime import UserError, route

class Handler:
    def __init__(self):
        self.closed = pathlib.Path(__file__).with_name("closed")

    def handle_get(self, query_params):
        if "fail" in query_params:
            raise UserError("no", 422)
        return {"a": "b" * 1000}

    def handle_infer(self, inputs):
        return inputs

    @route("/items/{id:int}", "GET")
    def item(self, id):
        return {"id": id}

    @route("/later", "GET")
    async def later(self):
        return "text"

    @route("/response", "GET")
    def response(self):
        return JSONResponse([1], headers={"x-own": "1"})

    @route("/endless", "GET")
    def endless(self):
        try:
            while True:
                yield "part"
        finally:
            self.closed.touch()

    @route("/embed")
    def embed(self, payload):
        return payload
"""
PATHS = (
    *("/", "/?fail=1", "/items/7", "/later", "/response", "/info", "/openapi.json", "/docs", "/docs/none"),
    *("/v2", "/v2/health/live", "/v2/health/ready", "/v2/models/tested", "/v2/models/tested/ready"),
)


@pytest.fixture(scope="module")
def api(serve_for_module):
    return serve_for_module(SOURCE)


@pytest.fixture(scope="module")
def client(api):
    with httpx.Client(base_url=api.url) as client:
        yield client


@pytest.mark.parametrize("path", PATHS)
def test_head_is_get_without_a_body(client, path):
    headers = {"x-request-id": "same"}
    expected, answer = client.get(path, headers=headers), client.head(path, headers=headers)
    assert (answer.status_code, answer.content) == (expected.status_code, b"")
    left_out = ("date", "x-model-version")
    assert [pair for pair in answer.headers.items() if pair[0] not in left_out] == [
        pair for pair in expected.headers.items() if pair[0] not in left_out
    ]


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics", "/load"])
def test_head_of_the_admin_port(api, path):
    url = f"http://127.0.0.1:{api.admin_port}{path}"
    answer = httpx.head(url)
    assert (answer.status_code, answer.content) == (200, b"")
    assert int(answer.headers["content-length"]) > 0


def test_head_of_an_endless_stream_ends(api, client):
    answer = client.head("/endless")
    assert (answer.status_code, answer.content) == (200, b"")
    api.until((api.project / "closed").exists)


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("POST", "/docs", "GET, HEAD"),
        ("POST", "/openapi.json", "GET, HEAD"),
        ("DELETE", "/info", "GET, HEAD"),
        ("POST", "/v2/health/live", "GET, HEAD"),
        ("PUT", "/v2/models/tested/infer", "POST"),
        ("HEAD", "/embed", "POST"),
        ("DELETE", "/items/7", "GET, HEAD"),
    ],
)
def test_a_wrong_method_gets_the_right_ones(client, method, path, allowed):
    answer = client.request(method, path)
    assert (answer.status_code, answer.headers["allow"]) == (405, allowed)
    if method != "HEAD":
        assert allowed in answer.json()["error"]
        assert method in answer.json()["error"]
