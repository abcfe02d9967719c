"""Properties of every route of a protocol, independent of its endpoint."""

import asyncio
import selectors
import threading
from types import SimpleNamespace

import httpx
import pytest
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, PlainTextResponse, StreamingResponse
from starlette.routing import Mount, Route

from cortex_runtime.errors import StartError, UserError
from cortex_runtime.handler.interfaces import Method
from cortex_runtime.handler.threads import Threads
from cortex_runtime.http.api_keys import ApiKeys
from cortex_runtime.logs.access_log import AccessLog
from cortex_runtime.metrics.prometheus import families
from cortex_runtime.metrics.series import NamedSeries, merge
from cortex_runtime.metrics.shared_memory import SharedMetrics
from cortex_runtime.serving import protocols
from cortex_runtime.serving.app import App
from cortex_runtime.serving.endpoint import Limits
from cortex_runtime.serving.handler_service import HandlerService

MAX_BODY, TIMEOUT = 1000, 60.0
released = threading.Event()


def double(payload):
    if payload == "wait":
        released.wait(2 * TIMEOUT)
    return {"double": 2 * payload}


class SkippingSelector(selectors.DefaultSelector):
    """Instead of waiting for the next timer, it advances the time."""

    time = 0.0

    def select(self, timeout=None):
        ready = super().select(0 if timeout else timeout)
        if timeout and not ready:
            self.time += timeout
        return ready


def skipping_loop():
    """Return an event loop that waits for no timer, so that time limits do not depend on the speed of the machine."""
    selector = SkippingSelector()
    loop = asyncio.SelectorEventLoop(selector)
    loop.time = lambda: selector.time
    return loop


def run_without_waits(main):
    with asyncio.Runner(loop_factory=skipping_loop) as runner:
        return runner.run(main)


def routes(service):
    method = service.endpoint(Method(double, ("payload",), is_async=False))

    async def echo(request):
        return PlainTextResponse(await request.body())

    async def read(request):
        return PlainTextResponse(await service.read(request))

    async def call(request):
        result = await method.call({"payload": await request.json()}, request.receive)
        return JSONResponse({"called": result})

    async def fail(request):
        case = request.path_params["case"]
        if case == "user":
            raise UserError("not so", 422)
        if case == "http":
            raise HTTPException(409, {"a": 1}, {"x-own": "1"})
        if case == "hang":
            await asyncio.Event().wait()
        raise RuntimeError("secret")

    async def stream(request):
        async def parts():
            for _ in range(4):
                await asyncio.sleep(0.3 * TIMEOUT)
                yield "x"

        return StreamingResponse(parts())

    async def mounted(scope, receive, send):
        await PlainTextResponse(scope["path"])(scope, receive, send)

    return [
        Route("/echo", echo, methods=["POST"]),
        Route("/read", read, methods=["POST"]),
        Route("/call", call, methods=["POST"]),
        Route("/double", method, methods=["POST"]),
        Route("/fail/{case}", fail),
        Route("/stream", stream),
        Mount("/mounted", mounted),
    ]


@pytest.fixture
def serve(monkeypatch):
    monkeypatch.setattr(protocols, "routes", routes)

    def make(limit=10, keys=None):
        shared = SharedMetrics.create(1)
        metrics, series = shared.worker(0), NamedSeries(shared.series_region(0))
        document = SimpleNamespace(spec=SimpleNamespace(handler=SimpleNamespace(debug=False, docs=False)))
        root = Method(lambda: "root", (), is_async=False)
        handler = SimpleNamespace(
            methods={"GET": root},
            infer=None,
            client=None,
            tracker=None,
            series=series,
            document=document,
            may_wait=False,
            routes=(),
            openai={},
        )
        service = HandlerService(handler, Threads(2, metrics), metrics, Limits(MAX_BODY, TIMEOUT))
        app = App(service, limit=limit, access=AccessLog("error"), keys=keys)
        return app, shared

    return make


def request(app, method, path, run=asyncio.run, **more):
    async def main():
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await client.request(method, path, **more)

    return run(main())


@pytest.mark.parametrize(
    ("method", "path", "content", "status", "body"),
    [
        ("POST", "/echo", b"abc", 200, "abc"),
        ("POST", "/read", b"abc", 200, "abc"),
        ("POST", "/call", b"4", 200, '{"called":{"double":8}}'),
        ("GET", "/mounted/a", None, 200, "/mounted/a"),
    ],
)
def test_a_protocol_answers_with_starlette(serve, method, path, content, status, body):
    app, _ = serve()
    answer = request(app, method, path, content=content, headers={"x-request-id": "my-id"})
    assert (answer.status_code, answer.text) == (status, body)
    assert answer.headers["x-request-id"] == "my-id"
    assert "connection" not in answer.headers


def test_an_endpoint_of_the_handler_is_a_route(serve):
    app, _ = serve()
    answer = request(app, "POST", "/double", json=4)
    assert (answer.status_code, answer.json()) == (200, {"double": 8})


@pytest.mark.parametrize(
    ("method", "path", "content", "status", "error"),
    [
        ("GET", "/fail/user", None, 422, "not so"),
        ("GET", "/fail/http", None, 409, {"a": 1}),
        ("GET", "/fail/any", None, 500, "internal server error"),
        ("GET", "/fail/hang", None, 504, "the request took longer than 60 s (requestTimeout)"),
        ("POST", "/call", b'"wait"', 504, "the request took longer than 60 s (requestTimeout)"),
        ("POST", "/echo", b"x" * 1001, 413, "the body is larger than the limit of 1000 bytes (maxBodySize)"),
        ("POST", "/call", b"0" * 1001, 413, "the body is larger than the limit of 1000 bytes (maxBodySize)"),
        ("GET", "/nowhere", None, 404, "/nowhere not found; the API is at /"),
        ("GET", "/echo/", None, 404, "/echo/ not found; the API is at /"),
        ("GET", "/echo", None, 405, "GET is not allowed for /echo; use POST"),
    ],
)
def test_every_exception_is_an_error_with_the_request_id(serve, method, path, content, status, error):
    app, shared = serve()
    run = run_without_waits if status == 504 else asyncio.run
    released.clear()
    answer = request(app, method, path, run, content=content)
    released.set()
    assert (answer.status_code, answer.json()["error"]) == (status, error)
    assert answer.json()["requestId"] == answer.headers["x-request-id"]
    assert list(shared.requests()) == [(method, status, 1)]
    assert shared.in_flight() == 0


def test_a_body_without_a_length_is_limited(serve):
    async def chunks():
        for _ in range(11):
            yield b"x" * 100

    app, _ = serve()
    assert request(app, "POST", "/echo", content=chunks()).status_code == 413


def test_the_time_limit_applies_to_each_part_of_a_response(serve):
    app, _ = serve()
    assert request(app, "GET", "/stream", run_without_waits).text == "xxxx"


def test_the_time_that_a_slow_client_takes_is_not_limited(serve):
    sent = []

    async def send(message):
        await asyncio.sleep(1.5 * TIMEOUT)
        sent.append(message)

    async def receive():
        return {"type": "http.request", "body": b"", "more_body": False}

    scope = {
        "type": "http",
        "method": "GET",
        "path": "/mounted/a",
        "root_path": "",
        "headers": [],
        "query_string": b"",
    }
    app, _ = serve()
    run_without_waits(app(scope, receive, send))
    assert (sent[0]["status"], sent[1]["body"]) == (200, b"/mounted/a")


def test_a_full_replica_refuses_each_route(serve):
    app, shared = serve(limit=1)
    shared.worker(0).start_request()
    answer = request(app, "POST", "/echo")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")


def test_each_route_requires_a_key(serve, tmp_path):
    (tmp_path / "key").write_text("secret")
    app, _ = serve(keys=ApiKeys(tmp_path, "api", "keys"))
    for path in ("/mounted/a", "/stream", "/nowhere", "/"):
        assert request(app, "GET", path).status_code == 401
    assert request(app, "GET", "/mounted/a", headers={"x-api-key": "secret"}).status_code == 200


def test_a_draining_worker_closes_the_connections_of_each_route(serve):
    app, _ = serve()
    app.draining = True
    assert request(app, "GET", "/mounted/a").headers["connection"] == "close"


def test_metrics_have_the_template_of_the_route_and_nothing_that_a_client_chooses(serve):
    app, shared = serve()
    for path in ("/fail/user", "/fail/http", "/mounted/a", "/mounted/b", "/nowhere/1", "/nowhere/2"):
        request(app, "GET", path)
    found = {
        (sample.labels["route"], sample.labels["status"]): sample.value
        for family in families(merge([shared.series_region(0)]))
        for sample in family.samples
        if sample.name == "cortex_route_requests_total"
    }
    assert found == {("/fail/{case}", "422"): 1, ("/fail/{case}", "409"): 1, ("/mounted", "200"): 2}


def test_batching_without_a_method_cannot_start(serve):
    service = HandlerService(
        SimpleNamespace(may_wait=False), SimpleNamespace(size=1), None, Limits(1, 1.0), SimpleNamespace()
    )
    with pytest.raises(StartError, match="serverSideBatching needs a method handle_post"):
        service.batcher(None)
