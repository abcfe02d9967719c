"""The server of gRPC, with the client of grpcio and with frames that no client would send."""

import asyncio
import contextlib
import gzip
import os
import struct
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio
import pytest

from cortex_runtime.grpc import server
from cortex_runtime.grpc.application import Application
from cortex_runtime.grpc.calls import Call, CallError, Method
from cortex_runtime.grpc.open_connections import OpenConnections
from cortex_runtime.grpc.server import Http2Server
from cortex_runtime.grpc.status import StatusCode
from cortex_runtime.processes.listener import listen_reserved
from tests.runtime.grpc import http2
from tests.runtime.queues.servers import free_port

MAX_MESSAGE = 4 << 20
UNLIMITED = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


class Served:
    """A running server. events: what its methods have done."""

    def __init__(self, port: int, stop_seconds: float = 60) -> None:
        self.port = port
        self.events: asyncio.Queue[str] = asyncio.Queue()
        self.release = asyncio.Event()
        self.running = 0
        methods = {
            "/test/Echo": Method(unary=self.echo),
            "/test/Headers": Method(unary=self.headers),
            "/test/Fail": Method(unary=self.fail),
            "/test/Refuse": Method(unary=self.refuse),
            "/test/Wait": Method(unary=self.wait),
            "/test/Stream": Method(stream=self.stream),
            "/test/Open": Method(stream=self.open),
        }
        self.server = Http2Server(Application(methods, max_message=MAX_MESSAGE, timeout=60), stop_seconds)

    async def echo(self, message: bytes, call: Call) -> bytes:
        return message

    async def headers(self, message: bytes, call: Call) -> bytes:
        call.set_metadata("x-answer", "yes")
        call.set_metadata("x-second", "too")
        return call.headers[message]

    async def fail(self, message: bytes, call: Call) -> bytes:
        raise ZeroDivisionError("secret")

    async def refuse(self, message: bytes, call: Call) -> bytes:
        call.set_metadata("x-answer", "no")
        raise CallError(StatusCode.NOT_FOUND, "größer 100 %\n")

    async def wait(self, message: bytes, call: Call) -> bytes:
        self.running += 1
        self.events.put_nowait("started")
        try:
            await self.release.wait()
        except asyncio.CancelledError:
            self.events.put_nowait("cancelled")
            raise
        finally:
            self.running -= 1
        return message

    async def stream(self, call: Call) -> None:
        while (message := await call.receive()) is not None:
            await call.send(message)
        self.events.put_nowait("ended")

    async def open(self, call: Call) -> None:
        await call.receive()
        await call.send(b"open")
        await self.wait(b"", call)

    def channel(self, *options: tuple[str, Any]) -> grpc.aio.Channel:
        return grpc.aio.insecure_channel(f"127.0.0.1:{self.port}", [*UNLIMITED, *options])

    async def event(self) -> str:
        return await asyncio.wait_for(self.events.get(), 60)


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    found = Served(free_port())
    await found.server.start(listen_reserved(f"127.0.0.1:{found.port}"))
    yield found
    found.release.set()
    found.server.begin_stop()
    await asyncio.wait_for(found.server.stopped(), 60)


@pytest.fixture
async def channel(served: Served) -> AsyncIterator[grpc.aio.Channel]:
    async with served.channel() as found:
        yield found


async def call(channel: grpc.aio.Channel, method: str, message: bytes = b"", **more: Any) -> bytes:
    return await channel.unary_unary(f"/test/{method}")(message, **{"timeout": 60, **more})


async def error_of(answer: Any) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await answer
    return caught.value


@pytest.mark.parametrize("size", [0, 1, 20_000, 100_000, MAX_MESSAGE])
async def test_a_message_of_any_size_returns(channel, size):
    message = bytes(range(256)) * (size // 256) + bytes(size % 256)
    assert await call(channel, "Echo", message) == message


@pytest.mark.parametrize("coding", [grpc.Compression.Gzip, grpc.Compression.Deflate])
async def test_compressed_messages_are_read(served, coding):
    message = b"abc" * 50_000
    async with grpc.aio.insecure_channel(f"127.0.0.1:{served.port}", compression=coding) as channel:
        assert await call(channel, "Echo", message) == message
        stream = channel.stream_stream("/test/Stream")(iter([message, message]))
        assert [each async for each in stream] == [message, message]


async def test_metadata_arrives_in_both_directions(channel):
    answer = channel.unary_unary("/test/Headers")(b"x-key", metadata=(("x-key", "first"), ("x-key", "value")))
    assert await answer == b"value"
    assert dict(await answer.trailing_metadata()) == {"x-answer": "yes", "x-second": "too"}
    assert await call(channel, "Headers", b"k-bin", metadata=(("k-bin", b"\0\xff\x01"),)) == b"\0\xff\x01"


async def test_errors_have_a_code_details_and_metadata(channel):
    error = await error_of(call(channel, "Refuse"))
    assert (error.code(), error.details()) == (grpc.StatusCode.NOT_FOUND, "größer 100 %\n")
    assert dict(error.trailing_metadata()) == {"x-answer": "no"}
    error = await error_of(call(channel, "Nothing"))
    assert (error.code(), error.details()) == (
        grpc.StatusCode.UNIMPLEMENTED,
        "method /test/Nothing does not exist",
    )
    error = await error_of(call(channel, "Fail"))
    assert (error.code(), error.details()) == (grpc.StatusCode.INTERNAL, "internal error")


async def test_a_message_that_is_too_large_is_refused_and_the_connection_remains(channel):
    waiting = asyncio.create_task(call(channel, "Wait"))
    error = await error_of(call(channel, "Echo", bytes(MAX_MESSAGE + 1)))
    assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert f"({MAX_MESSAGE + 1} vs. {MAX_MESSAGE})" in error.details()
    assert await call(channel, "Echo", b"x") == b"x"
    assert not waiting.done()
    waiting.cancel()


async def test_a_response_arrives_before_the_next_request_of_a_stream(served, channel):
    stream = channel.stream_stream("/test/Stream")()
    for message in (b"a", b"", b"c" * 100_000):
        await stream.write(message)
        assert await asyncio.wait_for(stream.read(), 60) == message
    await stream.done_writing()
    assert await asyncio.wait_for(stream.read(), 60) is grpc.aio.EOF
    assert await served.event() == "ended"


async def test_more_calls_than_http_2_clients_usually_have_run_at_once(served, channel):
    calls = [asyncio.create_task(call(channel, "Wait", b"%d" % number)) for number in range(300)]
    for _ in calls:
        assert await served.event() == "started"
    assert served.running == 300
    served.release.set()
    assert await asyncio.gather(*calls) == [b"%d" % number for number in range(300)]


@pytest.mark.parametrize("method", ["Wait", "Open"])
async def test_a_call_that_the_client_cancels_is_cancelled(served, channel, method):
    if method == "Wait":
        running: Any = channel.unary_unary("/test/Wait")(b"")
    else:
        running = channel.stream_stream("/test/Open")(iter([b""]))
        assert await asyncio.wait_for(running.read(), 60) == b"open"
    assert await served.event() == "started"
    running.cancel()
    assert await served.event() == "cancelled"


async def test_a_call_is_cancelled_at_its_deadline(served, channel):
    for seconds in (0.2, 2, 20):
        error = await error_of(call(channel, "Wait", timeout=seconds))
        assert error.code() == grpc.StatusCode.DEADLINE_EXCEEDED
        # On a busy machine, the deadline may pass before the call has arrived.
        with contextlib.suppress(TimeoutError):
            started = await asyncio.wait_for(served.events.get(), 2)
            break
    assert [started, await served.event()] == ["started", "cancelled"]
    # The server has a clock of its own, for clients that do not cancel.
    async with http2.connect(served.port) as connection:
        connection.call(1, "/test/Wait", grpc_timeout="100m")
        assert (await connection.response(1))[0]["grpc-status"] == "4"
        connection.call(3, "/test/Wait", grpc_timeout="soon")
        assert "grpc-timeout must be" in (await connection.response(3))[0]["grpc-message"]
    assert [await served.event(), await served.event()] == ["started", "cancelled"]


async def test_running_calls_end_before_the_server_stops(served, channel):
    running = asyncio.create_task(call(channel, "Wait", b"last"))
    assert await served.event() == "started"
    served.server.begin_stop()
    async with served.channel(("grpc.use_local_subchannel_pool", 1)) as new:
        error = await error_of(call(new, "Echo"))
    assert error.code() == grpc.StatusCode.UNAVAILABLE
    served.release.set()
    assert await running == b"last"


async def test_calls_that_do_not_end_are_cancelled_after_the_timeout():
    served = Served(free_port(), stop_seconds=0.2)
    await served.server.start(listen_reserved(f"127.0.0.1:{served.port}"))
    async with served.channel() as channel:
        stream = channel.stream_stream("/test/Open")(iter([b""]))
        assert await asyncio.wait_for(stream.read(), 60) == b"open"
        served.server.begin_stop()
        await asyncio.wait_for(served.server.stopped(), 60)
    assert [await served.event(), await served.event()] == ["started", "cancelled"]


async def test_a_server_that_drains_ends_and_counts_connections_and_loses_no_call(served, monkeypatch):
    monkeypatch.setattr(server, "_DRAIN_SECONDS", 0.01)
    connections: asyncio.Queue[None] = asyncio.Queue()
    running = asyncio.create_task(
        call(first := served.channel(("grpc.use_local_subchannel_pool", 1)), "Wait")
    )
    assert await served.event() == "started"
    served.server.drain(lambda: connections.put_nowait(None))
    async with asyncio.timeout(60), served.channel(("grpc.use_local_subchannel_pool", 1)) as channel:
        # One channel has a connection at a time, so each further one follows GOAWAY.
        while connections.qsize() < 4:
            assert await call(channel, "Echo", b"x") == b"x"
    served.release.set()
    assert await running == b""
    await first.close()


async def test_a_server_can_be_stopped_as_soon_as_it_drains(served, channel):
    assert await call(channel, "Echo", b"x") == b"x"
    served.server.drain(lambda: None)
    await asyncio.sleep(0)
    served.server.begin_stop()
    await asyncio.wait_for(served.server.stopped(), 20)
    assert (await error_of(call(channel, "Echo"))).code() == grpc.StatusCode.UNAVAILABLE


async def test_a_connection_stays_open_until_its_client_has_read_that_the_server_stops(monkeypatch):
    """Otherwise, a call that the client sends meanwhile is answered with a reset, and the client cannot send it elsewhere."""
    monkeypatch.setattr(server, "_CLOSE_SECONDS", 60)
    served = Served(free_port())
    await served.server.start(listen_reserved(f"127.0.0.1:{served.port}"))
    async with http2.connect(served.port) as idle, http2.connect(served.port) as used:
        idle.call(1, "/test/Echo", b"x")
        assert (await idle.response(1))[1] == http2.message(b"x")
        used.call(1, "/test/Wait")
        assert await served.event() == "started"
        served.server.begin_stop()
        stopped = asyncio.create_task(served.server.stopped())
        served.release.set()
        # It names the last call that is answered.
        assert int.from_bytes((await idle.wait(http2.GOAWAY))[3][:4]) == 1
        await used.wait(http2.GOAWAY)
        assert await idle.receive() is None
        for stream in (3, 5, 7):
            idle.call(stream, "/test/Echo", b"as if GOAWAY had not been read yet")
            await idle.writer.drain()
        await asyncio.wait({stopped}, timeout=0.2)
        assert not stopped.done()
        assert not idle.is_reset
    await asyncio.wait_for(stopped, 60)


async def test_each_connection_is_kept_once_however_often_a_server_drains(served):
    def sockets():
        found = Counter(_target(each) for each in os.listdir("/proc/self/fd"))
        return Counter({target: count for target, count in found.items() if target.startswith("socket:")})

    kept = OpenConnections()
    async with http2.connect(served.port) as connection:
        await connection.wait(http2.SETTINGS)
        before = sockets()
        for _ in range(3):
            kept.keep(served.port)
        assert (sockets() - before).total() == 1
    await kept.closed(60)


def _target(descriptor: str) -> str:
    """Return what a file descriptor of this process refers to; empty if it was closed."""
    try:
        return os.readlink(f"/proc/self/fd/{descriptor}")
    except OSError:
        return ""


async def test_a_client_that_does_not_close_its_connection_does_not_keep_the_server(monkeypatch):
    monkeypatch.setattr(server, "_CLOSE_SECONDS", 0.1)
    served = Served(free_port())
    await served.server.start(listen_reserved(f"127.0.0.1:{served.port}"))
    async with http2.connect(served.port) as connection:
        await connection.wait(http2.SETTINGS)
        served.server.begin_stop()
        await asyncio.wait_for(served.server.stopped(), 60)
        while await connection.receive() is not None:
            pass


async def test_no_call_is_lost_when_a_server_stops_under_load(served):
    """Clients get GOAWAY and continue with the server that shares the port."""
    second = Served(served.port)
    await second.server.start(listen_reserved(f"127.0.0.1:{served.port}"))
    try:
        channels = [served.channel(("grpc.use_local_subchannel_pool", 1)) for _ in range(8)]
        counts = dict.fromkeys(range(8), 0)

        async def load(number: int) -> None:
            while counts[number] < 150:
                assert await call(channels[number], "Echo", b"x", wait_for_ready=True) == b"x"
                counts[number] += 1
                if sum(counts.values()) == 200:
                    served.server.begin_stop()

        await asyncio.gather(*(load(number) for number in counts))
        await asyncio.gather(*(channel.close() for channel in channels))
    finally:
        second.server.begin_stop()
        await second.server.stopped()


@pytest.mark.parametrize(
    ("more", "status"),
    [
        ({"content_type": "application/json"}, "415"),
        ({"content_type": ""}, "415"),
        ({"te": ""}, "400"),
        ({":method": "GET"}, "405"),
    ],
)
async def test_requests_that_are_not_calls_get_a_status_of_http(served, more, status):
    async with http2.connect(served.port) as connection:
        connection.call(1, "/test/Echo", **more)
        assert (await connection.response(1))[0][":status"] == status


@pytest.mark.parametrize(
    ("content", "more", "code"),
    [
        (b"", {}, "3"),
        (b"\0\0\0", {}, "3"),
        (http2.message(b"abc")[:-1], {}, "3"),
        (http2.message(b"abc", flag=1), {}, "13"),
        (http2.message(b"abc", flag=1), {"grpc_encoding": "gzip"}, "3"),
        (http2.message(gzip.compress(b"abc")[:-9], flag=1), {"grpc_encoding": "gzip"}, "3"),
        (http2.message(b"abc", flag=1), {"grpc_encoding": "br"}, "12"),
        (http2.message(gzip.compress(bytes(MAX_MESSAGE + 1)), flag=1), {"grpc_encoding": "gzip"}, "8"),
        (struct.pack(">BI", 0, 2**32 - 1), {}, "8"),
        (http2.message(b"abc"), {"k_bin": "%"}, "3"),
    ],
)
async def test_invalid_messages_end_the_call_alone(served, content, more, code):
    async with http2.connect(served.port) as connection:
        connection.send(http2.HEADERS, http2.END_HEADERS, 1, http2.headers("/test/Echo", **more))
        connection.send(http2.DATA, http2.END_STREAM, 1, content)
        assert (await connection.response(1))[0]["grpc-status"] == code
        connection.call(3, "/test/Echo", b"still here")
        assert (await connection.response(3))[1] == http2.message(b"still here")


async def test_the_server_prints_nothing(capfd):
    served = Served(free_port())
    await served.server.start(listen_reserved(f"127.0.0.1:{served.port}"))
    async with http2.connect(served.port) as connection:
        connection.call(1, "/test/Refuse")
        assert (await connection.response(1))[0]["grpc-status"] == "5"
        websocket = {":method": "CONNECT", "content_type": "", "te": "", ":protocol": "websocket"}
        connection.call(3, "/test/Echo", **websocket, sec_websocket_version="13")
        assert (await connection.response(3))[0][":status"] == "403"
        connection.send(http2.DATA, 0, 0, b"no stream")
    served.server.begin_stop()
    await asyncio.wait_for(served.server.stopped(), 60)
    printed = capfd.readouterr()
    assert (printed.out, printed.err) == ("", "")


async def test_pings_are_answered_however_many(served):
    async with http2.connect(served.port) as connection:
        for number in range(1000):
            connection.send(http2.PING, 0, 0, number.to_bytes(8))
        for number in range(1000):
            assert (await connection.wait(http2.PING))[3] == number.to_bytes(8)
        connection.call(1, "/test/Echo", b"x")
        assert (await connection.response(1))[1] == http2.message(b"x")


async def test_a_client_that_resets_calls_rapidly_is_disconnected(served):
    async with http2.connect(served.port) as connection:
        for number in range(2000):
            connection.call(2 * number + 1, "/test/Wait")
            connection.send(http2.RST_STREAM, 0, 2 * number + 1, http2.CANCEL.to_bytes(4))
        assert (await connection.wait(http2.GOAWAY))[3][4:8] == http2.ENHANCE_YOUR_CALM.to_bytes(4)
    async with http2.connect(served.port) as connection:
        connection.call(1, "/test/Echo", b"x")
        assert (await connection.response(1))[1] == http2.message(b"x")
    while served.running:
        await served.event()


async def test_the_calls_of_a_connection_are_limited(served):
    async with http2.connect(served.port) as connection:
        settings = (await connection.wait(http2.SETTINGS))[3]
        limit = dict(struct.iter_unpack(">HI", settings))[http2.MAX_CONCURRENT_STREAMS]
        for number in range(limit + 10):
            connection.send(http2.HEADERS, http2.END_HEADERS, 2 * number + 1, http2.headers("/test/Wait"))
        for number in range(limit, limit + 10):
            reset = await connection.wait(http2.RST_STREAM)
            assert reset[2:] == (2 * number + 1, http2.REFUSED_STREAM.to_bytes(4))


async def test_metadata_is_limited(served, channel):
    answer = await call(channel, "Headers", b"x", metadata=(("x", "y" * 6000),))
    assert len(answer) == 6000
    async with http2.connect(served.port) as connection:
        block = http2.headers("/test/Echo", x="y" * 100_000)
        parts = [block[at : at + 16384] for at in range(0, len(block), 16384)]
        connection.send(http2.HEADERS, 0, 1, parts[0])
        for part in parts[1:]:
            connection.send(http2.CONTINUATION, http2.END_HEADERS if part is parts[-1] else 0, 1, part)
        kinds = set()
        while (found := await connection.receive()) is not None:
            kinds.add(found[0])
            if found[0] in (http2.RST_STREAM, http2.GOAWAY):
                break
        assert kinds & {http2.RST_STREAM, http2.GOAWAY}
    assert await call(channel, "Echo", b"x") == b"x"
