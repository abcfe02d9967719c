"""A server with one of the runtime's protocols, and connections to it."""

import asyncio
import contextlib

import pytest
import uvloop
from starlette.responses import JSONResponse

from cortex_runtime.http.protocol import GracefulProtocol, InlineProtocol
from cortex_runtime.http.server import plain

REQUEST = b"POST / HTTP/1.1\r\nhost: x\r\n"
END = b""
"""As a piece: the client closes its sending side."""


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


class InlineAmongOthers(InlineProtocol):
    """The protocol of a server with several connections, whose requests are answered together."""


def protocols(protocol, app=None, **limits):
    """Return a function that makes the protocol of a connection. limits: class attributes. Requires a running loop."""
    kind = type("Limited", (protocol,), limits)
    config = plain(app or App())
    config.load()
    others = {object()} if protocol is InlineAmongOthers else set()
    state = type(
        "State", (), {"connections": others, "tasks": set(), "default_headers": [], "total_requests": 0}
    )()
    return lambda: kind(config, state, {})


@contextlib.asynccontextmanager
async def server(protocol, app=None, **limits):
    """Serve an application with a protocol, whose class attributes are limits. Yields a function that opens a connection."""
    factory = protocols(protocol, app, **limits)
    listening = await asyncio.get_running_loop().create_server(factory, "127.0.0.1", 0)
    async with listening:
        yield lambda: asyncio.open_connection(*listening.sockets[0].getsockname())


async def received(reader):
    data = b""
    with contextlib.suppress(ConnectionError):
        while more := await reader.read(65536):
            data += more
    return data


def exchange(protocol, *pieces, app=None, **limits):
    """Send pieces one after the other, and return what the server sends until it closes the connection."""

    async def run():
        async with server(protocol, app, **limits) as connect, asyncio.timeout(60):
            reader, writer = await connect()
            answer = asyncio.create_task(received(reader))
            for piece in pieces:
                if answer.done():
                    break
                writer.write(piece) if piece else writer.write_eof()
                await asyncio.wait([answer], timeout=0.01)
            await answer
            writer.close()
            return answer.result()

    return run_on_loop(run())


def run_on_loop(main):
    """Run a coroutine on the event loop of the workers."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main)


BOTH = pytest.mark.parametrize("protocol", [GracefulProtocol, InlineProtocol, InlineAmongOthers])
