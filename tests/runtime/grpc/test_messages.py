"""Messages on the wire, and the metadata of calls."""

import zlib
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cortex_runtime.grpc.calls import CallError
from cortex_runtime.grpc.messages import MessageReader, frame
from cortex_runtime.grpc.metadata import timeout_of, trailers
from cortex_runtime.grpc.status import StatusCode


@given(
    st.lists(st.binary(max_size=40)),
    st.lists(st.integers(min_value=0, max_value=400)),
    st.sampled_from([0, 1]),
)
def test_messages_are_found_however_they_are_split(messages, cuts, flag):
    content = b""
    for message in messages:
        sent = zlib.compress(message) if flag else message
        content += bytes([flag]) + len(sent).to_bytes(4) + sent
    reader = MessageReader(b"deflate", 64)
    found: list[bytes] = []
    edges = [0, *sorted(min(cut, len(content)) for cut in cuts), len(content)]
    for start, end in pairwise(edges):
        reader.feed(content[start:end])
        while (message := reader.next()) is not None:
            found.append(message)
    assert found == messages
    assert reader.is_empty


@pytest.mark.parametrize("size", [0, 10, 100_000])
def test_what_is_sent_can_be_read(size):
    reader = MessageReader(None, size)
    for part in frame(bytes(size)):
        reader.feed(part)
    assert reader.next() == bytes(size)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [(b"1H", 3600), (b"2M", 120), (b"3S", 3), (b"4m", 0.004), (b"5u", 5e-6), (b"99999999n", 0.099999999)],
)
def test_deadlines_have_six_units(value, seconds):
    assert timeout_of({b"grpc-timeout": value}) == pytest.approx(seconds)


@pytest.mark.parametrize("value", [b"", b"1", b"S", b"-1S", b"1.5S", b"123456789S", b"1s"])
def test_other_deadlines_are_refused(value):
    with pytest.raises(CallError) as caught:
        timeout_of({b"grpc-timeout": value})
    assert caught.value.code == StatusCode.INVALID_ARGUMENT


def test_details_are_sent_as_printable_ascii():
    found = dict(trailers(StatusCode.NOT_FOUND, "ü 100 %\n", {"x-id": "1"}))
    assert found == {b"grpc-status": b"5", b"grpc-message": b"%C3%BC 100 %25%0A", b"x-id": b"1"}
