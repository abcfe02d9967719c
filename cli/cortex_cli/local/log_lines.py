"""The last lines of the log of a local program, which several readers may follow."""

import threading
from collections import deque
from collections.abc import Iterator

_KEPT = 2000
_POLL = 1.0


class LogLines:
    """The last lines of the output of a program. Readers wait for new ones."""

    def __init__(self) -> None:
        self._lines: deque[tuple[int, str]] = deque(maxlen=_KEPT)
        self._count = 0
        self._changed = threading.Condition()

    def add(self, line: str) -> None:
        """Append a line."""
        with self._changed:
            self._count += 1
            self._lines.append((self._count, line))
            self._changed.notify_all()

    def follow(self, closed: threading.Event) -> Iterator[bytes]:
        """Yield all lines, then new ones, until `closed` is set."""
        last = 0
        while not closed.is_set():
            with self._changed:
                fresh = [(number, line) for number, line in self._lines if number > last]
                if not fresh:
                    self._changed.wait(_POLL)
                    continue
            last = fresh[-1][0]
            yield "".join(f"{line}\n" for _, line in fresh).encode()
