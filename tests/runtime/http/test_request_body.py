"""Reading a body: its size limit, its time limit, and clients that disconnect early."""

import asyncio
import gzip
import os

import pytest

from cortex_runtime.errors import BodyTooLarge, ClientDisconnected, UserError
from cortex_runtime.http.request_body import decompress, disconnect, is_disconnected, read_body

GONE = {"type": "http.disconnect"}


def part(body, more=False):
    return {"type": "http.request", "body": body, "more_body": more}


class Cycle:
    """A fake of uvicorn's request cycle, with `receive` as a method."""

    def __init__(self, messages, more_body=True, disconnected=False):
        self.messages = list(messages)
        self.more_body = more_body
        self.disconnected = disconnected
        self.timers = 0

    async def receive(self):
        if not self.messages:
            await asyncio.Event().wait()
        return self.messages.pop(0)


def read(messages, limit=10, headers=None, timeout=30, **more):
    return asyncio.run(read_body(Cycle(messages, **more).receive, headers or {}, limit, timeout))


@pytest.mark.parametrize("arrived", [True, False])
@pytest.mark.parametrize(
    ("messages", "body"),
    [
        ([part(b"abc")], b"abc"),
        ([part(b"")], b""),
        ([{"type": "http.request"}], b""),
        ([part(b"0123456789")], b"0123456789"),
    ],
)
def test_a_body_of_one_part(messages, body, arrived):
    assert read(messages, more_body=not arrived) == body


@pytest.mark.parametrize(
    "messages",
    [
        [part(b"abc", True), part(b"def", True), part(b"ghij")],
        [part(b"", True), part(b"abcdefghij", True), part(b"")],
        [part(b"abcdefghij", True), {"type": "http.request"}],
    ],
)
def test_a_body_of_several_parts(messages):
    assert read([*messages, GONE]) == b"abcdefghij"


class Connection:
    """A fake of the server's connection: while the last message is awaited, it collects parts."""

    def __init__(self):
        self.parts = []

    def on_response(self):
        pass

    def collect_body(self, limit):
        return self.parts


class CollectingCycle(Cycle):
    def __init__(self, messages):
        super().__init__(messages)
        self.connection = Connection()
        self.on_response = self.connection.on_response

    async def receive(self):
        if len(self.messages) == 1:
            self.connection.parts += [b"ef", b"gh"]
        return await super().receive()


def test_parts_that_are_collected_after_others_have_arrived_are_read():
    cycle = CollectingCycle([part(b"ab", True), part(b"cd", True), part(b"")])
    assert asyncio.run(read_body(cycle.receive, {}, 10, 30)) == b"abcdefgh"


def test_the_receive_of_another_server_is_also_read():
    async def receive():
        return part(b"abc")

    assert asyncio.run(read_body(receive, {}, 10, 1)) == b"abc"
    assert not is_disconnected(receive)


@pytest.mark.parametrize(
    ("messages", "headers"),
    [
        ([], {b"content-length": b"11"}),
        ([part(b"x" * 11)], {}),
        ([part(b"x" * 6, True), part(b"x" * 5)], {}),
        # The rest of the body is not awaited.
        ([part(b"x" * 6, True), part(b"x" * 5, True)], {}),
        ([part(b"x" * 11, True)], {}),
        ([part(b"x" * 10, True), part(b"", True), part(b"x")], {}),
        ([part(b"x" * 11)], {b"content-length": b"3"}),
    ],
)
@pytest.mark.parametrize("arrived", [True, False])
def test_a_body_over_the_limit_is_refused_as_soon_as_that_is_known(messages, headers, arrived):
    if arrived and len(messages) > 1:
        messages = [part(b"x" * 11)]
    with pytest.raises(BodyTooLarge) as error:
        read(messages, headers=headers, more_body=not arrived)
    assert (error.value.status, error.value.message) == (
        413, "the body is larger than the limit of 10 bytes (maxBodySize)",
    )  # fmt: skip


@pytest.mark.parametrize("declared", [b"10", b"3", b"-11", b"none", b"", "¹²".encode()])
def test_a_body_up_to_the_limit_or_without_a_length_is_read(declared):
    assert read([part(b"abc")], headers={b"content-length": declared}) == b"abc"


@pytest.mark.parametrize("before", [[], [part(b"a", True)], [part(b"a", True), part(b"b", True)]])
def test_a_client_that_leaves(before):
    with pytest.raises(ClientDisconnected):
        read([*before, GONE])
    if not before:
        with pytest.raises(ClientDisconnected):
            read([GONE], more_body=False)


@pytest.mark.parametrize("before", [[], [part(b"a", True)]])
def test_a_body_that_does_not_come_in_time(before):
    with pytest.raises(UserError) as error:
        read(before, timeout=0.0125)
    assert (error.value.status, error.value.message) == (408, "the body did not arrive within 0.0125 s")


def test_whether_the_client_has_left():
    assert is_disconnected(Cycle([], disconnected=True).receive) is True
    assert is_disconnected(Cycle([]).receive) is False
    cycle = Cycle([part(b"a", True), part(b"b"), GONE])
    asyncio.run(asyncio.wait_for(disconnect(cycle.receive), 30))
    assert not cycle.messages


@pytest.mark.parametrize("encoding", [b"gzip", b"x-gzip"])
def test_a_compressed_body_has_the_limit_of_its_content(encoding):
    assert decompress(gzip.compress(b"x" * 10, mtime=0), encoding, 10) == b"x" * 10
    with pytest.raises(BodyTooLarge) as error:
        decompress(gzip.compress(b"x" * 11, mtime=0), encoding, 10)
    assert "limit of 10 bytes" in error.value.message


def test_many_gzip_members():
    member = gzip.compress(b"", mtime=0)
    last = gzip.compress(os.urandom(5000) * 2, mtime=0)
    assert len(decompress(member * 99_999 + last, b"gzip", 10_000)) == 10_000
    with pytest.raises(UserError, match="it has more than 100000 members"):
        decompress(member * 100_000 + last, b"gzip", 10_000)


NOISE = os.urandom(100_000)


@pytest.mark.parametrize(
    ("body", "content"),
    [
        (gzip.compress(NOISE, mtime=0), NOISE),
        (gzip.compress(NOISE * 20, mtime=0), NOISE * 20),
        (gzip.compress(NOISE * 30, mtime=0), NOISE * 30),
        (gzip.compress(NOISE, mtime=0) * 2, NOISE * 2),
        (gzip.compress(NOISE * 41, mtime=0), 413),
        (gzip.compress(NOISE, mtime=0)[:-1], 400),
        (gzip.compress(NOISE, mtime=0)[:-4] + b"\1\0\0\0", 400),
        (gzip.compress(NOISE * 30, mtime=0)[:-4] + b"\1\0\0\0", 400),
    ],
    ids=[
        "short",
        "nearly long",
        "long",
        "two members",
        "too large",
        "truncated",
        "wrong size",
        "wrong size, long",
    ],
)
async def test_large_gzip_bodies(body, content):
    async def receive():
        return {"type": "http.request", "body": body}

    read = read_body(receive, {b"content-encoding": b"gzip"}, 4_000_000, 10)
    if isinstance(content, bytes):
        assert await read == content
    else:
        with pytest.raises(UserError) as raised:
            await read
        assert raised.value.status == content


def test_several_gzip_members_are_one_body():
    members = [gzip.compress(part, mtime=0) for part in (b"ab", b"", b"cd")]
    assert decompress(b"".join(members), b"gzip", 4) == b"abcd"
    assert decompress(b"\0\0".join(members) + b"\0", b"gzip", 4) == b"abcd"
    with pytest.raises(BodyTooLarge):
        decompress(b"".join(members), b"gzip", 3)


@pytest.mark.parametrize("encoding", [b"", b"identity"])
def test_a_body_that_is_not_compressed(encoding):
    assert decompress(b"abc", encoding, 1) == b"abc"


@pytest.mark.parametrize(
    ("body", "encoding", "status", "words"),
    [
        (b"abc", b"br", 415, "content-encoding 'br' is not supported; use gzip"),
        (b"abc", b"\xe9", 415, "content-encoding 'é' is not supported; use gzip"),
        (b"abc", b"gzip", 400, "the body is not valid gzip: it is truncated"),
        (b"text without compression", b"gzip", 400, "the body is not valid gzip: Error -4 Invalid gzip"),
        (gzip.compress(b"abc" * 99, mtime=0)[:-9], b"gzip", 400, "the body is not valid gzip: it is truncated"),
        (gzip.compress(b"abc", mtime=0)[:-8] + b"\0" * 8, b"gzip", 400, "the body is not valid gzip: Error -6 Incorrect"),
        (gzip.compress(b"abc", mtime=0)[:10] + b"\xff" * 9, b"gzip", 400, "the body is not valid gzip: Error -1 Invalid"),
    ],
)  # fmt: skip
def test_a_compressed_body_that_is_refused(body, encoding, status, words):
    with pytest.raises(UserError) as error:
        decompress(body, encoding, 1000)
    assert error.value.status == status
    assert error.value.message.startswith(words)


@pytest.mark.parametrize("arrived", [True, False])
def test_a_body_that_has_arrived_needs_no_timer(arrived):
    cycle = Cycle([part(b"abc")], more_body=not arrived)

    async def receive(self):
        for _ in range(5):
            await asyncio.sleep(0)
        return await Cycle.receive(self)

    slow = receive.__get__(cycle)
    if arrived:
        assert asyncio.run(read_body(slow, {}, 10, 0)) == b"abc"
    else:
        with pytest.raises(UserError, match="did not arrive within 0 s"):
            asyncio.run(read_body(slow, {}, 10, 0))
