"""The ASGI messages of a result: complete responses, streams, events, and errors."""

import asyncio
import json
import logging
import threading

import pytest
from starlette.exceptions import HTTPException

from cortex_runtime.errors import ClientDisconnected, HttpError, RequestTimeout, UserError
from cortex_runtime.http import response
from cortex_runtime.http.json_encoder import NotSerializable
from cortex_runtime.http.response import Stream
from cortex_runtime.logs.records import request_id

OURS = [(b"x-request-id", b"id")]


@pytest.mark.parametrize(
    ("value", "kind", "body"),
    [
        ("grün", b"text/plain; charset=utf-8", "grün".encode()),
        (b"\0\xff", b"application/octet-stream", b"\0\xff"),
        (bytearray(b"ab"), b"application/octet-stream", b"ab"),
        (memoryview(b"ab"), b"application/octet-stream", b"ab"),
        ({"a": [1, None]}, b"application/json", b'{"a":[1,null]}'),
        (None, b"application/json", b"null"),
        ((1, 2), b"application/json", b"[1,2]"),
    ],
)
def test_the_content_type_of_a_value(value, kind, body):
    assert response.encode(value) == (kind, body)


def test_invalid_text_is_an_error_for_the_author():
    with pytest.raises(NotSerializable) as error:
        response.encode("a\udcff")
    assert str(error.value) == "result is a str that UTF-8 can't encode: surrogates not allowed"


def test_a_pair_with_a_function_is_a_response_and_its_callback():
    class Pair(tuple):
        __slots__ = ()

    assert response.split_callback((1, print)) == (1, print)
    for value in (1, (1, 2), (print, 1), [1, print], (1, 2, print), (print,), Pair((1, print))):
        assert response.split_callback(value) == (value, None)


def test_iterators_are_streams_and_containers_are_not():
    async def parts():
        yield 1

    assert all(map(response.is_stream, (iter([1]), (x for x in ()), parts(), map(str, ()))))
    assert not any(map(response.is_stream, ([1], (1,), {1: 2}, "ab", b"ab", None, range(3))))


class Client:
    """Receives ASGI messages; disconnects after `leaves_after` of them."""

    def __init__(self, leaves_after=None):
        self.sent = []
        self.leaves_after = leaves_after
        self.left = asyncio.Event()
        if leaves_after == 0:
            self.left.set()

    async def receive(self):
        await self.left.wait()
        return {"type": "http.disconnect"}

    async def send(self, message):
        self.sent.append(message)
        if len(self.sent) == self.leaves_after:
            self.left.set()
        # Like a socket: the task that watches the client gets a turn.
        for _ in range(3):
            await asyncio.sleep(0)


async def in_thread(step):
    return await asyncio.to_thread(step)


def streamed(parts, client=None, timeout=3600, as_events=False, ended=lambda: True):
    """Return (status or exception, what the client received)."""

    async def main():
        receiver = client() if client else Client()
        stream = Stream(parts, in_thread, timeout, as_events)
        try:
            await stream.send(receiver.receive, receiver.send)
            result = 200
        except Exception as error:
            result = error
        # The generator's `finally` has run, although a reference remains.
        assert ended(), parts
        others = asyncio.all_tasks() - {asyncio.current_task()}
        # The task that watches the client ends too.
        _, left = await asyncio.wait(others, timeout=10) if others else ((), ())
        assert not left
        return result, receiver.sent

    return asyncio.run(main())


def body(data, more=True):
    return {"type": "http.response.body", "body": data, **({"more_body": True} if more else {})}


def start(kind, *more, status=200):
    return {"type": "http.response.start", "status": status, "headers": [(b"content-type", kind), *more]}


async def as_async(parts):
    for part in parts:
        yield part


NO_CACHE = (b"cache-control", b"no-cache")
EVENTS = b"text/event-stream; charset=utf-8"


@pytest.mark.parametrize("wrap", [iter, as_async], ids=["sync", "async"])
@pytest.mark.parametrize(
    ("parts", "events", "messages"),
    [
        (["a", "b"], False, [start(b"text/plain; charset=utf-8"), body(b"a"), body(b"b")]),
        ([b"a"], False, [start(b"application/octet-stream"), body(b"a")]),
        ([{"a": 1}, "b"], False, [start(b"application/x-ndjson"), body(b'{"a":1}\n'), body(b"b")]),
        ([], False, [start(b"application/octet-stream")]),
        ([], True, [start(EVENTS, NO_CACHE)]),
        ([None, "x"], True, [start(EVENTS, NO_CACHE), body(b"data: null\n\n"), body(b"data: x\n\n")]),
        (
            ["a\nb\r\nc\rd", b"event: own\n\n"], True,
            [start(EVENTS, NO_CACHE), body(b"data: a\ndata: b\ndata: c\ndata: d\n\n"), body(b"event: own\n\n")],
        ),
    ],
)  # fmt: skip
def test_parts_are_sent_one_by_one(wrap, parts, events, messages):
    assert streamed(wrap(parts), as_events=events) == (200, [*messages, body(b"", more=False)])


class Tracked:
    """A generator function that records the thread in which it was closed."""

    def __init__(self):
        self.closed_in = None
        self.steps = 0

    def parts(self, fail_at=None):
        try:
            for number in range(1000):
                self.steps = number
                if number == fail_at:
                    raise RuntimeError("broken")
                yield "x"
        finally:
            self.closed_in = threading.current_thread()

    async def async_parts(self, fail_at=None):
        for part in self.parts(fail_at):
            yield part


@pytest.mark.parametrize("name", ["parts", "async_parts"])
@pytest.mark.parametrize(("fail_at", "sent"), [(0, 0), (1, 2)])
def test_an_exception_of_the_generator_is_raised_and_nothing_is_sent_before_the_first_part(
    name, fail_at, sent
):
    result, messages = streamed(getattr(Tracked(), name)(fail_at))
    assert (type(result), str(result), len(messages)) == (RuntimeError, "broken", sent)


@pytest.mark.parametrize("name", ["parts", "async_parts"])
@pytest.mark.parametrize("leaves_after", [0, 1, 2, 3])
def test_a_client_that_leaves_ends_the_generator(name, leaves_after):
    tracked = Tracked()
    result, messages = streamed(
        getattr(tracked, name)(),
        lambda: Client(leaves_after),
        ended=lambda: not leaves_after or tracked.closed_in,
    )
    assert type(result) is ClientDisconnected
    assert len(messages) <= max(leaves_after, 2)
    assert tracked.steps < 3
    if name == "parts" and leaves_after:
        # The thread-local state of its thread exists.
        assert tracked.closed_in is not threading.main_thread()


def test_a_client_that_leaves_interrupts_the_awaiting_handler():
    closed = []

    async def parts():
        try:
            yield "x"
            await asyncio.Event().wait()
        finally:
            closed.append(True)

    result, messages = streamed(parts(), lambda: Client(2), ended=lambda: closed)
    assert (type(result), len(messages), closed) == (ClientDisconnected, 2, [True])


@pytest.mark.parametrize("sent", [0, 2])
def test_a_client_that_leaves_while_the_generator_waits_interrupts_it(sent):
    client, closed = Client(), []

    async def parts():
        try:
            if sent:
                yield "x"
            client.left.set()
            await asyncio.Event().wait()
            yield "never"
        finally:
            closed.append(True)

    result, messages = streamed(parts(), lambda: client, ended=lambda: closed)
    assert (type(result), len(messages)) == (ClientDisconnected, sent)


def test_a_client_that_leaves_while_a_thread_works_ends_the_stream_after_its_step():
    client, steps = Client(), []

    def parts():
        for number in range(9):
            steps.append(number)
            client.loop.call_soon_threadsafe(client.left.set)
            client.seen.wait()
            yield "x"

    async def release():
        await client.left.wait()
        for _ in range(5):
            await asyncio.sleep(0)
        client.seen.set()

    async def main():
        client.loop, client.seen = asyncio.get_running_loop(), threading.Event()
        releasing = asyncio.create_task(release())
        with pytest.raises(ClientDisconnected):
            await Stream(parts(), in_thread, 3600).send(client.receive, client.send)
        await releasing

    asyncio.run(main())
    assert (steps, client.sent) == ([0], [])


def test_a_generator_without_a_part_in_time_fails():
    closed = []

    async def parts():
        try:
            await asyncio.Event().wait()
            yield "x"
        finally:
            closed.append(True)

    result, messages = streamed(parts(), timeout=0.01, ended=lambda: closed)
    assert (type(result), messages, closed) == (RequestTimeout, [], [True])


def test_a_generator_blocked_in_a_thread_is_closed_later():
    begun, gate, closed = threading.Event(), threading.Event(), threading.Event()

    def parts():
        try:
            begun.set()
            gate.wait()
            yield "x"
        finally:
            closed.set()

    async def in_begun_thread(step):
        running = asyncio.ensure_future(in_thread(step))
        await asyncio.sleep(0)
        # The time may end only when the generator has begun.
        begun.wait(30)
        return await running

    async def main():
        client, generator = Client(), parts()
        with pytest.raises(RequestTimeout):
            await Stream(generator, in_begun_thread, 0.01).send(client.receive, client.send)
        assert not closed.is_set()
        gate.set()
        assert await asyncio.to_thread(closed.wait, 30)
        # A reference remains, so it was not closed by garbage collection.
        del generator

    asyncio.run(main())


def test_a_timeout_raised_by_the_generator_is_its_error():
    async def parts():
        raise TimeoutError("of a database")
        yield

    result, _ = streamed(parts())
    assert (type(result), str(result)) == (TimeoutError, "of a database")


def test_iterators_without_a_close_are_streams():
    class Numbers:
        def __init__(self):
            self.n = 0

        def __iter__(self):
            return self

        def __next__(self):
            self.n += 1
            if self.n > 2:
                raise StopIteration
            return self.n

    assert [m.get("body") for m in streamed(Numbers())[1]] == [None, b"1\n", b"2\n", b""]


def test_a_generator_that_fails_while_it_is_closed_is_an_error():
    def parts():
        try:
            yield "x"
        finally:
            raise ValueError("while closing")

    result, _ = streamed(parts(), lambda: Client(1))
    assert (type(result), str(result)) == (ValueError, "while closing")


def sent_by(function):
    """Return the messages that a function sends."""

    async def main():
        client = Client()
        await function(client)
        return client.sent

    return asyncio.run(main())


def test_a_complete_response():
    messages = sent_by(lambda c: response.send(c.send, 201, b"a/b", b"12345", [(b"x", b"y")]))
    head = [(b"content-type", b"a/b"), (b"content-length", b"5"), (b"x", b"y")]
    assert messages == [
        {"type": "http.response.start", "status": 201, "headers": head},
        {"type": "http.response.body", "body": b"12345"},
    ]


@pytest.mark.parametrize(
    ("status", "message", "expected"),
    [
        (400, "wrong", {"error": "wrong", "requestId": "the-id"}),
        (409, {"a": [1]}, {"error": {"a": [1]}, "requestId": "the-id"}),
        (500, "a\udcff", {"error": "a\\udcff", "requestId": "the-id"}),
        (422, object, {"error": "<class 'object'>", "requestId": "the-id"}),
    ],
)
def test_an_error_has_its_message_and_the_id_of_its_request(status, message, expected):
    token = request_id.set("the-id")
    try:
        head, end = sent_by(lambda c: response.send_error(c.send, HttpError(status, message, OURS)))
    finally:
        request_id.reset(token)
    assert (head["status"], json.loads(end["body"])) == (status, expected)
    assert head["headers"] == [
        (b"content-type", b"application/json"), (b"content-length", str(len(end["body"])).encode()), *OURS,
    ]  # fmt: skip


@pytest.mark.parametrize("status", [204, 205, 304])
def test_a_status_that_may_have_no_body_has_none(status):
    head, end = sent_by(lambda c: response.send_error(c.send, HttpError(status, "x", OURS)))
    assert (head["status"], end["body"]) == (status, b"")
    assert head["headers"] == [
        (b"content-type", b"text/plain; charset=utf-8"), (b"content-length", b"0"), *OURS,
    ]  # fmt: skip


@pytest.fixture
def logged(caplog, monkeypatch):
    logger = logging.Logger("cortex")
    logger.addHandler(caplog.handler)
    monkeypatch.setattr(response, "log", logger)
    return caplog


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (UserError("no", 422), (422, "no", [])),
        (HTTPException(418, "teapot"), (418, "teapot", [])),
        (HTTPException(409, {"a": 1}, {"X-Own": "é"}), (409, {"a": 1}, [(b"x-own", b"\xe9")])),
        (HTTPException(200, "x"), (200, "x", [])),
        (HTTPException(599, "x"), (599, "x", [])),
        (RequestTimeout(2.5), (504, "the request took longer than 2.5 s (requestTimeout)", [])),
    ],
)
def test_exceptions_of_a_handler_for_its_client(error, expected, logged):
    answer = response.error_of(error)
    assert (answer.status, answer.message, answer.headers) == expected
    assert not logged.records


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (HTTPException(199, "x"), "the status of an error must be 200 to 599; got 199"),
        (HTTPException(600, "x"), "the status of an error must be 200 to 599; got 600"),
        (HTTPException("409", "x"), "the status of an error must be 200 to 599; got '409'"),
        (HTTPException(409, "x", {"x-own": "a\r\nb: c"}), "a header has a line break in it"),
        (HTTPException(409, "x", {"x\n": "a"}), "a header has a line break in it"),
        (HTTPException(409, "x", {"x": "a\0"}), "a header has a line break in it"),
        (HTTPException(409, "x", {"x": "\udcff"}), "'latin-1' codec can't encode"),
    ],
)
def test_an_error_that_cannot_be_sent_is_a_logged_500(error, words, logged):
    answer = response.error_of(error)
    assert (answer.status, answer.message, answer.headers) == (500, "internal server error", [])
    (record,) = logged.records
    assert record.getMessage() == "the handler raised a HTTPException that can't be sent"
    assert words in str(record.exc_info[1])


@pytest.mark.parametrize("error", [ValueError("secret"), SystemExit(3), OSError()])
def test_any_other_exception_is_a_500_that_does_not_show_it(error, logged):
    answer = response.error_of(error, "the gateway")
    assert (answer.status, answer.message, answer.headers) == (500, "internal server error", [])
    (record,) = logged.records
    assert (record.getMessage(), record.exc_info[1]) == ("the gateway failed", error)


def test_a_value_that_is_not_json_is_logged_with_its_path_and_without_frames_of_the_encoder(
    logged, monkeypatch
):
    monkeypatch.setattr(response, "_shows_tracebacks", True)
    with pytest.raises(NotSerializable) as error:
        response.encode({"scores": [1, 2j]})
    answer = response.error_of(error.value)
    problem = 'result["scores"][1] is a complex, which can\'t be written as JSON'
    assert (answer.status, answer.details) == (500, {"traceback": [f"NotSerializable: {problem}"]})
    (record,) = logged.records
    assert record.getMessage() == f"the handler returned a value that JSON cannot represent: {problem}"
    assert record.exc_info is None
