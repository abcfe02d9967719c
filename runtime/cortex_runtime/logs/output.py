"""Log lines on their way to stdout. No caller waits, however slow the reader is, or when it is gone; nothing is raised.

A line is written at once where the reader keeps up. Otherwise it waits in memory, within bounds, and a thread passes it on.
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

MOST_WAITING = 4 << 20
"""Bytes of lines that may wait for the reader; lines beyond that are dropped and counted."""
_ATOMIC = select.PIPE_BUF
"""Bytes that a pipe takes in one piece, whatever other processes write meanwhile."""


class Output:
    """The lines of one process. dropped: returns the line that reports how many lines were lost."""

    def __init__(self, descriptor: int, dropped: Callable[[int], bytes]) -> None:
        self._report = dropped
        self._descriptor, self._send = _sender(descriptor)
        self._given: deque[bytes] = deque()
        self._forget()
        os.register_at_fork(after_in_child=self._forget)

    def _forget(self) -> None:
        """Start empty: what a forked process inherits is the parent's to write."""
        self._lock = _thread.allocate_lock()
        self._given.clear()
        self._waiting: deque[bytes] = deque()
        self._size = self._lost = 0
        self._piece = b""
        self._relayed = False

    def write(self, *lines: bytes) -> None:
        """Write whole lines, each with its end of line. Safe in threads and in signal handlers."""
        self._given.extend(lines)
        # Nobody waits for the lock: its holder takes what others have given, or they find it free when it has just left.
        while self._given and self._lock.acquire(blocking=False):
            try:
                self._pass_on()
            finally:
                self._lock.release()

    def flush(self, seconds: float) -> None:
        """Wait until all is written, for a process that is about to end; seconds: at most."""
        end = time.monotonic() + seconds
        while self._is_pending() and (left := end - time.monotonic()) > 0:
            _writable(self._descriptor, min(left, 0.05))
            self._try()

    def _is_pending(self) -> bool:
        return bool(self._given or self._waiting or self._piece)

    def _try(self) -> None:
        if self._lock.acquire(blocking=False):
            try:
                self._pass_on()
            finally:
                self._lock.release()

    def _pass_on(self) -> None:
        """Write what there is, as far as the reader takes it."""
        while self._take():
            try:
                sent = self._send(self._piece)
            except BlockingIOError:
                self._relay()
                return
            except OSError:
                # The reader is gone, or the disk is full: there is nobody to tell.
                self._piece = b""
                self._waiting.clear()
                self._size = self._lost = 0
            else:
                self._piece = self._piece[sent:]

    def _take(self) -> bool:
        """Choose what to write next. Returns whether there is anything."""
        while self._given:
            line = self._given.popleft()
            if self._waiting and self._size + len(line) > MOST_WAITING:
                self._lost += 1
            else:
                self._waiting.append(line)
                self._size += len(line)
        if self._piece:
            return True
        if not self._waiting:
            if not self._lost:
                return False
            self._waiting.append(self._report(self._lost))
            self._size, self._lost = len(self._waiting[0]), 0
        lines = [self._waiting.popleft()]
        size = len(lines[0])
        while self._waiting and size + len(self._waiting[0]) <= _ATOMIC:
            lines.append(self._waiting.popleft())
            size += len(lines[-1])
        self._size -= size
        self._piece = lines[0] if len(lines) == 1 else b"".join(lines)
        return True

    def _relay(self) -> None:
        """Have a thread write the rest. Not one of `threading`, whose start waits for the thread."""
        if not self._relayed:
            self._relayed = True
            try:
                _thread.start_new_thread(self._keep_trying, ())
            except RuntimeError:
                self._relayed = False

    def _keep_trying(self) -> None:
        while self._relayed:
            while self._is_pending():
                _writable(self._descriptor, 1.0)
                self._try()
            self._relayed = False
            # A line may have come in between, whose writer took this thread to be at work still.
            self._relayed = self._is_pending()


def _sender(descriptor: int) -> tuple[int, Callable[[bytes], int]]:
    """(a descriptor of our own, what writes to it and raises BlockingIOError instead of waiting).

    The descriptor that was inherited stays as it is: others share its flags. A file is written through the very same open
    file, since it has one position for all that write to it; it never makes a writer wait for a reader.
    """
    try:
        own = os.dup(descriptor)
        mode = os.fstat(own).st_mode
    except OSError:
        # It is closed, and its number may come to be another file's.
        return descriptor, _drop
    if stat.S_ISSOCK(mode):
        connection = socket.socket(fileno=own)
        return own, lambda data: connection.send(data, socket.MSG_DONTWAIT)
    if stat.S_ISFIFO(mode) or stat.S_ISCHR(mode):
        try:
            apart = os.open(f"/proc/self/fd/{own}", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY)
        except OSError:
            return own, partial(_write_if_ready, own)
        os.close(own)
        return apart, partial(os.write, apart)
    return own, partial(os.write, own)


def _drop(data: bytes) -> int:
    return len(data)


def _write_if_ready(descriptor: int, data: bytes) -> int:
    if not _writable(descriptor, 0):
        raise BlockingIOError
    return os.write(descriptor, data[:_ATOMIC])


def _writable(descriptor: int, seconds: float) -> bool:
    """Wait until a descriptor can be written to, or its reader has gone. Returns whether that is so."""
    try:
        poll = select.poll()
        poll.register(descriptor, select.POLLOUT)
        return bool(poll.poll(seconds * 1000))
    except OSError:
        return True
