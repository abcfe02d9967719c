"""Sends what requests have queued in a thread, so that no request waits for the receiver. Used for spans and for payloads."""

import logging
import threading
from collections.abc import Callable, Sized

log = logging.getLogger("cortex")

Send = Callable[[], str]
"""Removes a batch from the queue and sends it. Returns why the receiver did not accept it, or an empty text. Raises nothing."""


class SenderThread:
    """Sends a queue in batches. A failure is logged once, until the receiver accepts a batch again.

    what: for messages, and the name of the thread, such as "traces". url: of the receiver, for messages. queue: limited by its
    owner, which calls `wake` after each addition. start: called in the thread; returns the function that sends, and the seconds
    for which the first addition waits for a complete batch. If it raises, nothing is ever sent.
    """

    def __init__(self, what: str, url: str, queue: Sized, start: Callable[[], tuple[Send, float]]) -> None:
        self._what = what
        self._url = url
        self._queue = queue
        self._start = start
        self.is_open = True
        self._has_work, self._has_batch = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name=what, daemon=True)
        self._thread.start()

    def wake(self, has_batch: bool) -> None:
        """Announce an addition to the queue. has_batch: whether the queue contains a complete batch."""
        if not self._has_work.is_set():
            self._has_work.set()
        if has_batch and not self._has_batch.is_set():
            self._has_batch.set()

    def close(self, seconds: float) -> None:
        """Send the queue, for at most `seconds`. The rest stays in it. Its owner adds nothing after that."""
        self.is_open = False
        self.wake(has_batch=True)
        self._thread.join(seconds)

    def _run(self) -> None:
        try:
            send, delay = self._start()
        except Exception as error:
            # Of any library, for a setting or a package: an API serves without what it would have sent.
            log.error("%s are not sent to %s: %s: %s", self._what, self._url, type(error).__name__, error)
            return
        is_open, is_failing = True, False
        while is_open:
            self._has_work.wait()
            self._has_batch.wait(delay)
            self._has_batch.clear()
            self._has_work.clear()
            # Read before the queue is emptied: nothing is added after it is closed.
            is_open = self.is_open
            while self._queue:
                reason = send()
                if reason and not is_failing:
                    log.warning(
                        "failed to send %s to %s; they are dropped until it accepts them: %s",
                        self._what,
                        self._url,
                        reason,
                    )
                elif is_failing and not reason:
                    log.info("%s are sent to %s again", self._what, self._url)
                is_failing = bool(reason)
