"""A connection, frame by frame: what a correct client may do, and how a wrong one is stopped."""

import asyncio
import contextlib
import gzip
import socket
import struct
import zlib

import grpc
import pytest

from cortex_runtime.http2.call import Code, Method, Status
from cortex_runtime.http2.connection import PREFACE
from cortex_runtime.http2.hpack import Decoder, encode
from cortex_runtime.http2.server import Server

DATA, HEADERS, RST, SETTINGS, PING, GOAWAY, WINDOW, CONTINUATION = 0, 1, 3, 4, 6, 7, 8, 9
END_STREAM, ACK, END_HEADERS, PADDED, PRIORITIZED = 1, 1, 4, 8, 32
LIMIT = 2**20
REQUEST = [
    (b":method", b"POST"),
    (b":scheme", b"http"),
    (b":path", b"/test/Echo"),
    (b":authority", b"x"),
    (b"te", b"trailers"),
    (b"content-type", b"application/grpc"),
]


async def echo(message, call):
    if message == b"fail":
        raise Status(Code.INVALID_ARGUMENT, "ü: 100% wrong\n")
    if message == b"bug":
        raise RuntimeError("secret")
    if message == b"wait":
        await asyncio.sleep(30)
    return message


async def until(condition):
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - the server has no event for it
            await asyncio.sleep(0.01)


async def repeat(call):
    while (message := await call.receive()) is not None:
        await call.send(message)
        await call.send(message)


METHODS = {b"/test/Echo": Method(unary=echo), b"/test/Repeat": Method(stream=repeat)}


def frame(kind, flags, stream, payload=b""):
    return len(payload).to_bytes(3) + bytes((kind, flags)) + stream.to_bytes(4) + payload


def message(content):
    return b"\0" + len(content).to_bytes(4) + content


class Client:
    """Writes frames and reads those of the server."""

    def __init__(self, port):
        self.port = port
        self.decoder = Decoder()

    async def __aenter__(self):
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self.port)
        return self

    async def __aexit__(self, *_):
        self.writer.close()

    def write(self, *frames):
        self.writer.write(b"".join(frames))

    def greet(self, settings=b""):
        self.write(PREFACE, frame(SETTINGS, 0, 0, settings))

    def request(self, stream, content, headers=REQUEST, path=None):
        headers = [(n, path if path and n == b":path" else v) for n, v in headers]
        self.write(
            frame(HEADERS, END_HEADERS, stream, encode(headers)),
            frame(DATA, END_STREAM, stream, message(content)),
        )

    async def frame(self):
        async with asyncio.timeout(10):
            head = await self.reader.readexactly(9)
            payload = await self.reader.readexactly(int.from_bytes(head[:3]))
        return head[3], head[4], int.from_bytes(head[5:]), payload

    async def until(self, kind, stream=None):
        """The next frame of a kind; the others before it are skipped."""
        while True:
            found = await self.frame()
            if found[0] == kind and stream in (None, found[2]) and not (kind == SETTINGS and found[1] & ACK):
                return found

    async def response(self, stream):
        """Headers, messages and trailers of a stream."""
        headers, content, trailers = {}, b"", {}
        while True:
            kind, flags, number, payload = await self.frame()
            if number != stream:
                continue
            if kind == HEADERS:
                found = dict(self.decoder.decode(payload))
                headers, trailers = (headers, found) if headers else (found, found)
            elif kind == DATA:
                content += payload
            if flags & END_STREAM:
                return headers, content, trailers

    async def violation(self):
        """The code of the GOAWAY with which the server ends the connection."""
        *_, payload = await self.until(GOAWAY)
        # The server closes the connection without reading the rest, so it may be reset.
        with contextlib.suppress(ConnectionResetError):
            assert await self.reader.read() == b""
        return int.from_bytes(payload[4:8])


@pytest.fixture
async def server():
    server = Server(METHODS, LIMIT)
    listener = socket.create_server(("127.0.0.1", 0))
    server.port = listener.getsockname()[1]
    server.start(listener)
    yield server
    for connection in list(server.connections):
        connection.transport.abort()
    await server.stop(5)


@pytest.fixture
async def client(server):
    async with Client(server.port) as client:
        yield client


@pytest.fixture
async def channel(server):
    async with grpc.aio.insecure_channel(
        f"127.0.0.1:{server.port}", options=[("grpc.max_receive_message_length", -1)]
    ) as channel:
        yield channel


def call(channel, content, **more):
    return channel.unary_unary("/test/Echo")(content, timeout=20, **more)


@pytest.mark.parametrize("size", [0, 1, 16384, 70000, LIMIT])
async def test_messages_of_each_size(channel, size):
    content = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    assert await call(channel, content) == content


async def test_many_calls_at_once(channel):
    contents = [b"%d" % number * 3000 for number in range(100)]
    assert await asyncio.gather(*(call(channel, content) for content in contents)) == contents


@pytest.mark.parametrize("compression", [grpc.Compression.Gzip, grpc.Compression.Deflate])
async def test_compressed_messages(channel, compression):
    assert await call(channel, b"x" * 100000, compression=compression) == b"x" * 100000


async def test_a_stream_in_both_directions(channel):
    stream = channel.stream_stream("/test/Repeat")(timeout=20)
    for number in range(50):
        content = b"%d" % number * 9000
        await stream.write(content)
        assert [await stream.read(), await stream.read()] == [content, content]
    await stream.done_writing()
    assert await stream.read() == grpc.aio.EOF


async def test_a_client_that_does_not_read_makes_the_handler_wait(server, channel):
    stream = channel.stream_stream("/test/Repeat")(timeout=60)
    content = b"x" * 500_000
    for _ in range(12):
        await stream.write(content)
    await stream.done_writing()
    received = []
    while (part := await stream.read()) is not grpc.aio.EOF:
        received.append(len(part))
    assert received == [500_000] * 24


@pytest.mark.parametrize(
    ("content", "code", "details"),
    [
        (b"fail", grpc.StatusCode.INVALID_ARGUMENT, "ü: 100% wrong\n"),
        (b"bug", grpc.StatusCode.INTERNAL, "internal server error"),
        (b"x" * (LIMIT + 1), grpc.StatusCode.RESOURCE_EXHAUSTED, "maxBodySize"),
    ],
)
async def test_statuses(channel, content, code, details):
    with pytest.raises(grpc.RpcError) as caught:
        await call(channel, content)
    assert caught.value.code() == code
    assert details in caught.value.details()
    assert await call(channel, b"next") == b"next"


async def test_an_unknown_method(channel):
    with pytest.raises(grpc.RpcError) as caught:
        await channel.unary_unary("/test/Nothing")(b"", timeout=20)
    assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED


async def test_a_cancelled_call_ends(server, channel):
    waiting = call(channel, b"wait")
    await until(lambda: any(connection.calls for connection in server.connections))
    waiting.cancel()
    await until(lambda: not any(connection.calls for connection in server.connections))
    assert await call(channel, b"next") == b"next"


async def test_draining_lets_calls_end_and_then_closes(server, client):
    client.greet()
    client.request(1, b"wait")
    client.write(frame(HEADERS, END_HEADERS, 3, encode(REQUEST)))
    await until(lambda: any(len(connection.calls) == 2 for connection in server.connections))
    stopping = asyncio.create_task(server.stop(20))
    *_, payload = await client.until(GOAWAY)
    assert int.from_bytes(payload[:4]) == 2**31 - 1
    *_, ping = await client.until(PING)
    client.write(frame(PING, ACK, 0, ping))
    *_, payload = await client.until(GOAWAY)
    assert int.from_bytes(payload[:4]) == 3
    # Calls that are open go on; a new one is not answered.
    client.request(5, b"late")
    client.write(frame(DATA, END_STREAM, 3, message(b"last")))
    assert (await client.response(3))[1] == message(b"last")
    client.write(frame(RST, 0, 1, (8).to_bytes(4)))
    await stopping
    assert await client.reader.read() == b""


async def test_refused_connections_after_the_stop(server):
    await server.stop(5)
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", server.port)


async def test_a_response_waits_for_the_windows_of_the_client(client):
    client.greet(struct.pack(">HI", 4, 10))
    client.request(1, b"x" * 30)
    assert (await client.until(DATA))[3] == message(b"x" * 30)[:10]
    client.write(frame(WINDOW, 0, 1, (5).to_bytes(4)))
    assert (await client.until(DATA))[3] == message(b"x" * 30)[10:15]
    # A new initial window changes those of open streams.
    client.write(frame(SETTINGS, 0, 0, struct.pack(">HI", 4, 1000)))
    assert (await client.until(DATA))[3] == message(b"x" * 30)[15:]
    kind, flags, _, _ = await client.frame()
    while kind != HEADERS:
        kind, flags, _, _ = await client.frame()
    assert flags & END_STREAM


async def test_padding_priority_and_continuations(client):
    client.greet()
    block = encode(REQUEST)
    client.write(
        frame(HEADERS, PADDED | PRIORITIZED, 1, b"\3" + b"\0" * 5 + block[:20] + b"\0" * 3),
        frame(CONTINUATION, 0, 1, block[20:40]),
        frame(CONTINUATION, END_HEADERS, 1, block[40:]),
        frame(DATA, PADDED, 1, b"\2" + message(b"abc")[:6] + b"\0\0"),
        frame(DATA, END_STREAM, 1, message(b"abc")[6:]),
    )
    headers, content, trailers = await client.response(1)
    assert headers[b":status"] == b"200"
    assert content == message(b"abc")
    assert trailers == {b"grpc-status": b"0"}


async def test_frames_in_pieces_of_one_byte(client):
    block = PREFACE + frame(SETTINGS, 0, 0) + frame(HEADERS, END_HEADERS, 1, encode(REQUEST))
    for byte in block + frame(DATA, END_STREAM, 1, message(b"abc")):
        client.write(bytes((byte,)))
        await asyncio.sleep(0)
    assert (await client.response(1))[1] == message(b"abc")


async def test_pings_and_settings_are_acknowledged(client):
    client.greet()
    client.write(frame(PING, 0, 0, b"12345678"))
    assert await client.until(PING) == (PING, ACK, 0, b"12345678")


async def test_frames_of_a_kind_that_is_not_known_are_ignored(client):
    client.greet()
    client.write(frame(0xFA, 0xFF, 7, b"any"))
    client.request(1, b"abc")
    assert (await client.response(1))[1] == message(b"abc")


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ([(n, b"text/plain" if n == b"content-type" else v) for n, v in REQUEST], b"415", None),
        ([(n, b"GET" if n == b":method" else v) for n, v in REQUEST], b"415", None),
        ([*REQUEST, (b"grpc-encoding", b"br")], b"200", b"12"),
    ],
)
async def test_requests_that_are_not_served(client, headers, status, code):
    client.greet()
    client.write(frame(HEADERS, END_HEADERS, 1, encode(headers)))
    client.write(frame(DATA, END_STREAM, 1, b"\1" + message(b"abc")[1:]))
    found, _, trailers = await client.response(1)
    assert found[b":status"] == status
    assert trailers.get(b"grpc-status") == code


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"", b"13"),
        (b"\0\0\0", b"13"),
        (message(b"abc")[:-1], b"13"),
        (message(b"a") + message(b"b"), b"13"),
        (b"\0" + b"\xff" * 4, b"8"),
    ],
)
async def test_content_that_is_not_one_message(client, content, code):
    client.greet()
    client.write(frame(HEADERS, END_HEADERS, 1, encode(REQUEST)), frame(DATA, END_STREAM, 1, content))
    assert (await client.response(1))[2][b"grpc-status"] == code
    client.request(3, b"next")
    assert (await client.response(3))[1] == message(b"next")


@pytest.mark.parametrize(("encoding", "compress"), [(b"gzip", gzip.compress), (b"deflate", zlib.compress)])
async def test_a_compressed_message_that_is_too_large(client, encoding, compress):
    client.greet()
    content = compress(b"\0" * (LIMIT + 1))
    client.write(
        frame(HEADERS, END_HEADERS, 1, encode([*REQUEST, (b"grpc-encoding", encoding)])),
        frame(DATA, END_STREAM, 1, b"\1" + len(content).to_bytes(4) + content),
    )
    assert (await client.response(1))[2][b"grpc-status"] == b"8"


OPEN = frame(HEADERS, END_HEADERS, 1, encode(REQUEST))


@pytest.mark.parametrize(
    ("frames", "code"),
    [
        ([frame(HEADERS, END_HEADERS, 2, encode(REQUEST))], 1),
        ([frame(HEADERS, END_HEADERS, 0, encode(REQUEST))], 1),
        ([frame(HEADERS, END_HEADERS, 1, b"\xff\xff\xff\xff\xff\xff")], 9),
        ([frame(HEADERS, END_HEADERS, 1, encode(REQUEST[3:]))], 1),
        ([frame(HEADERS, 0, 1, b""), frame(PING, 0, 0, b"12345678")], 1),
        ([frame(HEADERS, 0, 1, b""), frame(DATA, 0, 1, b"")], 1),
        ([frame(HEADERS, 0, 1, b"\0" * 60000), frame(CONTINUATION, 0, 1, b"\0" * 60000)], 11),
        ([frame(CONTINUATION, END_HEADERS, 1, b"")], 1),
        ([frame(DATA, 0, 1, b"abc")], 1),
        ([frame(DATA, 0, 0, b"abc")], 1),
        ([OPEN, frame(DATA, END_STREAM, 1, message(b"wait")), frame(DATA, 0, 1, b"x")], 5),
        ([OPEN, frame(DATA, PADDED, 1, b"\5abc")], 1),
        ([OPEN, OPEN], 1),
        ([frame(SETTINGS, 0, 1)], 6),
        ([frame(SETTINGS, 0, 0, b"123")], 6),
        ([frame(SETTINGS, 0, 0, struct.pack(">HI", 4, 2**31))], 3),
        ([frame(SETTINGS, 0, 0, struct.pack(">HI", 5, 100))], 1),
        ([frame(PING, 0, 0, b"123")], 6),
        ([frame(RST, 0, 0, b"1234")], 6),
        ([frame(WINDOW, 0, 0, b"\0\0\0\0")], 1),
        ([frame(WINDOW, 0, 0, (2**31 - 1).to_bytes(4))], 3),
        ([frame(5, 0, 1, b"1234")], 1),
        ([b"\xff\xff\xff\0\0\0\0\0\1"], 6),
    ],
)
async def test_violations_end_the_connection(server, client, frames, code):
    client.greet()
    client.write(*frames)
    assert await client.violation() == code
    async with Client(server.port) as other:
        other.greet()
        other.request(1, b"abc")
        assert (await other.response(1))[1] == message(b"abc")


@pytest.mark.parametrize("start", [b"GET / HTTP/1.1\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nXX", b"\x16\x03\x01"])
async def test_what_is_not_http_2_is_disconnected(client, start):
    client.write(start)
    await client.until(WINDOW)
    assert await client.reader.read() == b""


async def test_a_flood_of_pings_ends_the_connection(server, client):
    client.greet()
    for _ in range(12):
        client.write(*[frame(PING, 0, 0, b"12345678")] * 1000)
    with contextlib.suppress(ConnectionResetError):
        # Without the flood's end, the server would answer every ping.
        assert len(await client.reader.read()) < 11_000 * 17
    await until(lambda: not server.connections)


async def test_more_data_than_the_window(client):
    client.greet()
    client.write(
        frame(
            HEADERS,
            END_HEADERS,
            1,
            encode([(n, b"/test/Repeat" if n == b":path" else v) for n, v in REQUEST]),
        )
    )
    # The handler does not read while the client does not: its messages fill the windows.
    part = message(b"x" * 900_000)
    for _ in range(40):
        client.write(frame(DATA, 0, 1, part))
    assert await client.violation() == 3
