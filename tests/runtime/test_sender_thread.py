"""The thread that sends queued spans and payloads."""

import logging
import threading
from collections import deque

import pytest

from cortex_runtime import sender_thread
from cortex_runtime.sender_thread import SenderThread


@pytest.fixture
def logged(caplog, monkeypatch):
    logger = logging.Logger("cortex")
    logger.addHandler(caplog.handler)
    monkeypatch.setattr(sender_thread, "log", logger)
    return caplog


def test_a_batch_is_sent_when_it_is_complete_and_the_rest_at_the_end() -> None:
    queue: deque[int] = deque()
    sent: list[int] = []
    has_sent = threading.Event()

    def send() -> str:
        sent.append(queue.popleft())
        has_sent.set()
        return ""

    thread = SenderThread("numbers", "http://receiver", queue, lambda: (send, 600.0))
    for number in range(3):
        queue.append(number)
        thread.wake(has_batch=False)
    assert sent == []
    thread.wake(has_batch=True)
    assert has_sent.wait(30)
    queue.append(3)
    thread.wake(has_batch=False)
    thread.close(30)
    assert sent == [0, 1, 2, 3]


def test_failures_are_logged_once_until_a_batch_is_accepted(logged) -> None:
    queue = deque(["refused", "late", "", "", "refused"])
    thread = SenderThread("numbers", "http://receiver", queue, lambda: (queue.popleft, 600.0))
    thread.close(30)
    failure = "failed to send numbers to http://receiver; they are dropped until it accepts them: refused"
    assert logged.messages == [failure, "numbers are sent to http://receiver again", failure]


def test_a_sender_that_cannot_start_is_logged_and_leaves_the_queue(logged) -> None:
    queue = deque([1])

    def start():
        raise ValueError("Invalid endpoint: here")

    thread = SenderThread("numbers", "s3://bucket", queue, start)
    thread.wake(has_batch=True)
    thread.close(30)
    assert logged.messages == ["numbers are not sent to s3://bucket: ValueError: Invalid endpoint: here"]
    assert list(queue) == [1]
