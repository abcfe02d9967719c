"""What a client gets that closes its sending side, pipelines, or sends something that is not HTTP."""

import asyncio
import json
import re

import pytest

from cortex_runtime.http import strict_protocol
from cortex_runtime.http.protocol import GracefulProtocol
from tests.runtime.http.connections import (
    BOTH,
    END,
    REQUEST,
    App,
    exchange,
    received,
    run_on_loop,
    server,
)

WHOLE = REQUEST + b"content-length: 1\r\n\r\nx"
GARBAGE = b"\x00\x01 no request\r\n\r\n"
OK, BAD = b"HTTP/1.1 200 OK", b"HTTP/1.1 400 Bad Request"


class Slow(App):
    """Answers over ASGI, when it may. events: what happens to its requests."""

    def __init__(self, streams=False):
        self.may_answer = asyncio.Event()
        self.began = asyncio.Event()
        self.gone = asyncio.Event()
        self.paths = []
        self._streams = streams

    def find_inline(self, verb, path):
        return None

    async def __call__(self, scope, receive, send):
        self.paths.append(scope["path"])
        message = await receive()
        while message.get("more_body", False):
            message = await receive()
        leaving = asyncio.create_task(self._leave(receive))
        if self._streams:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"part", "more_body": True})
        self.began.set()
        answering = asyncio.create_task(self.may_answer.wait())
        await asyncio.wait([leaving, answering], return_when=asyncio.FIRST_COMPLETED)
        if not leaving.done():
            if not self._streams:
                headers = [(b"content-length", b"4")]
                await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": b"done"})
        leaving.cancel()
        answering.cancel()

    async def _leave(self, receive):
        while (await receive())["type"] != "http.disconnect":
            pass
        self.gone.set()


INTERIM = b"HTTP/1.1 100 Continue"


def statuses(answer):
    """Return the status lines of responses. Before them, a busy server may send interim ones to a client that sends no more."""
    return [line for line in re.findall(rb"HTTP/1\.1 \d{3} [A-Za-z ]+", answer) if line != INTERIM]


@BOTH
@pytest.mark.parametrize("requests", [1, 3])
@pytest.mark.parametrize("pieces", [1, 2])
def test_a_client_that_closes_its_sending_side_gets_all_responses(protocol, requests, pieces):
    sent = [WHOLE * requests, END] if pieces == 1 else [WHOLE * (requests - 1) + WHOLE[:-1], WHOLE[-1:], END]
    answer = exchange(protocol, *sent)
    assert statuses(answer) == [OK] * requests


@BOTH
def test_responses_to_complete_requests_are_sent_before_a_request_is_cut_off(protocol):
    assert statuses(exchange(protocol, WHOLE * 2 + WHOLE[:-1], END)) == [OK] * 2
    assert exchange(protocol, WHOLE[:-1], END) == b""
    assert exchange(protocol, END) == b""


@BOTH
@pytest.mark.parametrize("streams", [False, True])
def test_a_response_that_takes_long_arrives_after_the_client_has_closed_its_sending_side(
    protocol, streams, monkeypatch
):
    monkeypatch.setattr(strict_protocol, "_PROBE_AFTER", 0.01)

    async def run():
        app = Slow(streams)
        async with server(protocol, app) as connect, asyncio.timeout(60):
            reader, writer = await connect()
            writer.write(WHOLE)
            writer.write_eof()
            await app.began.wait()
            start = await reader.readuntil(b"part\r\n0" if streams else b"100 Continue\r\n\r\n")
            app.may_answer.set()
            rest = await received(reader)
            writer.close()
            return start + rest

    answer = run_on_loop(run())
    assert answer.endswith(b"\r\n4\r\npart\r\n04\r\ndone\r\n0\r\n\r\n" if streams else b"\r\n\r\ndone")
    assert statuses(answer) == [OK]
    assert answer.count(INTERIM) == (0 if streams else 1)


@BOTH
@pytest.mark.parametrize("streams", [False, True])
def test_a_client_that_closes_its_socket_ends_its_request(protocol, streams, monkeypatch):
    monkeypatch.setattr(strict_protocol, "_PROBE_AFTER", 0.01)

    async def run():
        app = Slow(streams)
        async with server(protocol, app) as connect, asyncio.timeout(60):
            reader, writer = await connect()
            writer.write(WHOLE)
            await app.began.wait()
            if streams:
                await reader.readuntil(b"part\r\n")
            writer.close()
            await app.gone.wait()

    run_on_loop(run())


@BOTH
def test_a_client_that_pipelines_and_closes_its_socket_ends_the_running_request(protocol, monkeypatch):
    monkeypatch.setattr(strict_protocol, "_PROBE_AFTER", 0.01)

    async def run():
        app = Slow(streams=True)
        async with server(protocol, app) as connect, asyncio.timeout(60):
            reader, writer = await connect()
            writer.write(WHOLE * 2)
            await reader.readuntil(b"part\r\n")
            writer.close()
            await app.gone.wait()
            assert app.paths == ["/"]

    run_on_loop(run())


@BOTH
@pytest.mark.parametrize("requests", [1, 3])
@pytest.mark.parametrize("pieces", [1, 2])
def test_complete_requests_are_answered_before_garbage_is_refused(protocol, requests, pieces):
    sent = [WHOLE * requests + GARBAGE] if pieces == 1 else [WHOLE * requests, GARBAGE]
    answer = exchange(protocol, *sent, GARBAGE)
    assert statuses(answer) == [*[OK] * requests, BAD]
    assert json.loads(answer.rpartition(b"\r\n\r\n")[2]) == {"error": "the request is not valid HTTP/1.1"}


@BOTH
@pytest.mark.parametrize(
    "garbage",
    [
        b"\0",
        b"\r\n\r\n\1",
        b" GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/9\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ],
)
def test_a_request_is_answered_whatever_follows_it(protocol, garbage):
    assert statuses(exchange(protocol, WHOLE + garbage)) == [OK, BAD]


@BOTH
@pytest.mark.parametrize("upgrade", [b"h2c", b"websocket", b"TLS/1.0"])
@pytest.mark.parametrize("cut", [0, 1, 3])
def test_a_request_for_a_protocol_that_is_not_served_is_answered_as_any_other(protocol, upgrade, cut):
    head = REQUEST + b"connection: Upgrade\r\nupgrade: %b\r\n" % upgrade
    sent = WHOLE + head + b"content-length: 3\r\n\r\nabc" + WHOLE
    place = len(sent) - len(WHOLE) - cut
    answer = exchange(protocol, *((sent[:place], sent[place:]) if cut else (sent,)), END)
    assert statuses(answer) == [OK] * 3
    assert answer.count(b"3]") == 1
    chunked = head + b"transfer-encoding: chunked\r\n\r\n4\r\nabcd\r\n0\r\n\r\n"
    answer = exchange(protocol, chunked * 3, END)
    assert (statuses(answer), answer.count(b"4]")) == ([OK] * 3, 3)


@BOTH
def test_connect_is_refused(protocol):
    answer = exchange(protocol, WHOLE + b"CONNECT x:80 HTTP/1.1\r\nhost: x:80\r\n\r\n")
    assert statuses(answer) == [OK, BAD]
    assert b"CONNECT is not supported" in answer


@BOTH
def test_complete_requests_are_answered_before_garbage_in_a_body_is_refused(protocol):
    broken = REQUEST + b"transfer-encoding: chunked\r\n\r\n1\r\na\r\nno size\r\n"
    assert statuses(exchange(protocol, WHOLE + broken)) == [OK, BAD]
    assert statuses(exchange(protocol, broken)) == [BAD]


def test_a_running_request_is_answered_before_an_endless_head_is_refused():
    async def run():
        app = Slow()
        async with server(GracefulProtocol, app, max_head_bytes=10_000) as connect, asyncio.timeout(60):
            reader, writer = await connect()
            writer.write(WHOLE)
            await app.began.wait()
            writer.write(b"POST /")
            answer = asyncio.create_task(received(reader))
            pieces = 0
            while not answer.done():
                writer.write(b"a" * 1000)
                pieces += 1
                if pieces == 30:
                    app.may_answer.set()
                await asyncio.wait([answer], timeout=0.01)
            return answer.result()

    assert [line[:12] for line in statuses(run_on_loop(run()))] == [b"HTTP/1.1 200", b"HTTP/1.1 431"]


@BOTH
@pytest.mark.parametrize(
    ("head", "problem"),
    [
        (b"POST / HTTP/1.1\r\n", "the header Host is missing"),
        (b"POST / HTTP/1.1\r\nhost: a\r\nHost: a\r\n", "the header Host is sent 2 times"),
        (b"POST / HTTP/1.0\r\nhost: a\r\nHost: b\r\n", "the header Host is sent 2 times"),
        (b"POST / HTTP/1.1\r\nhost: a b\r\n", "the header Host is not valid"),
        (b"POST / HTTP/1.1\r\nhost: a/b\r\n", "the header Host is not valid"),
        (b"POST / HTTP/1.1\r\nhost: [::1\r\n", "the header Host is not valid"),
    ],
)
def test_a_request_without_exactly_one_valid_host_is_refused(protocol, head, problem):
    answer = exchange(protocol, WHOLE + head + b"content-length: 1\r\n\r\nx")
    assert statuses(answer) == [OK, BAD]
    assert json.loads(answer.rpartition(b"\r\n\r\n")[2]) == {"error": problem}


@BOTH
@pytest.mark.parametrize(
    "head",
    [
        b"POST / HTTP/1.0\r\n",
        b"POST / HTTP/1.1\r\nhost:\r\n",
        b"POST / HTTP/1.1\r\nHOST: [::1]:8080\r\n",
        b"POST / HTTP/1.1\r\nhost: a-b_c.example:80\r\n",
        b"POST / HTTP/1.1\r\nhost: a%20b\r\n",
    ],
)
def test_a_valid_host_is_accepted(protocol, head):
    assert statuses(exchange(protocol, head + b"content-length: 1\r\n\r\nx", END)) == [OK]


@BOTH
@pytest.mark.parametrize(
    ("head", "status", "problem"),
    [
        (
            REQUEST + b"transfer-encoding: gzip, chunked\r\n",
            501,
            "the only supported transfer coding is chunked",
        ),
        (
            REQUEST + b"transfer-encoding: gzip\r\ntransfer-encoding: chunked\r\n",
            501,
            "the only supported transfer coding is chunked",
        ),
        (REQUEST + b"Transfer-Encoding: , chunked\r\n", 501, "the only supported transfer coding is chunked"),
        (
            b"POST / HTTP/1.0\r\ntransfer-encoding: chunked\r\n",
            400,
            "the header Transfer-Encoding requires HTTP/1.1",
        ),
    ],
)
def test_a_body_whose_end_a_proxy_may_see_elsewhere_is_refused(protocol, head, status, problem):
    answer = exchange(protocol, WHOLE + head + b"\r\n1\r\na\r\n0\r\n\r\n" + WHOLE)
    assert [line[9:12] for line in statuses(answer)] == [b"200", b"%d" % status]
    assert json.loads(answer.rpartition(b"\r\n\r\n")[2]) == {"error": problem}


@BOTH
@pytest.mark.parametrize("version", [b"2.0", b"0.9"])
@pytest.mark.parametrize("host", [b"host: x\r\n", b""])
def test_a_version_that_is_not_served_is_refused(protocol, version, host):
    answer = exchange(protocol, b"POST / HTTP/%b\r\n%bcontent-length: 1\r\n\r\nx" % (version, host) + WHOLE)
    assert statuses(answer) == [b"HTTP/1.1 505 HTTP Version Not Supported"]


@BOTH
def test_http_1_0_has_neither_chunks_nor_interim_responses(protocol):
    class Streaming(App):
        def find_inline(self, verb, path):
            return None

        async def __call__(self, scope, receive, send):
            await receive()
            headers = [(b"content-length", b"2")] if scope["path"] == "/short" else []
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": b"a", "more_body": True})
            await send({"type": "http.response.body", "body": b"b"})

    lines = b"HTTP/1.0\r\nexpect: 100-continue\r\ncontent-length: 1\r\n\r\nx"
    head, _, body = exchange(protocol, b"POST / " + lines, app=Streaming()).partition(b"\r\n\r\n")
    assert (statuses(head), b"transfer-encoding" in head, body) == ([OK], False, b"ab")
    head, _, body = exchange(protocol, b"POST /short " + lines, app=Streaming()).partition(b"\r\n\r\n")
    assert (statuses(head), b"content-length: 2" in head, body) == ([OK], True, b"ab")


@BOTH
def test_a_trailer_is_not_the_host_of_the_next_request(protocol):
    chunked = REQUEST + b"transfer-encoding: chunked\r\n\r\n1\r\na\r\n0\r\nhost: a b\r\n\r\n"
    assert statuses(exchange(protocol, chunked * 2 + WHOLE, END)) == [OK] * 3
    invalid = b"POST / HTTP/1.1\r\nhost: a b\r\n\r\n"
    assert statuses(exchange(protocol, chunked + invalid, END)) == [OK, BAD]


@BOTH
def test_requests_after_connection_close_are_not_answered(protocol):
    class Counting(App):
        answered = 0

        async def __call__(self, scope, receive, send):
            self.answered += 1
            await super().__call__(scope, receive, send)

        def answer_inline(self, *arguments):
            self.answered += 1
            return super().answer_inline(*arguments)

    app = Counting()
    last = REQUEST + b"connection: close\r\ncontent-length: 1\r\n\r\nx"
    assert statuses(exchange(protocol, WHOLE + last + WHOLE * 2, app=app)) == [OK] * 2
    assert app.answered == 2
