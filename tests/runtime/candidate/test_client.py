"""The HTTP client for the candidate: connections are reused and renewed, so that all pods get requests."""

import asyncio

import pytest

from cortex_runtime.candidate.client import RENEW_SECONDS, CandidateFailed, Client, Request

REQUEST = Request(
    "POST", "/a%2Fb?x=%20", [(b"x-own", "ä".encode()), (b"connection", b"close")], b"body", "id-1"
)


class Server:
    """Counts connections, and answers every request with `answer`."""

    def __init__(self, answer: bytes = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok") -> None:
        self.answer = answer
        self.connections = self.open = 0
        self.unused = asyncio.Event()
        self.heads: list[bytes] = []

    async def __aenter__(self):
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *error):
        self._server.close()

    async def _serve(self, reader, writer):
        self.connections += 1
        self.open += 1
        self.unused.clear()
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                self.heads.append(head)
                await reader.readexactly(4)
                writer.write(self.answer)
        except asyncio.IncompleteReadError:
            writer.close()
        finally:
            self.open -= 1
            if not self.open:
                self.unused.set()


async def send(client):
    response = await client.send(REQUEST, (("x-added", "yes"),))
    response.close()
    return response


async def test_connections_are_reused_and_renewed(monkeypatch):
    loop, passed = asyncio.get_running_loop(), 0.0
    # Its clock stands still while the requests run.
    start = loop.time()
    monkeypatch.setattr(loop, "time", lambda: start + passed)
    async with Server() as server:
        client = Client("127.0.0.1", server.port)
        for _ in range(5):
            assert (await send(client)).body == b"ok"
        assert server.connections == 1
        passed += RENEW_SECONDS
        for _ in range(5):
            await send(client)
        assert server.connections == 2
        client.close()


async def test_a_request_after_the_end_of_a_split_leaves_no_connection_open():
    async with Server() as server:
        client = Client("127.0.0.1", server.port)
        await send(client)
        client.close()
        assert (await send(client)).body == b"ok"
        await asyncio.wait_for(server.unused.wait(), 10)
        assert server.connections == 2


async def test_a_request_keeps_its_path_and_headers_but_not_those_of_the_connection():
    async with Server() as server:
        client = Client("127.0.0.1", server.port)
        await send(client)
        client.close()
    line, *headers = server.heads[0].decode().split("\r\n")
    assert line == "POST /a%2Fb?x=%20 HTTP/1.1"
    found = dict(each.split(": ", 1) for each in headers if each)
    host = found.pop("Host")
    assert host == f"127.0.0.1:{server.port}"
    assert found == {"x-own": "ä", "x-request-id": "id-1", "x-added": "yes", "Content-Length": "4"}


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n", "status 503"),
        (b"nonsense\r\n\r\n", "ClientResponseError|BadHttpMessage|Expected HTTP"),
        (b"", "ServerDisconnectedError"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nok", "ClientPayloadError"),
    ],
    ids=["503", "invalid", "closed", "truncated"],
)
async def test_a_response_that_is_no_answer_is_a_failure(answer, reason):
    class Closing(Server):
        async def _serve(self, reader, writer):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(self.answer)
            writer.close()

    async with Closing(answer) as server:
        client = Client("127.0.0.1", server.port)
        with pytest.raises(CandidateFailed, match=reason):
            await send(client)
        client.close()
