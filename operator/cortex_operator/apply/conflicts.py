"""Writers that set a child's fields again and again: when to set them back, and when to wait.

Two writers that both insist would else write as fast as the API server lets them. Times are seconds of one monotonic clock.
"""

from collections import deque
from dataclasses import dataclass, field

FREE, WINDOW = 3, 600.0
"""So many changes within so many seconds are set back at once; the next one begins a contest."""
FIRST_PAUSE, LONGEST_PAUSE = 10.0, 300.0
"""Seconds for which a contested child is left as it is; twice as long each time that it is changed again."""


@dataclass
class _Contest:
    reverted: deque[float] = field(default_factory=lambda: deque(maxlen=FREE))
    pause: float = 0.0
    until: float = 0.0
    words: str = ""

    def ends(self) -> float:
        """When it is over, unless the child is changed again."""
        return max(self.reverted[-1], self.until) + max(WINDOW / FREE, 2 * self.pause)


class Contests:
    """The children that others change, by uid."""

    def __init__(self) -> None:
        self._contests: dict[str, _Contest] = {}

    def pause(self, uid: str, now: float, words: str) -> float:
        """Seconds for which a child that another writer has changed must be left as it is; 0: set it back, and count that.

        words: who changed what.
        """
        contest = self._contests.setdefault(uid, _Contest())
        reverted, contest.words = contest.reverted, words
        if contest.pause and now >= contest.ends():
            contest.pause = 0.0
            reverted.clear()
        if now < contest.until:
            return contest.until - now
        many = len(reverted) == FREE and now - reverted[0] < WINDOW
        if (reverted[-1] >= contest.until) if contest.pause else many:
            contest.pause = min(LONGEST_PAUSE, 2 * contest.pause or FIRST_PAUSE)
            contest.until = now + contest.pause
            return contest.pause
        return 0.0

    def count(self, uid: str, now: float) -> None:
        """A change by others was set back."""
        self._contests.setdefault(uid, _Contest()).reverted.append(now)

    def ongoing(self, uid: str, now: float) -> tuple[str, float] | None:
        """Who changes what, and for how many seconds at least the child counts as contested; None when it does not."""
        contest = self._contests.get(uid)
        if contest is None or not contest.pause or now >= contest.ends():
            return None
        return contest.words, (contest.until if now < contest.until else contest.ends()) - now

    def forget(self, uid: str) -> None:
        """The child is gone."""
        self._contests.pop(uid, None)
