"""Back off from other writers that change the same fields repeatedly.

Two such writers would otherwise overwrite each other as fast as the API server allows. Times are seconds of one monotonic clock.
"""

from collections import deque
from dataclasses import dataclass, field

FREE_REVERTS, WINDOW = 3, 600.0
"""Changes within WINDOW seconds that are reverted immediately; the next one starts a conflict."""
FIRST_BACKOFF, MAX_BACKOFF = 10.0, 300.0
"""Seconds for which an object in conflict is left alone; doubled each time that it is changed again."""


@dataclass
class _Conflict:
    reverted: deque[float] = field(default_factory=lambda: deque(maxlen=FREE_REVERTS))
    pause: float = 0.0
    until: float = 0.0
    description: str = ""

    def ends(self) -> float:
        """Return when the conflict is over, unless the object is changed again."""
        return max(self.reverted[-1], self.until) + max(WINDOW / FREE_REVERTS, 2 * self.pause)


class Conflicts:
    """The objects that others change, by uid."""

    def __init__(self) -> None:
        self._conflicts: dict[str, _Conflict] = {}

    def pause(self, uid: str, now: float, description: str) -> float:
        """Return the seconds for which a changed object must be left alone; 0: revert it, and call `count`.

        description: who changed what.
        """
        conflict = self._conflicts.setdefault(uid, _Conflict())
        reverted, conflict.description = conflict.reverted, description
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
        """Count a change by others that was reverted."""
        self._conflicts.setdefault(uid, _Conflict()).reverted.append(now)

    def ongoing(self, uid: str, now: float) -> tuple[str, float] | None:
        """Return who changes what, and for how many seconds at least the conflict lasts; None without a conflict."""
        conflict = self._conflicts.get(uid)
        if conflict is None or not conflict.pause or now >= conflict.ends():
            return None
        return conflict.description, (conflict.until if now < conflict.until else conflict.ends()) - now

    def forget(self, uid: str) -> None:
        """Drop the state of an object that is deleted."""
        self._conflicts.pop(uid, None)
