"""What surrounds a body has limits of its own: request lines, headers, chunk extensions and trailers."""

import asyncio
import contextlib

import pytest
from starlette.responses import JSONResponse

from cortex_runtime.http.protocol import GracefulProtocol, InlineProtocol
from cortex_runtime.http.server import plain

REQUEST = b"POST / HTTP/1.1\r\nhost: x\r\n"
CHUNKED = REQUEST + b"transfer-encoding: chunked\r\nconnection: close\r\n\r\n"


class App:
    """Answers with the names of the headers and the size of the body; inline, if the protocol asks for it."""

    async def __call__(self, scope, receive, send):
        size, more = 0, True
        while more:
            message = await receive()
            size, more = size + len(message.get("body", b"")), message.get("more_body", False)
        await JSONResponse([sorted(name.decode() for name, _ in scope["headers"]), size])(
            scope, receive, send
        )

    def find_inline(self, verb, path):
        return self

    def answer_inline(self, endpoint, verb, query, headers, body):
        names = sorted(name.decode() for name, _ in headers)
        return b"application/json", b"", str([names, len(body)]).replace("'", '"').replace(" ", "").encode()


@contextlib.asynccontextmanager
async def server(protocol, **limits):
    """Serve with a protocol, whose class attributes are limits. Yields a function that opens a connection."""
    kind = type("Limited", (protocol,), limits)
    config = plain(App())
    config.load()
    state = type(
        "State", (), {"connections": set(), "tasks": set(), "default_headers": [], "total_requests": 0}
    )()
    loop = asyncio.get_running_loop()
    listening = await loop.create_server(lambda: kind(config, state, {}), "127.0.0.1", 0)
    async with listening:
        yield lambda: asyncio.open_connection(*listening.sockets[0].getsockname())


async def received(reader):
    data = b""
    with contextlib.suppress(ConnectionError):
        while more := await reader.read(65536):
            data += more
    return data


def exchange(protocol, *pieces, **limits):
    """Send pieces one after the other, and return what the server sends until it closes the connection."""

    async def run():
        async with server(protocol, **limits) as connect, asyncio.timeout(20):
            reader, writer = await connect()
            answer = asyncio.create_task(received(reader))
            for piece in pieces:
                if answer.done():
                    break
                writer.write(piece)
                await asyncio.wait([answer], timeout=0.01)
            await answer
            writer.close()
            return answer.result()

    return asyncio.run(run())


BOTH = pytest.mark.parametrize("protocol", [GracefulProtocol, InlineProtocol])


@BOTH
@pytest.mark.parametrize(
    "start", [b"POST /?", REQUEST + b"x-large: ", CHUNKED + b"1;x=", CHUNKED + b"1\r\na\r\n0\r\nx-large: "]
)
def test_an_endless_head_is_refused(protocol, start):
    endless = [b"a" * 1000] * 100
    answer = exchange(protocol, start, *endless, max_head_bytes=10_000)
    assert answer.startswith(b"HTTP/1.1 431 ")
    assert b"larger than 10000 bytes" in answer


@BOTH
def test_a_body_and_many_requests_are_larger_than_the_limit_of_a_head(protocol):
    many = [REQUEST + b"content-length: 1\r\n\r\nx"] * 20
    body = [REQUEST + b"content-length: 5000\r\nconnection: close\r\n\r\n", *[b"a" * 500] * 10]
    answer = exchange(protocol, *many, *body, max_head_bytes=1000)
    assert answer.count(b"HTTP/1.1 200 OK") == 21
    assert answer.endswith(b"5000]")


@BOTH
@pytest.mark.parametrize("start", [b"", b"\r\n", b"POST / HT", REQUEST])
def test_a_connection_without_a_complete_head_is_closed(protocol, start):
    assert exchange(protocol, start, head_seconds=0.2) == b""


@BOTH
def test_a_slow_head_is_not_extended_by_each_byte(protocol):
    pieces = [bytes([each]) for each in REQUEST + b"x" * 100]
    assert exchange(protocol, *pieces, head_seconds=0.2) == b""


@BOTH
def test_a_request_may_run_longer_than_the_time_for_its_head(protocol):
    answer = exchange(protocol, CHUNKED, *[b"1\r\na\r\n"] * 50, b"0\r\n\r\n", head_seconds=0.2)
    assert answer.endswith(b"50]")


@BOTH
@pytest.mark.parametrize("pieces", [1, 2])
def test_trailers_are_not_headers(protocol, pieces):
    parts = [CHUNKED, b"1\r\na\r\n0\r\nx-user: admin\r\n\r\n"]
    answer = exchange(protocol, *(parts if pieces == 2 else [b"".join(parts)]))
    assert answer.endswith(b'[["connection","host","transfer-encoding"],1]')
