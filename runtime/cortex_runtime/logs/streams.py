"""sys.stdout and sys.stderr of a process of the user's code: text streams whose lines become log lines.

They are what Python's own are: `encoding`, `buffer`, `reconfigure`, `fileno` and the rest. To close or detach them has no
effect.
"""

import io
import os
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

LONGEST = 1 << 18
"""Bytes after which a line is written though it has not ended."""
_PROGRESS_SECONDS = 1.0

Emit = Callable[[str, str | None], None]
"""Writes one line. Arguments: its text, and the id of the request that printed it."""


class _Partial:
    """What one thread has printed of a line so far, and for which request."""

    __slots__ = ("pieces", "request", "shown", "size")

    def __init__(self) -> None:
        self.request: str | None = None
        self.shown = 0.0
        self.pieces: list[bytes] = []
        self.size = 0

    def take(self) -> bytes:
        """All of it, which is nothing afterwards."""
        pieces, self.pieces, self.size = self.pieces, [], 0
        return b"".join(pieces)


class Lines(io.BufferedIOBase):
    """The bytes that are printed, cut into lines; each thread has lines of its own."""

    mode = "wb"

    def __init__(self, name: str, descriptor: int, emit: Emit, request: Callable[[], str | None]) -> None:
        self.name = name
        self._descriptor = descriptor
        self._emit = emit
        self._request = request
        self._partials: dict[int, _Partial] = {}

    @property
    def raw(self) -> Any:
        """As of any buffered stream."""
        return self

    def writable(self) -> bool:
        """True."""
        return True

    def fileno(self) -> int:
        """The descriptor itself, for what is not Python. What is written to it is no line of JSON."""
        return self._descriptor

    def write(self, data: Any) -> int:
        """Emit the lines that end here."""
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
        if partial.size > LONGEST:
            self._show(partial.take(), partial)
        return len(data)

    def flush(self) -> None:
        """Emit what there is of a line; of a progress bar, which is drawn again and again, only now and then."""
        partial = self._own()
        if any(b"\r" in piece for piece in partial.pieces):
            now = time.monotonic()
            if now - partial.shown < _PROGRESS_SECONDS:
                return
            partial.shown = now
        self._show(partial.take(), partial)

    def flush_all(self) -> None:
        """Emit what all threads have begun."""
        for partial in list(self._partials.values()):
            self._show(partial.take(), partial)

    def forget(self) -> None:
        """Start empty, in a forked process."""
        self._partials.clear()

    def close(self) -> None:
        """Emit what there is; the stream stays open."""
        self.flush()

    def _own(self) -> _Partial:
        key, request = threading.get_ident(), self._request()
        partial = self._partials.get(key)
        if partial is None:
            partial = self._partials[key] = _Partial()
        if partial.request != request:
            # What an earlier request has left is a line of that request.
            self._show(partial.take(), partial)
            partial.request = request
        return partial

    def _show(self, data: bytes, partial: _Partial) -> None:
        line = data.decode(errors="backslashreplace")
        if "\r" in line:
            # What a terminal would show: each carriage return writes over what was there.
            line = next((part for part in reversed(line.split("\r")) if part.strip()), "")
        if line.strip():
            self._emit(line, partial.request)


class _Printed(io.TextIOWrapper):
    """Text that is printed. What can't be encoded is escaped."""

    def __init__(self, lines: Lines) -> None:
        super().__init__(lines, "utf-8", "backslashreplace", newline="\n", write_through=True)

    def close(self) -> None:
        """Emit what there is; the stream stays open."""
        self.flush()

    def reconfigure(self, *, errors: str | None = None, **others: Any) -> None:
        """Change how errors are handled; "strict", which could fail a print, and everything else have no effect."""
        if errors not in (None, "strict"):
            super().reconfigure(errors=errors)

    def detach(self) -> Any:
        """The stream of bytes; this one goes on writing to it."""
        self.flush()
        return self.buffer


def capture(emit: Emit, request: Callable[[], str | None]) -> list[Lines]:
    """Take the place of sys.stdout and sys.stderr. Returns the streams of bytes below.

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
