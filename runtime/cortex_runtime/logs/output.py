"""Write log lines to stdout without blocking the caller, even if the reader is slow or has closed the pipe. Never raises.

Lines are written at once if the reader keeps up. Otherwise they are buffered in memory up to a limit, and a thread writes them.
"""

import _thread
import os
import select
import socket
import stat
import time
from collections import deque
from collections.abc import Callable
from functools import partial

MAX_BUFFERED = 4 << 20
"""Maximum size of the buffered lines in bytes. Lines beyond it are dropped and counted."""
_ATOMIC = select.PIPE_BUF
"""Bytes that a pipe accepts in one piece, without lines of other processes in between."""


class Output:
    """The output of one process. dropped: returns the line that reports the number of dropped lines."""

    def __init__(self, descriptor: int, dropped: Callable[[int], bytes]) -> None:
        self._report = dropped
        self._descriptor, self._send = _sender(descriptor)
        self._submitted: deque[bytes] = deque()
        self._reset()
        os.register_at_fork(after_in_child=self._reset)

    def _reset(self) -> None:
        """Start with an empty buffer. In a forked process, the inherited lines belong to the parent."""
        self._lock = _thread.allocate_lock()
        self._submitted.clear()
        self._buffer: deque[bytes] = deque()
        self._size = self._dropped = 0
        self._chunk = b""
        self._has_thread = False

    def write(self, *lines: bytes) -> None:
        """Write complete lines, including their newline characters. Thread-safe, and safe in signal handlers."""
        self._submitted.extend(lines)
        # The lock never blocks: its owner also writes the lines that others submit. If the owner has just left, the lock is free.
        while self._submitted and self._lock.acquire(blocking=False):
            try:
                self._write_buffered()
            finally:
                self._lock.release()

    def flush(self, seconds: float) -> None:
        """Wait until everything is written, at most `seconds`. Called before a process exits."""
        end = time.monotonic() + seconds
        while self._is_pending() and (left := end - time.monotonic()) > 0:
            _writable(self._descriptor, min(left, 0.05))
            self._write_unless_locked()

    def _is_pending(self) -> bool:
        return bool(self._submitted or self._buffer or self._chunk)

    def _write_unless_locked(self) -> None:
        if self._lock.acquire(blocking=False):
            try:
                self._write_buffered()
            finally:
                self._lock.release()

    def _write_buffered(self) -> None:
        """Write lines until the reader blocks or none is left."""
        while self._next_chunk():
            try:
                sent = self._send(self._chunk)
            except BlockingIOError:
                self._start_thread()
                return
            except OSError:
                # The reader has closed the pipe, or the disk is full. The error can't be reported anywhere.
                self._chunk = b""
                self._buffer.clear()
                self._size = self._dropped = 0
            else:
                self._chunk = self._chunk[sent:]

    def _next_chunk(self) -> bool:
        """Prepare the next bytes to write. Return whether there are any."""
        while self._submitted:
            line = self._submitted.popleft()
            if self._buffer and self._size + len(line) > MAX_BUFFERED:
                self._dropped += 1
            else:
                self._buffer.append(line)
                self._size += len(line)
        if self._chunk:
            return True
        if not self._buffer:
            if not self._dropped:
                return False
            self._buffer.append(self._report(self._dropped))
            self._size, self._dropped = len(self._buffer[0]), 0
        lines = [self._buffer.popleft()]
        size = len(lines[0])
        while self._buffer and size + len(self._buffer[0]) <= _ATOMIC:
            lines.append(self._buffer.popleft())
            size += len(lines[-1])
        self._size -= size
        self._chunk = lines[0] if len(lines) == 1 else b"".join(lines)
        return True

    def _start_thread(self) -> None:
        """Start a thread that writes the rest. Uses _thread, because Thread.start of `threading` blocks until the thread runs."""
        if not self._has_thread:
            self._has_thread = True
            try:
                _thread.start_new_thread(self._keep_trying, ())
            except RuntimeError:
                self._has_thread = False

    def _keep_trying(self) -> None:
        while self._has_thread:
            while self._is_pending():
                _writable(self._descriptor, 1.0)
                self._write_unless_locked()
            self._has_thread = False
            # A line may have been buffered before the flag was cleared, without starting another thread.
            self._has_thread = self._is_pending()


def _sender(descriptor: int) -> tuple[int, Callable[[bytes], int]]:
    """Return a separate descriptor, and a function that writes to it and raises BlockingIOError instead of blocking.

    The flags of the inherited descriptor don't change, because other processes share them. A regular file is written through the
    same open file description, because all writers share its position; it never blocks.
    """
    try:
        own = os.dup(descriptor)
        mode = os.fstat(own).st_mode
    except OSError:
        # The descriptor is closed, and its number may be reused for another file.
        return descriptor, _drop
    if stat.S_ISSOCK(mode):
        connection = socket.socket(fileno=own)
        return own, lambda data: connection.send(data, socket.MSG_DONTWAIT)
    if stat.S_ISFIFO(mode) or stat.S_ISCHR(mode):
        try:
            separate = os.open(f"/proc/self/fd/{own}", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY)
        except OSError:
            return own, partial(_write_if_ready, own)
        os.close(own)
        return separate, partial(os.write, separate)
    return own, partial(os.write, own)


def _drop(data: bytes) -> int:
    return len(data)


def _write_if_ready(descriptor: int, data: bytes) -> int:
    if not _writable(descriptor, 0):
        raise BlockingIOError
    return os.write(descriptor, data[:_ATOMIC])


def _writable(descriptor: int, seconds: float) -> bool:
    """Wait until a descriptor is writable or its reader has closed it. Return whether it is."""
    try:
        poll = select.poll()
        poll.register(descriptor, select.POLLOUT)
        return bool(poll.poll(seconds * 1000))
    except OSError:
        return True
