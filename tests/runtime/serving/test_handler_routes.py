"""A handler with routes of its own, in a running replica: everything that `handle_*` can do, a route can."""

from collections.abc import Callable

import httpx
import pytest

from ..conftest import INLINE, Replica

SOURCE = (
    INLINE
    + """
import asyncio
import dataclasses
from cortex_runtime import UserError, route
from cortex_runtime.handler.inline_policy import InlinePolicy
from starlette.responses import JSONResponse

# However long a call takes on a busy machine, it counts as quick.
InlinePolicy.QUICK = InlinePolicy.SLOW = InlinePolicy.SLOW_AVERAGE = float("inf")


@dataclasses.dataclass
class Box:
    width: float
    depth: float = 1.0


class Application:
    # Any ASGI application; what its lifespan sets up is there when it answers.
    started = False

    async def __call__(self, scope, receive, send):
        if scope["type"] == "lifespan":
            await receive()
            self.started = True
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
        elif scope["path"].endswith("/fail"):
            raise RuntimeError("secret")
        else:
            content = {"path": scope["path"], "root": scope["root_path"], "started": self.started}
            await JSONResponse(content)(scope, receive, send)


class Handler:
    def __init__(self, config, metrics_client):
        self.limit = config["limit"]

    def handle_post(self, payload):
        return {"root": payload}

    @route("/embed")
    def embed(self, payload, query_params, headers):
        if payload == "inline":
            return {"inline": inline()}
        if payload == "callback":
            return "called", lambda: None
        if payload == "user":
            raise UserError("not so", 422)
        if payload == "error":
            raise RuntimeError("secret")
        return {"payload": payload, "query": query_params.get("q"), "own": headers.get("x-own"), "limit": self.limit}

    @route("/typed")
    def typed(self, payload: Box) -> list[float]:
        return {"volume": payload.width * payload.depth, "type": type(payload).__name__, "inline": inline()}

    @route("/typed/later")
    async def typed_later(self, payload: "list[Box]"):
        return [box.width for box in payload]

    @route("/items/{id:int}", method="GET")
    async def item(self, id):
        return {"item": id, "type": type(id).__name__}

    @route("/weights/{weight:float}", method="GET")
    def weight(self, weight):
        return {"weight": weight}

    @route("/items/{id:int}", method="DELETE")
    def delete(self, id):
        return JSONResponse({"deleted": id}, 202, headers={"x-own": "1"})

    @route("/items/new", method="GET")
    def new(self):
        return "new"

    @route("/files/{rest:path}", method="GET")
    def files(self, rest):
        return rest

    @route("/parts", method="GET")
    def parts(self):
        yield from ("a", "b")

    @route("/parts/later", method="GET")
    async def parts_later(self):
        for part in ("a", "b"):
            await asyncio.sleep(0)
            yield part

    @route("/ui", method="MOUNT")
    def ui(self):
        return Application()
"""
)


@pytest.fixture(scope="module")
def replica(serve_for_module: Callable[..., Replica]) -> Replica:
    return serve_for_module(SOURCE, config={"limit": 3})


@pytest.mark.parametrize(
    ("method", "path", "json", "status", "text"),
    [
        ("POST", "/", 1, 200, '{"root":1}'),
        ("POST", "/embed?q=v", 1, 200, '{"payload":1,"query":"v","own":"o","limit":3}'),
        ("POST", "/embed", "callback", 200, "called"),
        ("POST", "/typed/later", [{"width": 2}], 200, "[2.0]"),
        ("GET", "/items/7", None, 200, '{"item":7,"type":"int"}'),
        ("GET", "/weights/" + 300 * "9", None, 200, '{"weight":1e+300}'),
        ("DELETE", "/items/7", None, 202, '{"deleted":7}'),
        ("GET", "/items/new", None, 200, "new"),
        ("GET", "/files/a/b%20c", None, 200, "a/b c"),
        ("GET", "/parts", None, 200, "ab"),
        ("GET", "/parts/later", None, 200, "ab"),
        ("GET", "/ui/a", None, 200, '{"path":"/ui/a","root":"/ui","started":true}'),
    ],
)
def test_a_route_answers(replica, method, path, json, status, text):
    headers = {"x-own": "o", "x-request-id": "my-id"}
    answer = httpx.request(method, replica.url + path, json=json, headers=headers)
    assert (answer.status_code, answer.text) == (status, text)
    assert answer.headers["x-request-id"] == "my-id"


@pytest.mark.parametrize(
    ("method", "path", "json", "status", "error"),
    [
        ("POST", "/embed", "user", 422, "not so"),
        ("POST", "/embed", "error", 500, "internal server error"),
        ("GET", "/embed", None, 405, "GET is not allowed; /embed handles POST"),
        ("PUT", "/", None, 405, "PUT is not allowed; this API handles POST"),
        ("POST", "/items/7", None, 405, "POST is not allowed; /items/{id:int} handles GET, DELETE, HEAD"),
        ("GET", "/items/x", None, 404, "/items/x not found; the API is at /, "),
        ("GET", "/items/" + 5000 * "9", None, 404, f"/items/{73 * '9'} not found; the API is at /, "),
        ("GET", "/weights/" + 400 * "9", None, 404, f"/weights/{71 * '9'} not found; the API is at /, "),
        ("GET", "/ui/fail", None, 500, "internal server error"),
    ],
)
def test_a_route_refuses(replica, method, path, json, status, error):
    answer = httpx.request(method, replica.url + path, json=json)
    assert answer.status_code == status
    assert answer.json()["error"].startswith(error)
    assert answer.json()["requestId"] == answer.headers["x-request-id"]


def test_a_quick_route_runs_inline(replica):
    with httpx.Client() as client:
        url = f"{replica.url}/embed?q=1"
        replica.until(lambda: client.post(url, json="inline").json() == {"inline": True})
        answer = client.post(url, json=2, headers={"x-own": "o"})
        assert answer.json() == {"payload": 2, "query": "1", "own": "o", "limit": 3}
        # A request that cannot be answered inline takes the ASGI path.
        assert client.post(url, json="callback").text == "called"
        assert client.post(url, json="user").status_code == 422
        assert client.post(f"{replica.url}/%65mbed", json=2).status_code == 200


def test_a_typed_payload_is_validated_on_both_ways(replica):
    with httpx.Client() as client:

        def post(content, kind="application/json"):
            return client.post(f"{replica.url}/typed", content=content, headers={"content-type": kind})

        good = b'{"width": 2, "depth": 3}'
        replica.until(lambda: post(good).json() == {"volume": 6, "type": "Box", "inline": True})
        for kind in ("application/json", "application/json; charset=ascii"):
            answer = post(b'{"depth": "x"}', kind)
            assert answer.status_code == 400
            assert answer.json() == {
                "error": "the payload is not valid: width is required; depth must be a valid number, unable to parse "
                "string as a number",
                "fields": [
                    {"path": "width", "problem": "is required"},
                    {
                        "path": "depth",
                        "problem": "must be a valid number, unable to parse string as a number",
                    },
                ],
                "requestId": answer.headers["x-request-id"],
            }
        assert post(b"width=2", "application/x-www-form-urlencoded").json()["volume"] == 2
        assert post(b"{", "application/json").json()["error"].startswith("the body is not valid JSON")


def test_metrics_have_the_route(replica):
    for number in range(3):
        httpx.get(f"{replica.url}/items/{100 + number}")
    line = 'cortex_route_requests_total{method="GET",route="/items/{id:int}",status="200"}'
    replica.wait_metric(line, 3)
    httpx.post(f"{replica.url}/embed", json=1)
    replica.wait_metric('cortex_route_requests_total{method="POST",route="/embed",status="200"}')
    assert "/items/100" not in httpx.get(f"{replica.admin}/metrics").text


def test_info_lists_the_routes(replica):
    assert httpx.get(f"{replica.url}/info").json()["routes"][:3] == [
        "POST /embed",
        "POST /typed",
        "POST /typed/later",
    ]


FAILING = """
from cortex_runtime import route

class Handler:
    @route("/ui", method="MOUNT")
    def ui(self):
        async def failing(scope, receive, send):
            await receive()
            await send({"type": "lifespan.startup.failed", "message": "no database"})
        return failing
"""


def test_an_application_that_cannot_start_is_the_reason_of_the_exit(serve):
    replica = serve(FAILING, wait=False)
    reason, message = replica.cause_of_death()
    assert reason == "HandlerInitError"
    assert message.startswith("ui: the application mounted at /ui failed to start: RuntimeError: no database")
