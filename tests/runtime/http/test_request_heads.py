"""What surrounds a body has limits of its own: request lines, headers, chunk extensions and trailers."""

import pytest

from tests.runtime.http.connections import BOTH, REQUEST, exchange

CHUNKED = REQUEST + b"transfer-encoding: chunked\r\nconnection: close\r\n\r\n"


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
    # A piece is sent every 10 ms. The head must arrive within the second also on a busy machine.
    answer = exchange(protocol, CHUNKED, *[b"1\r\na\r\n"] * 110, b"0\r\n\r\n", head_seconds=1.0)
    assert answer.endswith(b"110]")


@BOTH
@pytest.mark.parametrize("pieces", [1, 2])
def test_trailers_are_not_headers(protocol, pieces):
    parts = [CHUNKED, b"1\r\na\r\n0\r\nx-user: admin\r\n\r\n"]
    answer = exchange(protocol, *(parts if pieces == 2 else [b"".join(parts)]))
    assert answer.endswith(b'[["connection","host","transfer-encoding"],1]')
