"""Replace sys.stdout and sys.stderr of a worker process with text streams whose lines become log lines.

The streams have the full interface of Python's own: `encoding`, `buffer`, `reconfigure`, `fileno`. Closing or detaching them has
no effect.
"""

import io
import os
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

MAX_PARTIAL = 1 << 18
"""Size in bytes above which an unfinished line is written."""
_PROGRESS_SECONDS = 1.0

Emit = Callable[[str, str | None], None]
"""Writes one line. Arguments: its text, and the id of the request that printed it."""


class _Partial:
    """The unfinished line of one thread, and the request that printed it."""

    __slots__ = ("pieces", "request", "shown", "size")

    def __init__(self) -> None:
        self.request: str | None = None
        self.shown = 0.0
        self.pieces: list[bytes] = []
        self.size = 0

    def take(self) -> bytes:
        """Return the line and clear it."""
        pieces, self.pieces, self.size = self.pieces, [], 0
        return b"".join(pieces)


class Lines(io.BufferedIOBase):
    """Split printed bytes into lines, separately for each thread."""

    mode = "wb"

    def __init__(self, name: str, descriptor: int, emit: Emit, request: Callable[[], str | None]) -> None:
        self.name = name
        self._descriptor = descriptor
        self._emit = emit
        self._request = request
        self._partials: dict[int, _Partial] = {}

    @property
    def raw(self) -> Any:
        """The stream itself, which has no underlying raw stream."""
        return self

    def writable(self) -> bool:
        """True."""
        return True

    def fileno(self) -> int:
        """Return the file descriptor, for native code. Text written to it directly does not become JSON."""
        return self._descriptor

    def write(self, data: Any) -> int:
        """Emit the completed lines."""
        if type(data) is not bytes:
            data = bytes(memoryview(data))
        partial = self._own()
        if b"\n" in data:
            first, *lines, rest = data.split(b"\n")
            self._show(partial.take() + first, partial)
            for line in lines:
                self._show(line, partial)
        else:
            rest = data
        partial.pieces.append(rest)
        partial.size += len(rest)
        if partial.size > MAX_PARTIAL:
            self._show(partial.take(), partial)
        return len(data)

    def flush(self) -> None:
        """Emit the unfinished line. Of a progress bar, which is redrawn often, emit at most one line per second."""
        partial = self._own()
        if any(b"\r" in piece for piece in partial.pieces):
            now = time.monotonic()
            if now - partial.shown < _PROGRESS_SECONDS:
                return
            partial.shown = now
        self._show(partial.take(), partial)

    def flush_all(self) -> None:
        """Emit the unfinished lines of all threads."""
        for partial in list(self._partials.values()):
            self._show(partial.take(), partial)

    def forget(self) -> None:
        """Discard all unfinished lines. Called in a forked process."""
        self._partials.clear()

    def close(self) -> None:
        """Emit the unfinished line. The stream stays open."""
        self.flush()

    def _own(self) -> _Partial:
        key, request = threading.get_ident(), self._request()
        partial = self._partials.get(key)
        if partial is None:
            partial = self._partials[key] = _Partial()
        if partial.request != request:
            # An unfinished line of an earlier request is logged under that request.
            self._show(partial.take(), partial)
            partial.request = request
        return partial

    def _show(self, data: bytes, partial: _Partial) -> None:
        line = data.decode(errors="backslashreplace")
        if "\r" in line:
            # As in a terminal, the text after the last carriage return wins.
            line = next((part for part in reversed(line.split("\r")) if part.strip()), "")
        if line.strip():
            self._emit(line, partial.request)


class _Printed(io.TextIOWrapper):
    """A text stream that escapes characters which UTF-8 cannot encode."""

    def __init__(self, lines: Lines) -> None:
        super().__init__(lines, "utf-8", "backslashreplace", newline="\n", write_through=True)

    def close(self) -> None:
        """Emit the unfinished line. The stream stays open."""
        self.flush()

    def reconfigure(self, *, errors: str | None = None, **others: Any) -> None:
        """Set the error handler. "strict", which could make `print` fail, and all other options have no effect."""
        if errors not in (None, "strict"):
            super().reconfigure(errors=errors)

    def detach(self) -> Any:
        """Return the byte stream. This stream continues to write to it."""
        self.flush()
        return self.buffer


def capture(emit: Emit, request: Callable[[], str | None]) -> list[Lines]:
    """Replace sys.stdout and sys.stderr. Returns the underlying byte streams.

    emit: writes a line. request: the id of the current request.
    """
    captured = []
    for name, descriptor in (("stdout", 1), ("stderr", 2)):
        lines = Lines(f"<{name}>", descriptor, emit, request)
        os.register_at_fork(after_in_child=lines.forget)
        stream = _Printed(lines)
        for attribute in (name, f"__{name}__"):
            before = getattr(sys, attribute)
            if before is not None:
                before.flush()
            setattr(sys, attribute, stream)
        captured.append(lines)
    return captured
