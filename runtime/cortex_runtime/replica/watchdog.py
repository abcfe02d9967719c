"""Whether a worker process that runs still does its work: the supervisor asks, and the worker's event loop answers.

A worker hangs when its loop does not answer for the time that a request may take, or when all its threads are busy and none of
them has finished a call for that time: a deadlock, or a call without a timeout. Its requests get 504 by then, and those that
follow would get it as well.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from cortex_runtime.errors import StartError

PERIOD = 2.0
"""Seconds between an answer and the next question."""
_LEAST = 5.0
"""Seconds that a worker has at least, however short the timeout of requests is."""


@dataclass
class Watchdog:
    """Watches one worker. ask: sends it the question. timeout: seconds that a request may take.

    Time is what `advance` is told, so a replica that was suspended as a whole does not count as hung when it goes on.
    """

    ask: Callable[[], None]
    timeout: float
    _pause: float = 0.0
    _silent: float = 0.0
    _stalled: float = 0.0
    _asked: bool = False
    _busy: bool = False
    _finished: int = -1
    _limit: float = field(init=False)

    def __post_init__(self) -> None:
        self._limit = max(self.timeout, _LEAST)

    def advance(self, seconds: float) -> None:
        """So much time has passed."""
        if self._busy:
            self._stalled += seconds
        if self._asked:
            self._silent += seconds
            return
        self._pause += seconds
        if self._pause >= PERIOD:
            self._pause, self._asked = 0.0, True
            self.ask()

    def on_answer(self, busy: bool, finished: int) -> None:
        """The worker has answered. busy: whether all its threads are. finished: calls that have ended since it started."""
        self._asked, self._silent = False, 0.0
        if not busy or finished != self._finished:
            self._stalled = 0.0
        self._busy, self._finished = busy, finished

    def problem(self) -> StartError | None:
        """Why the worker counts as hung; None while it does not."""
        where = "all its threads run calls that take longer"
        if self._silent >= self._limit:
            where = "its event loop has been blocked for longer"
        elif self._stalled < self._limit:
            return None
        return StartError(
            "WorkerHung",
            f"a worker answers no requests: {where} than handler.requestTimeout ({self.timeout:g} s). It is ended after twice"
            " that time, with the stack of each thread in the log",
        )

    @property
    def is_over(self) -> bool:
        """Whether it has hung for so long that it is to be ended."""
        return max(self._silent, self._stalled) >= 2 * self._limit
