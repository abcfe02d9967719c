"""Writers that set a child's fields again and again: when to set them back, and when to wait.

Two writers that both insist would else write as fast as the API server lets them. Times are seconds of one monotonic clock.
"""

from collections import deque
from dataclasses import dataclass, field

FREE_REVERTS, WINDOW = 3, 600.0
"""So many changes within so many seconds are set back at once; the next one begins a conflict."""
FIRST_BACKOFF, MAX_BACKOFF = 10.0, 300.0
"""Seconds for which a contested child is left as it is; twice as long each time that it is changed again."""


@dataclass
class _Conflict:
    reverted: deque[float] = field(default_factory=lambda: deque(maxlen=FREE_REVERTS))
    pause: float = 0.0
    until: float = 0.0
    words: str = ""

    def ends(self) -> float:
        """When it is over, unless the child is changed again."""
        return max(self.reverted[-1], self.until) + max(WINDOW / FREE_REVERTS, 2 * self.pause)


class Conflicts:
    """The children that others change, by uid."""

    def __init__(self) -> None:
        self._conflicts: dict[str, _Conflict] = {}

    def pause(self, uid: str, now: float, words: str) -> float:
        """Seconds for which a child that another writer has changed must be left as it is; 0: set it back, and count that.

        words: who changed what.
        """
        conflict = self._conflicts.setdefault(uid, _Conflict())
        reverted, conflict.words = conflict.reverted, words
        if conflict.pause and now >= conflict.ends():
            conflict.pause = 0.0
            reverted.clear()
        if now < conflict.until:
            return conflict.until - now
        many = len(reverted) == FREE_REVERTS and now - reverted[0] < WINDOW
        if (reverted[-1] >= conflict.until) if conflict.pause else many:
            conflict.pause = min(MAX_BACKOFF, 2 * conflict.pause or FIRST_BACKOFF)
            conflict.until = now + conflict.pause
            return conflict.pause
        return 0.0

    def count(self, uid: str, now: float) -> None:
        """A change by others was set back."""
        self._conflicts.setdefault(uid, _Conflict()).reverted.append(now)

    def ongoing(self, uid: str, now: float) -> tuple[str, float] | None:
        """Who changes what, and for how many seconds at least the child counts as contested; None when it does not."""
        conflict = self._conflicts.get(uid)
        if conflict is None or not conflict.pause or now >= conflict.ends():
            return None
        return conflict.words, (conflict.until if now < conflict.until else conflict.ends()) - now

    def forget(self, uid: str) -> None:
        """The child is gone."""
        self._conflicts.pop(uid, None)
