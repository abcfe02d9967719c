"""A breaker in each worker: while the candidate fails, the stable version answers without asking it first."""

import logging
from collections import deque
from collections.abc import Callable
from time import monotonic

log = logging.getLogger("cortex")

_LEAST_FAILURES = 5
"""Failures of the last requests, at least half of them, that open the breaker."""
_REMEMBERED = 20
_TIMEOUTS = 2
"""Timeouts without a response in between that open it: the candidate hangs."""
_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 10.0
"""Seconds between two probes while the breaker is open."""
_SETTLED = 30.0
"""Seconds that the breaker must have been closed for the pause to start at the first one again."""


class Breaker:
    """Opens when the candidate fails or hangs, and closes when it answers a probe.

    on_change: called with whether the breaker is open. on_hang: called when it opens because the candidate hangs.
    """

    def __init__(
        self,
        on_change: Callable[[bool], None] = lambda is_open: None,
        on_hang: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self.is_open = False
        self.is_hang = False
        """Whether it has opened because the candidate hangs."""
        self._on_change, self._on_hang = on_change, on_hang
        self._clock = clock
        self._recent: deque[bool] = deque(maxlen=_REMEMBERED)
        self._timeouts = 0
        self._pause = 0.0
        self._next_probe = 0.0
        self._closed_at = float("-inf")

    def record_success(self) -> None:
        """Record a response, of whatever request."""
        self._timeouts = 0
        if self.is_open:
            self._close()
        else:
            self._recent.append(True)

    def record_failure(self, reason: str, is_timeout: bool = False) -> None:
        """Record a request that the candidate has not answered. reason: for the log."""
        if self.is_open:
            return
        self._recent.append(False)
        failures = self._recent.count(False)
        if is_timeout:
            self._timeouts += 1
            if self._timeouts >= _TIMEOUTS:
                self.record_hang(reason)
                return
        if failures >= _LEAST_FAILURES and 2 * failures >= len(self._recent):
            self._open(reason)

    def record_hang(self, reason: str) -> None:
        """Record that the candidate answers nothing."""
        if not self.is_open:
            self._open(reason, is_hang=True)
            self._on_hang()

    def take_probe(self) -> bool:
        """Return whether the caller must send a probe now: the breaker is open, and the pause since the last one is over."""
        now = self._clock()
        if not self.is_open or now < self._next_probe:
            return False
        self._pause = min(self._pause * 2, _LONGEST_PAUSE)
        self._next_probe = now + self._pause
        return True

    def _open(self, reason: str, is_hang: bool = False) -> None:
        now = self._clock()
        if now - self._closed_at > _SETTLED or not self._pause:
            self._pause = _FIRST_PAUSE
        self.is_open, self.is_hang = True, is_hang
        self._next_probe = now + self._pause
        log.warning("the candidate does not answer (%s); the stable version answers its requests", reason)
        self._on_change(True)

    def _close(self) -> None:
        self.is_open = self.is_hang = False
        self._closed_at = self._clock()
        self._recent.clear()
        log.info("the candidate answers again")
        self._on_change(False)
