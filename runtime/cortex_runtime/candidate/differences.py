"""What a worker keeps of the comparisons: the last differing pairs."""

import time
from collections import deque
from typing import Any

import orjson

from cortex_runtime.candidate.compare import Answer, Comparison, text_of

MOST_BYTES = 512 * 1024
"""Bytes that the pairs of one worker occupy at most, as JSON."""
_LONGEST_BODY = 4096
"""Characters that are kept of a request and of each response."""


class DifferingPairs:
    """The last differing pairs, in memory only.

    keep: pairs; 0 keeps none. Requests and responses are shortened, and the oldest pairs are dropped beyond MOST_BYTES.
    """

    def __init__(self, keep: int) -> None:
        self._keep = keep
        self._pairs: deque[bytes] = deque()
        self._size = 0

    def add(
        self,
        request_id: str,
        path: str,
        request: Answer | None,
        answers: tuple[Answer, Answer],
        comparison: Comparison,
    ) -> None:
        """Keep a pair.

        path: of the request, with its query. request: its content type and body, as an Answer; None without a body. answers: of
        the stable version and of the candidate.
        """
        if self._keep <= 0:
            return
        pair = {
            "time": time.time(),
            "requestId": request_id[:128],
            "path": path[:1024],
            "request": None if request is None else text_of(request, _LONGEST_BODY),
            "stable": text_of(answers[0], _LONGEST_BODY),
            "candidate": text_of(answers[1], _LONGEST_BODY),
            "differences": [difference.as_json() for difference in comparison.differences],
        }
        # As bytes: they need less memory than Python's objects, and their size is known.
        encoded = orjson.dumps(pair)
        self._pairs.append(encoded)
        self._size += len(encoded)
        while len(self._pairs) > self._keep or self._size > MOST_BYTES:
            self._size -= len(self._pairs.popleft())

    def clear(self) -> None:
        """Forget all pairs."""
        self._pairs.clear()
        self._size = 0

    def as_json(self) -> list[dict[str, Any]]:
        """Return the pairs, newest first."""
        return [orjson.loads(pair) for pair in reversed(self._pairs)]
