"""Decide which methods run inline, on the event loop's thread, from the durations of their calls."""

import math
from collections.abc import Callable
from functools import partial
from time import perf_counter
from typing import Any


class InlinePolicy:
    """Decide from a method's recent durations whether its calls run inline, on the event loop's thread.

    A method becomes inline once its fast calls outnumber the slow ones by a threshold. It leaves when too many recent calls, or
    their average, are slow. A few slow calls are tolerated: a call that was preempted would be as slow in a thread. Leaving soon
    after becoming inline doubles the threshold, so a method that is slow now and then stays in its thread.
    """

    QUICK = 0.0003
    """Seconds below which a call is fast."""
    SLOW, MAX_SLOW_FRACTION = 0.0005, 0.3
    """Seconds above which a call is slow, and the fraction of recent calls that may be slow."""
    SLOW_AVERAGE, MAX_DURATION = 0.005, 0.1
    """Seconds. A longer call counts as MAX_DURATION in the average."""
    STREAK, MAX_STREAK = 32, 4096
    SETTLED = 1000
    """Inline calls after which leaving does not raise the threshold for the next time."""

    def __init__(self, allowed: bool) -> None:
        self.inline = False
        self.allowed = allowed
        self._average = self._slow = 0.0
        self._streak = 0
        self._inline_calls = 0
        self._needed = self.STREAK

    def record(self, seconds: float) -> None:
        """Record the duration of one call, in seconds."""
        if self.inline:
            self._inline_calls += 1
            self._slow += ((seconds > self.SLOW) - self._slow) / 16
            self._average += (min(seconds, self.MAX_DURATION) - self._average) / 16
            if self._slow > self.MAX_SLOW_FRACTION or self._average > self.SLOW_AVERAGE:
                self.inline = False
                self._streak = 0
                longer = min(self._needed * 2, self.MAX_STREAK)
                self._needed = self.STREAK if self._inline_calls > self.SETTLED else longer
        elif self.allowed:
            self._streak = self._streak + 1 if seconds < self.QUICK else max(0, self._streak - 1)
            if self._streak >= self._needed:
                self.inline = True
                self._average = self._slow = 0.0
                self._inline_calls = 0


class TimedCall:
    """A call that measures its duration. seconds: infinite until it returns."""

    __slots__ = ("_call", "seconds")

    def __init__(self, function: Callable[..., Any], arguments: dict[str, Any]) -> None:
        self._call = partial(function, **arguments)
        self.seconds = math.inf

    def __call__(self) -> Any:
        """Make the call."""
        began = perf_counter()
        try:
            return self._call()
        finally:
            self.seconds = perf_counter() - began
