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
    messages.Ping(),
    messages.RunJob("a", "text/plain; charset=utf-8", b"two\nlines\x00\xff"),
    messages.RunJob("b", "", b""),
    messages.CancelJob("a"),
    messages.Ready(),
    messages.StartFailed("HandlerInitError", "first line\nsecond line \u2028 \ud800"),
    messages.Step("downloading models"),
    messages.ModelFailed("m"),
    messages.Pong(True, 7),
    messages.JobProgress("a", 0.5, "half"),
    messages.JobCompleted("a", b'{"size": 1}\n' * 100_000),
    messages.JobFailed("a", "HandlerError", "the handler raised KeyError", True),
]


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_a_message_is_decoded_as_it_was_encoded(message):
    head, _, body = messages.encode(message).partition(b"\n")
    assert messages.body_size(head) == len(body)
    assert messages.decode(head, body) == message


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
