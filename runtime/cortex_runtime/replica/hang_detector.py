"""Detects hung workers: the supervisor sends pings, and the event loop of the worker answers.

A worker hangs when its event loop does not answer for the time that a request may take, or when all its threads are busy and none
finishes a call for that time: a deadlock, or a call without a timeout. By then its requests have failed with 504.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from cortex_runtime.errors import StartError
from cortex_runtime.messages import Pong

PERIOD = 2.0
"""Seconds between a pong and the next ping."""
_LEAST = 5.0
"""Minimum of the timeout in seconds, however short that of requests is."""


@dataclass
class HangDetector:
    """Watches one worker. send_ping: sends it a ping. timeout: seconds that a request may take.

    It has no clock: `advance` passes the time, so a replica that was suspended is not reported as hung when it resumes.
    """

    send_ping: Callable[[], None]
    timeout: float
    _pause: float = 0.0
    _silent: float = 0.0
    _stalled: float = 0.0
    _is_waiting: bool = False
    _busy: bool = False
    _finished: int = -1
    _limit: float = field(init=False)

    def __post_init__(self) -> None:
        self._limit = max(self.timeout, _LEAST)

    def advance(self, seconds: float) -> None:
        """Advance the clock. seconds: since the last call."""
        if self._busy:
            self._stalled += seconds
        if self._is_waiting:
            self._silent += seconds
            return
        self._pause += seconds
        if self._pause >= PERIOD:
            self._pause, self._is_waiting = 0.0, True
            self.send_ping()

    def on_pong(self, pong: Pong) -> None:
        """Handle an answer of the worker."""
        self._is_waiting, self._silent = False, 0.0
        if not pong.busy or pong.finished != self._finished:
            self._stalled = 0.0
        self._busy, self._finished = pong.busy, pong.finished

    def problem(self) -> StartError | None:
        """Return why the worker counts as hung; None while it does not."""
        cause = "all its threads have run calls for longer"
        if self._silent >= self._limit:
            cause = "its event loop has been blocked for longer"
        elif self._stalled < self._limit:
            return None
        return StartError(
            "WorkerHung",
            f"a worker hangs: {cause} than handler.requestTimeout ({self.timeout:g} s); it is killed after twice that time, with"
            " the stack of each thread in its log",
        )

    @property
    def is_expired(self) -> bool:
        """Whether the worker has hung long enough to be killed."""
        return max(self._silent, self._stalled) >= 2 * self._limit
