"""Balance connections: the least loaded worker of a replica accepts the next connection.

One worker at a time has the turn to accept. After each connection it passes the turn to the least loaded worker whose event loop
runs. If the turn is lost, or its holder does not accept, another worker takes it at its next tick.
"""

import asyncio
import contextlib
import errno
import logging
import select
import socket
from collections.abc import Callable
from time import perf_counter

from cortex_runtime.mailboxes import TURN, Mailboxes
from cortex_runtime.metrics.shared_memory import SharedMetrics

log = logging.getLogger("cortex")

_AT_ONCE = 64
_SILENCE = 0.5
"""Seconds without a tick after which a worker does not get the turn: its event loop is blocked."""
_PAUSE = 1.0
"""Seconds to wait after the system had no file descriptor or memory for a connection."""


class Acceptor:
    """One worker's part. slot: its row. connect: serves a connection. Used on the event loop alone."""

    def __init__(
        self,
        listener: socket.socket,
        shared_metrics: SharedMetrics,
        slot: int,
        mailboxes: Mailboxes,
        connect: Callable[[socket.socket], None],
    ) -> None:
        self._listener = listener
        self._shared_metrics = shared_metrics
        self._slot = slot
        self._mailboxes = mailboxes
        self._connect = connect
        self._has_turn = self._stopped = False
        self._accepted = -1.0
        self._waits = False

    def start(self) -> None:
        """Start to accept connections."""
        shared_metrics = self._shared_metrics
        # Start at the maximum: from zero, this worker would receive all new connections.
        shared_metrics.accepted[self._slot] = max(shared_metrics.accepted)
        shared_metrics.live[self._slot], shared_metrics.free[self._slot] = perf_counter(), 1.0
        self._listener.setblocking(False)
        self.take_turn()

    def stop(self) -> None:
        """Stop accepting and pass the turn."""
        self._stopped = True
        self._shared_metrics.live[self._slot] = self._shared_metrics.free[self._slot] = 0.0
        self._pass_turn(self._best())
        self._leave_turn()
        self._listener.close()

    def take_turn(self) -> None:
        """Accept the next connection."""
        if not self._has_turn and not self._stopped:
            self._has_turn = True
            asyncio.get_running_loop().add_reader(self._listener, self._accept)
        elif self._stopped:
            self._pass_turn(self._best())

    def tick(self) -> None:
        """Report that the event loop runs. Take the turn when a connection has waited since the last tick."""
        if self._stopped:
            return
        self._shared_metrics.live[self._slot] = perf_counter()
        if self._has_turn:
            return
        accepted = sum(self._shared_metrics.accepted)
        waited = self._waits and accepted == self._accepted
        self._waits, self._accepted = self._is_readable(), accepted
        if self._waits and waited:
            self._waits = False
            self.take_turn()

    def _accept(self) -> None:
        shared_metrics, slot = self._shared_metrics, self._slot
        for _ in range(_AT_ONCE):
            try:
                connection, _ = self._listener.accept()
            except (BlockingIOError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno not in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                    raise
                log.error("cannot accept a connection: %s", error.strerror)
                self._leave_turn()
                asyncio.get_running_loop().call_later(_PAUSE, self.take_turn)
                return
            shared_metrics.accepted[slot] += 1.0
            self._connect(connection)
            best = self._best()
            if best != slot and self._pass_turn(best):
                self._leave_turn()
                return

    def _best(self) -> int:
        """Return the slot of the least loaded worker."""
        shared_metrics, best, least = self._shared_metrics, self._slot, self._load(self._slot)
        since = perf_counter() - _SILENCE
        for slot in range(shared_metrics.slots):
            if shared_metrics.live[slot] > since:
                load = self._load(slot)
                if load < least:
                    best, least = slot, load
        return best

    def _load(self, slot: int) -> tuple[bool, bool, float, float]:
        shared_metrics = self._shared_metrics
        return (
            not shared_metrics.live[slot],
            not shared_metrics.free[slot],
            shared_metrics.connections[slot],
            shared_metrics.accepted[slot],
        )

    def _pass_turn(self, slot: int) -> bool:
        return slot != self._slot and self._mailboxes.send(slot, TURN, self._slot)

    def _leave_turn(self) -> None:
        if self._has_turn:
            self._has_turn = False
            asyncio.get_running_loop().remove_reader(self._listener)

    def _is_readable(self) -> bool:
        with contextlib.suppress(OSError):
            return bool(select.select([self._listener], [], [], 0)[0])
        return False
