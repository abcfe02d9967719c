"""How long the candidate may take for its first byte: it follows the stable version's own latency."""

from collections.abc import Callable
from time import monotonic

_FACTOR = 3.0
_LEAST = 0.5
_PERIOD = 1.0
"""Seconds for which a computed value is used."""


class FirstByteTimeout:
    """3 times the stable version's 99th percentile, but at least 0.5 s, and at most half of requestTimeout: the stable version
    needs the rest if the candidate does not answer.

    stable_p99: returns seconds; None while the stable version has not answered any request. request_timeout: seconds.
    """

    def __init__(
        self,
        stable_p99: Callable[[], float | None],
        request_timeout: float,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._stable_p99 = stable_p99
        self._most = request_timeout / 2
        self._clock = clock
        self._seconds = self._most
        self._until = float("-inf")

    def seconds(self) -> float:
        """Return the timeout for a request that is sent now."""
        now = self._clock()
        if now >= self._until:
            self._until = now + _PERIOD
            p99 = self._stable_p99()
            self._seconds = self._most if p99 is None else min(max(_FACTOR * p99, _LEAST), self._most)
        return self._seconds
