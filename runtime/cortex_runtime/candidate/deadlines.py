"""How long the candidate may take: it follows the stable version's own latency."""

from collections.abc import Callable
from time import monotonic

_SILENCE, _LEAST_SILENCE = 3.0, 0.5
_FIRST_BYTE, _LEAST_FIRST_BYTE = 1.5, 1.0
_PERIOD = 1.0
"""Seconds for which computed values are used."""


class Deadlines:
    """The times after which a response is not awaited any longer, in seconds.

    first_byte: for each request. 1.5 times the maximum of the stable version's latency, and at least 1 s.
    silence: if several requests wait for so long, and no other response has arrived meanwhile, the candidate hangs. 3 times the
    99th percentile of the stable version's latency, and at least 0.5 s.

    Both are at most half of requestTimeout: the stable version needs the rest if the candidate does not answer.

    stable_latency: returns 99th percentile and maximum; None while the stable version has not answered any request.
    request_timeout: seconds.
    """

    def __init__(
        self,
        stable_latency: Callable[[], tuple[float, float] | None],
        request_timeout: float,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._stable_latency = stable_latency
        self._most = request_timeout / 2
        self._clock = clock
        self._until = float("-inf")
        self.first_byte = self.silence = self._most

    def update(self) -> None:
        """Compute the times again if they are old."""
        now = self._clock()
        if now < self._until:
            return
        self._until = now + _PERIOD
        latency = self._stable_latency()
        if latency is not None:
            p99, most = latency
            self.silence = min(max(_SILENCE * p99, _LEAST_SILENCE), self._most)
            self.first_byte = min(max(_FIRST_BYTE * most, _LEAST_FIRST_BYTE, self.silence), self._most)
