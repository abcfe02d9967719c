"""Large bodies that arrive in parts while the application reads them, over a connection, and what follows them."""

import asyncio
import zlib

import pytest
from starlette.responses import JSONResponse

from cortex_runtime.errors import ClientDisconnected
from cortex_runtime.http.request_body import read_body
from tests.runtime.http.connections import BOTH, App, received, run_on_loop, server

BODY = b"".join(b"%08d" % number for number in range(40_000))
HEAD = b"POST /%b HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n%b\r\n"
LAST = HEAD % (b"last", 3, b"connection: close\r\n") + b"abc"


class Reads(App):
    """Answers with the size and a checksum of the body. waits: set when it waits for the second part of a body."""

    def __init__(self):
        self.waits = asyncio.Event()
        self.ended = asyncio.Event()
        self.errors = []

    def find_inline(self, verb, path):
        return None

    async def __call__(self, scope, receive, send):
        try:
            headers = dict(scope["headers"])
            body = await read_body(Receive(receive, self.waits), headers, 10 * len(BODY), 60)
        except ClientDisconnected as error:
            self.errors.append(error)
            self.ended.set()
            return
        await JSONResponse([scope["path"], len(body), zlib.crc32(body)])(scope, receive, send)


class Receive:
    """The receive of a server, which tells when it is called a second time."""

    def __init__(self, receive, second):
        self.__self__ = receive.__self__
        self._receive, self._second, self._calls = receive, second, 0

    async def __call__(self):
        self._calls += 1
        if self._calls == 2:
            self._second.set()
        return await self._receive()


def answers(protocol, first, *later):
    """Send a part of a body, and more when the application waits for it. Returns the bodies of the responses."""

    async def run():
        app = Reads()
        async with server(protocol, app) as connect, asyncio.timeout(60):
            reader, writer = await connect()
            writer.write(first)
            await app.waits.wait()
            for piece in later:
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0)
            answer = await received(reader)
            writer.close()
            return [response.partition(b"\r\n\r\n")[2] for response in answer.split(b"HTTP/1.1 ")[1:]]

    return run_on_loop(run())


def answer(path, body):
    return b'["/%b",%d,%d]' % (path, len(body), zlib.crc32(body))


BODY_ANSWER, LAST_ANSWER = answer(b"body", BODY), answer(b"last", b"abc")
BEGIN = HEAD % (b"body", len(BODY), b"") + BODY[:100]


@BOTH
@pytest.mark.parametrize("size", [7_000, 100_000, len(BODY)])
def test_a_body_in_parts_and_the_requests_after_it(protocol, size):
    rest = BODY[100:] + HEAD % (b"next", 2, b"") + b"ok" + LAST
    pieces = [rest[start : start + size] for start in range(0, len(rest), size)]
    assert answers(protocol, BEGIN, *pieces) == [BODY_ANSWER, answer(b"next", b"ok"), LAST_ANSWER]


@BOTH
def test_a_request_after_a_body_that_ends_with_a_part(protocol):
    assert answers(protocol, BEGIN, BODY[100:50_000], BODY[50_000:], LAST) == [BODY_ANSWER, LAST_ANSWER]


@BOTH
def test_a_request_to_upgrade_after_a_body_is_answered_without_the_upgrade(protocol):
    upgrade = HEAD % (b"upgrade", 4, b"connection: upgrade\r\nupgrade: h2c\r\n") + b"more"
    expected = [BODY_ANSWER, answer(b"upgrade", b"more"), LAST_ANSWER]
    assert answers(protocol, BEGIN, BODY[100:] + upgrade + LAST) == expected


@BOTH
def test_garbage_after_a_body_is_refused_after_the_response(protocol):
    body, refusal = answers(protocol, BEGIN, BODY[100:] + b"\0\r\n\r\n")
    assert body == BODY_ANSWER
    assert b"not valid HTTP" in refusal


@BOTH
def test_a_client_that_leaves_within_a_body(protocol):
    async def run():
        app = Reads()
        async with server(protocol, app) as connect, asyncio.timeout(60):
            _, writer = await connect()
            writer.write(BEGIN)
            await app.waits.wait()
            writer.write(BODY[100:1000])
            writer.close()
            await app.ended.wait()
            assert len(app.errors) == 1

    run_on_loop(run())
