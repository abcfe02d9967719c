"""The requests of several connections are answered one after the other, then their responses are sent."""

import asyncio
import socket

import pytest

from cortex_runtime.http.iteration import BufferedTransport, iteration_of
from cortex_runtime.http.protocol import InlineProtocol
from tests.runtime.http.connections import REQUEST, protocols, received, server

POST = REQUEST + b"content-length: 1\r\n\r\nx"


class Transport:
    """The double of a transport, which notes what is called."""

    def __init__(self, events, own_socket=None):
        self.events, self.socket = events, own_socket
        self.closed = False

    def write(self, data):
        self.events.append(data)

    def write_eof(self):
        self.events.append("eof")

    def close(self):
        self.closed = True

    def is_closing(self):
        return self.closed

    def get_extra_info(self, name, default=None):
        return self.socket if name == "socket" else default


class Connection:
    """Writes its name when it is called."""

    def __init__(self, name, events, iteration):
        self.name, self.events = name, events
        self.transport = BufferedTransport(Transport(events), iteration)
        self.failed = False

    def call(self):
        self.events.append(self.name)
        if self.name == "faulty":
            raise RuntimeError("no")
        self.transport.write(self.name.encode())

    def fail(self):
        self.failed = True


async def called(*names):
    """Call connections in one iteration. Returns them and the order of calls (names) and sends (bytes)."""
    events = []
    iteration = iteration_of(asyncio.get_running_loop())
    connections = [Connection(name, events, iteration) for name in names]
    for connection in connections:
        iteration.add_call(connection)
    await asyncio.sleep(0)
    return connections, events


async def test_all_calls_are_made_before_their_responses_are_sent():
    _, events = await called("a", "b", "c")
    assert events == ["a", "b", "c", b"a", b"b", b"c"]


async def test_a_response_waits_for_a_few_calls_only():
    names = [str(number) for number in range(20)]
    _, events = await called(*names)
    groups = names[:8], names[8:16], names[16:]
    assert events == [each for group in groups for each in (*group, *(name.encode() for name in group))]


async def test_a_call_that_fails_disturbs_no_other():
    connections, events = await called("a", "faulty", "c")
    assert events == ["a", "faulty", "c", b"a", b"c"]
    assert [connection.failed for connection in connections] == [False, True, False]


def buffered():
    """Return a buffered transport, the double below it, and what that notes."""
    events = []
    transport = Transport(events)
    return BufferedTransport(transport, iteration_of(asyncio.get_running_loop())), transport, events


async def test_what_is_written_in_one_iteration_is_sent_in_one_piece():
    transport, _, events = buffered()
    transport.write(b"head")
    transport.writelines([b"bo", b"dy"])
    assert events == []
    await asyncio.sleep(0)
    assert events == [b"headbody"]
    await asyncio.sleep(0)
    assert events == [b"headbody"]


async def test_large_data_is_sent_at_once_and_in_order():
    transport, _, events = buffered()
    large = bytes(100_000)
    transport.write(b"head")
    transport.write(large)
    assert events == [b"head", large]


@pytest.mark.parametrize(("end", "event"), [("close", None), ("write_eof", "eof")])
async def test_the_end_comes_after_what_is_written(end, event):
    transport, raw, events = buffered()
    transport.write(b"last")
    getattr(transport, end)()
    assert events == [b"last", event][: 1 if event is None else 2]
    assert raw.closed is (end == "close")


async def test_a_send_that_fails_stops_no_other():
    loop = asyncio.get_running_loop()
    failures = []
    loop.set_exception_handler(lambda _loop, failure: failures.append(failure["exception"]))
    (faulty, raw, _), (transport, _, events) = buffered(), buffered()
    raw.events = None
    faulty.write(b"a")
    transport.write(b"b")
    await asyncio.sleep(0)
    # The next iteration sends what is left.
    await asyncio.sleep(0)
    assert events == [b"b"]
    assert isinstance(failures[0], AttributeError)
    transport.write(b"c")
    await asyncio.sleep(0)
    assert events == [b"b", b"c"]


async def test_nothing_is_sent_on_a_closed_connection():
    transport, raw, events = buffered()
    transport.write(b"late")
    raw.closed = True
    await asyncio.sleep(0)
    assert events == []


async def test_a_request_before_an_invalid_one_is_answered():
    async with server(InlineProtocol) as connect, asyncio.timeout(60):
        _, other = await connect()
        reader, writer = await connect()
        writer.write(POST + b"\0\0\0\r\n\r\n")
        answer = await received(reader)
        assert answer.startswith(b"HTTP/1.1 200 OK")
        assert b"HTTP/1.1 400 " in answer
        other.close()
        writer.close()


async def test_a_client_that_closes_its_sending_side_is_answered():
    async with server(InlineProtocol) as connect, asyncio.timeout(60):
        _, other = await connect()
        reader, writer = await connect()
        writer.write(POST)
        writer.write_eof()
        assert (await received(reader)).endswith(b"1]")
        other.close()
        writer.close()


async def test_a_shutdown_answers_what_has_arrived():
    factory, events = protocols(InlineProtocol), []
    connection, other = factory(), factory()
    with socket.socket() as unconnected:
        for each in (connection, other):
            each.connection_made(Transport(events, unconnected))
        connection.shutdown()
        connection.data_received(POST)
        connection.shutdown()
    (response,) = events
    assert response.startswith(b"HTTP/1.1 200 OK")
    assert connection.transport.is_closing()
    other.connection_lost(None)
    connection.connection_lost(None)


async def test_a_response_is_sent_before_the_loop_closes_the_connection():
    events = []
    connection = protocols(InlineProtocol)()
    connection.connection_made(Transport(events))
    connection.transport.write(b"response")
    assert connection.eof_received() is False
    assert events == [b"response"]
    connection.connection_lost(None)
