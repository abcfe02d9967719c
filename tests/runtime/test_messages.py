"""The control channel between supervisor and workers: every message arrives as it was sent, in both directions."""

import asyncio
import socket

import pytest

from cortex_runtime import messages
from cortex_runtime.messages import ControlChannel

MESSAGES = [
    messages.Drain(),
    messages.Stop(),
    messages.ReloadModels(),
    messages.ReloadSplit(),
    messages.Describe("1", "interface"),
    messages.Description("1", b'{"routes": []}'),
    messages.Ping(),
    messages.RunJob("1", "a", 1, "text/plain; charset=utf-8", b"two\nlines\x00\xff"),
    messages.RunJob("2", "b", 3, "", b""),
    messages.CancelJob("a"),
    messages.Ready(),
    messages.StartFailed("HandlerInitError", "first line\nsecond line \u2028 \ud800"),
    messages.Step("downloading models"),
    messages.ModelFailed("m"),
    messages.Pong(True, 7),
    messages.JobProgress("a", 0.5, "half"),
    messages.JobCompleted("a", b'{"size": 1}\n' * 100_000),
    messages.JobFailed("a", "HandlerError", "the handler raised KeyError", True),
    messages.JobFailed("a", "HandlerError", "a lone surrogate: \ud800", True),
]


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
async def test_a_message_is_decoded_as_it_was_encoded(message):
    reader = asyncio.StreamReader()
    reader.feed_data(messages.encode(message) * 2)
    assert [await messages.receive(reader) for _ in range(2)] == [message, message]


@pytest.mark.parametrize(("expected", "size"), [(MESSAGES, 1 << 20), (MESSAGES, 1000), (MESSAGES[:6] * 2, 1)])
async def test_messages_are_received_in_reads_of_any_size(expected, size):
    data = b"".join(map(messages.encode, expected))
    reader = asyncio.StreamReader()

    async def feed():
        for start in range(0, len(data), size):
            reader.feed_data(data[start : start + size])
            await asyncio.sleep(0)
        reader.feed_eof()

    feeding = asyncio.create_task(feed())
    assert [message async for found in messages.receive_all(reader) for message in found] == expected
    await feeding


async def test_messages_arrive_in_order_in_both_directions():
    ours, theirs = socket.socketpair()
    worker = ControlChannel(theirs.detach())
    reports, control = await asyncio.open_connection(sock=ours)

    def echo():
        while (command := worker.receive()) is not None:
            worker.send(command)

    echoing = asyncio.create_task(asyncio.to_thread(echo))
    for message in MESSAGES:
        control.write(messages.encode(message))
        assert await messages.receive(reports) == message
    control.close()
    await echoing


async def test_a_message_that_is_cut_off_is_the_end_of_the_channel():
    for data in (messages.encode(MESSAGES[4])[:-1], messages.encode(MESSAGES[-1])[:-1], b""):
        reader = asyncio.StreamReader()
        reader.feed_data(data)
        reader.feed_eof()
        assert await messages.receive(reader) is None
