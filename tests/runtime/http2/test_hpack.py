"""Header compression, on the examples of RFC 7541, appendix C, and on blocks that are not valid."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cortex_runtime.http2.hpack import CompressionError, Decoder, encode

FIRST = [(b":method", b"GET"), (b":scheme", b"http"), (b":path", b"/"), (b":authority", b"www.example.com")]
SECOND = [*FIRST, (b"cache-control", b"no-cache")]
THIRD = [
    (b":method", b"GET"),
    (b":scheme", b"https"),
    (b":path", b"/index.html"),
    (b":authority", b"www.example.com"),
    (b"custom-key", b"custom-value"),
]
PLAIN = [
    "828684410f7777772e6578616d706c652e636f6d",
    "828684be58086e6f2d6361636865",
    "828785bf400a637573746f6d2d6b65790c637573746f6d2d76616c7565",
]
HUFFMAN = [
    "828684418cf1e3c2e5f23a6ba0ab90f4ff",
    "828684be5886a8eb10649cbf",
    "828785bf408825a849e95ba97d7f8925a849e95bb8e8b4bf",
]


@pytest.mark.parametrize("blocks", [PLAIN, HUFFMAN], ids=["plain", "huffman"])
def test_requests_of_one_connection(blocks):
    decoder = Decoder()
    for block, wanted in zip(blocks, (FIRST, SECOND, THIRD), strict=True):
        assert decoder.decode(bytes.fromhex(block)) == wanted


def test_a_repeated_block_means_what_the_table_holds_now():
    decoder = Decoder()
    decoder.decode(b"\x40\x01a\x01b")
    assert decoder.decode(b"\xbe") == decoder.decode(b"\xbe") == [(b"a", b"b")]
    decoder.decode(b"\x40\x01c\x01d")
    assert decoder.decode(b"\xbe") == [(b"c", b"d")]


def test_the_oldest_entries_leave_a_full_table():
    decoder = Decoder()
    for number in range(40):
        decoder.decode(b"\x40\x03%03d\x7f\x01" % number + b"x" * 128)
    # 25 entries of 163 bytes fit into 4,096 bytes.
    assert decoder.decode(bytes((0x80 | 62,)))[0][0] == b"039"
    assert decoder.decode(bytes((0x80 | 86,)))[0][0] == b"015"
    with pytest.raises(CompressionError, match="header 87 does not exist"):
        decoder.decode(bytes((0x80 | 87,)))


def test_a_smaller_table_holds_nothing():
    decoder = Decoder()
    decoder.decode(b"\x40\x01a\x01b")
    decoder.decode(b"\x20")
    with pytest.raises(CompressionError, match="header 62 does not exist"):
        decoder.decode(b"\xbe")


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ("80", "header 0 does not exist"),
        ("be", "header 62 does not exist"),
        ("40", "incomplete"),
        ("4001", "beyond"),
        ("400161", "incomplete"),
        ("ffffffffffff", "too large"),
        ("3fe2ff03", "size of the dynamic table"),
        ("8220", "size of the dynamic table"),
        ("4084ffffffff00", "contains the end of a string"),
        ("40" + "82" + "ffff" + "00", "the end of a string is not valid"),
    ],
)
def test_blocks_that_are_not_valid(block, message):
    with pytest.raises(CompressionError, match=message):
        Decoder().decode(bytes.fromhex(block))


def test_headers_that_are_too_large_together():
    # A short block may refer to a long header many times.
    long = b"\x40\x01a\x7f\x81\x17" + b"x" * 3072
    with pytest.raises(CompressionError, match="too large"):
        Decoder().decode(long + b"\xbe" * 30)


HEADERS = st.lists(st.tuples(st.binary(min_size=1, max_size=40), st.binary(max_size=300)), max_size=8)


@settings(max_examples=50, deadline=None)
@given(HEADERS)
def test_encoded_headers_are_decoded(headers):
    assert Decoder().decode(encode(headers)) == headers


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=40))
def test_any_block_is_headers_or_an_error(block):
    try:
        headers = Decoder().decode(block)
    except CompressionError:
        return
    assert isinstance(headers, list)
