"""WebSockets of a handler, in a running replica."""

import threading
from collections.abc import Callable

import pytest

from ..conftest import Replica

SOURCE = """
import asyncio
from cortex_runtime import UserError, route

class Handler:
    @route("/chat", method="WEBSOCKET")
    async def chat(self, websocket):
        await websocket.accept()
        async for text in websocket.iter_text():
            if text == "wait":
                await asyncio.sleep(0.5)
            if text == "user":
                raise UserError("not so")
            if text == "error":
                raise RuntimeError("secret")
            if text == "done":
                return
            await websocket.send_text(text.upper())

    @route("/kinds/{kind}", method="WEBSOCKET")
    async def kinds(self, websocket, kind):
        await websocket.accept()
        receive = {"bytes": websocket.receive_bytes, "json": websocket.receive_json}[kind]
        while True:
            await websocket.send_text(str(await receive()))

    @route("/rooms/{name}", method="WEBSOCKET")
    async def room(self, websocket, name):
        if name == "closed":
            raise UserError("this room is closed", 403)
        await websocket.accept()
        await websocket.send_json({"room": name})
"""


@pytest.fixture(scope="module")
def replica(serve_for_module: Callable[..., Replica]) -> Replica:
    return serve_for_module(SOURCE)


def websocket(replica, path, **more):
    from websockets.sync.client import connect

    return connect(f"ws://127.0.0.1:{replica.port}{path}", proxy=None, **more)


def closed():
    from websockets.exceptions import ConnectionClosed

    return ConnectionClosed


def refused():
    from websockets.exceptions import InvalidStatus

    return InvalidStatus


def test_a_websocket(replica):
    with websocket(replica, "/chat", additional_headers={"x-request-id": "my-id"}) as chat:
        assert chat.response.headers["x-request-id"] == "my-id"
        chat.send("hello")
        assert chat.recv(60) == "HELLO"
        replica.until(lambda: replica.metric("cortex_requests_in_flight") == 1)
    replica.until(lambda: replica.metric("cortex_requests_in_flight") == 0)
    with websocket(replica, "/rooms/a%20b") as room:
        assert room.recv(60) == '{"room":"a b"}'
    line = 'cortex_route_requests_total{method="WEBSOCKET",route="/rooms/{name}",status="101"}'
    replica.until(lambda: replica.metric(line) == 1)


@pytest.mark.parametrize(
    ("text", "code", "reason"),
    [("done", 1000, ""), ("user", 1008, "not so"), ("error", 1011, "internal server error")],
)
def test_a_websocket_is_closed_with_a_code(replica, text, code, reason):
    with websocket(replica, "/chat") as chat:
        chat.send(text)
        with pytest.raises(closed()) as error:
            chat.recv(60)
        assert (error.value.rcvd.code, error.value.rcvd.reason) == (code, reason)


@pytest.mark.parametrize(
    ("path", "status", "text"),
    [("/rooms/closed", 403, "this room is closed"), ("/nowhere", 404, "/nowhere not found")],
)
def test_a_websocket_is_refused_with_a_status(replica, path, status, text):
    with pytest.raises(refused()) as error, websocket(replica, path):
        pass
    assert error.value.response.status_code == status
    assert text in error.value.response.body.decode()


def test_a_websocket_requires_a_key_and_counts_against_the_limit(serve, tmp_path, monkeypatch):
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys" / "a").write_text("secret")
    monkeypatch.setenv("CORTEX_API_KEYS", str(tmp_path / "keys"))
    replica = serve(SOURCE, apiKeys={"secret": {"name": "keys"}}, maxReplicaConcurrency=1)
    key = {"additional_headers": {"x-api-key": "secret"}}
    with pytest.raises(refused()) as error, websocket(replica, "/chat"):
        pass
    assert error.value.response.status_code == 401
    with websocket(replica, "/chat", **key) as chat:
        chat.send("a")
        assert chat.recv(60) == "A"
        with pytest.raises(refused()) as error, websocket(replica, "/chat", **key):
            pass
        assert error.value.response.status_code == 503


def test_a_replica_that_stops_lets_a_websocket_finish_its_message(serve):
    replica = serve(SOURCE, "--drain-delay", "0", processesPerReplica=2)
    with websocket(replica, "/chat") as busy, websocket(replica, "/chat") as idle:
        idle.send("a")
        assert idle.recv(60) == "A"
        busy.send("wait")
        # The server has the message, because it answers a ping that follows.
        assert busy.ping().wait(60)
        stopping = threading.Thread(target=replica.process.terminate)
        stopping.start()
        with pytest.raises(closed()) as error:
            idle.recv(60)
        assert error.value.rcvd.code == 1012
        assert busy.recv(60) == "WAIT"
        with pytest.raises(closed()) as error:
            busy.recv(60)
        assert error.value.rcvd.code == 1012
        stopping.join()
    assert replica.process.wait(60) == 0


@pytest.mark.parametrize(
    ("path", "valid", "invalid", "code", "reason"),
    [
        ("/chat", "a", b"a", 1003, "the message must be text"),
        ("/kinds/bytes", b"a", "a", 1003, "the message must be binary"),
        ("/kinds/json", "[1]", b"[1]", 1003, "the message must be text"),
        ("/kinds/json", "[1]", "{", 1007, "the message is not valid JSON"),
        ("/kinds/json", "[1]", "[" * 100_000, 1007, "the message is not valid JSON"),
    ],
)
def test_a_message_of_the_wrong_kind_is_no_error_of_the_handler(replica, path, valid, invalid, code, reason):
    before = replica.log.read_text().count('"level":"error"')
    with websocket(replica, path) as chat:
        chat.send(valid)
        assert chat.recv()
        chat.send(invalid)
        with pytest.raises(closed()) as ended:
            chat.recv()
    assert (ended.value.rcvd.code, ended.value.rcvd.reason) == (code, reason)
    assert replica.log.read_text().count('"level":"error"') == before
