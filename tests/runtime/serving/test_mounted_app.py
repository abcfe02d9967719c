"""An application that a handler mounts, in a running replica: it behaves as on a server of its own."""

from collections.abc import Callable

import pytest

from ..conftest import PLAIN, Replica

APPLICATION = """
import asyncio
from contextlib import asynccontextmanager
from cortex_runtime import UserError, route
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, PlainTextResponse, StreamingResponse
from starlette.routing import Route, WebSocketRoute

async def address(request):
    return JSONResponse({
        "root": request.scope["root_path"],
        "url": request.url.path,
        "named": request.url_for("address").path,
        "state": request.state.pool,
    })

async def echo(request):
    return PlainTextResponse(await request.body())

async def careless(request):
    # As FastAPI does with the body of a request.
    try:
        return PlainTextResponse(await request.body())
    except Exception as error:
        raise HTTPException(400, "unreadable") from error

async def refuse(request):
    raise UserError("not so", 422)

async def fail(request):
    raise RuntimeError("secret")

async def parts(request):
    async def content():
        for part in "ab":
            yield part
            await asyncio.sleep(0)
    return StreamingResponse(content())

async def page(request):
    return PlainTextResponse("page of the application")

async def chat(websocket):
    await websocket.accept()
    async for text in websocket.iter_text():
        await websocket.send_text(f"{websocket.state.pool} {text}")

@asynccontextmanager
async def lifespan(app):
    yield {"pool": "pooled"}

def application():
    return Starlette(
        routes=[
            Route("/", address, name="address"),
            Route("/echo", echo, methods=["POST"]),
            Route("/careless", careless, methods=["POST"]),
            Route("/refuse", refuse),
            Route("/fail", fail),
            Route("/parts", parts),
            Route("/docs", page),
            WebSocketRoute("/chat", chat),
        ],
        lifespan=lifespan,
    )
"""
BELOW = (
    APPLICATION
    + """
class Handler:
    @route("/app", method="MOUNT")
    def app(self):
        return application()
"""
)
ROOT = (
    APPLICATION
    + """
class Handler:
    def handle_post(self, payload):
        return payload

    @route("/", method="MOUNT")
    def app(self):
        return application()
"""
)


@pytest.fixture(scope="module")
def below(serve_for_module: Callable[..., Replica]) -> Replica:
    return serve_for_module(BELOW, maxBodySize="1Ki")


@pytest.fixture(scope="module")
def root(serve_for_module: Callable[..., Replica]) -> Replica:
    return serve_for_module(ROOT)


@pytest.mark.parametrize("prefix", ["", "/outside"])
def test_it_knows_the_path_under_which_clients_reach_it(below, root, prefix):
    headers = {"x-forwarded-prefix": prefix} if prefix else {}
    seen = PLAIN.get(f"{below.url}/app/", headers=headers).json()
    assert seen == {
        "root": f"{prefix}/app",
        "url": f"{prefix}/app/",
        "named": f"{prefix}/app/",
        "state": "pooled",
    }
    seen = PLAIN.get(f"{root.url}/", headers=headers).json()
    assert seen == {"root": prefix, "url": f"{prefix}/", "named": f"{prefix}/", "state": "pooled"}


@pytest.mark.parametrize("prefix", ["outside", "//other.example", "/<script>", "/a b"])
def test_a_prefix_that_is_not_a_path_is_ignored(below, prefix):
    assert PLAIN.get(f"{below.url}/app/", headers={"x-forwarded-prefix": prefix}).json()["root"] == "/app"


def test_its_path_without_a_slash_leads_to_it(below):
    answer = PLAIN.get(f"{below.url}/app?a=1", follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (307, "app/?a=1")


@pytest.mark.parametrize(
    ("path", "status", "text"), [("refuse", 422, '"error":"not so"'), ("parts", 200, "ab")]
)
def test_its_responses(below, path, status, text):
    answer = PLAIN.get(f"{below.url}/app/{path}")
    assert answer.status_code == status
    assert text in answer.text


def test_an_exception_is_logged_and_not_sent(below):
    answer = PLAIN.get(f"{below.url}/app/fail")
    assert answer.status_code == 500
    assert "secret" not in answer.text
    below.until(lambda: "RuntimeError: secret" in below.log.read_text())


@pytest.mark.parametrize("path", ["echo", "careless"])
def test_a_body_that_is_too_large_gets_413(below, path):
    def parts():
        yield b"x" * 2000

    for content in (b"x" * 2000, parts()):
        answer = PLAIN.post(f"{below.url}/app/{path}", content=content)
        assert answer.status_code == 413
        assert "maxBodySize" in answer.json()["error"]


def test_it_may_have_websockets(below):
    from websockets.sync.client import connect

    with connect(f"ws://127.0.0.1:{below.port}/app/chat", proxy=None) as websocket:
        websocket.send("a")
        assert websocket.recv() == "pooled a"
    counted = 'cortex_route_requests_total{method="WEBSOCKET",route="/app",status="101"}'
    below.wait_metric(counted)


def test_at_the_root_it_answers_what_no_method_does(root):
    assert PLAIN.post(root.url, json=1).text == "1"
    assert PLAIN.get(f"{root.url}/docs").text == "page of the application"
    assert "interface" in PLAIN.get(f"{root.url}/info").json()
