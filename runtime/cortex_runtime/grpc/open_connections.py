"""Keeps the connections of a server that stops open until their clients have closed them.

h2corn sends GOAWAY and closes a connection at once if no call runs on it. If the client has sent a call meanwhile, the system
resets the connection. A client that notices this before it has read GOAWAY cannot know that no method has seen the call: it
reports UNAVAILABLE instead of sending the call to another replica. So the sockets are duplicated: the system resets a connection
only after its last copy is closed.
"""

import asyncio
import os
import select
import socket
import stat
from collections.abc import Iterator
from contextlib import suppress

_DESCRIPTORS = "/proc/self/fd"


class OpenConnections:
    """Copies of the sockets of connections. Used on the event loop. On systems other than Linux, it finds none."""

    def __init__(self) -> None:
        self._sockets: dict[int, socket.socket] = {}
        self._are_closed = asyncio.Event()
        self._are_closed.set()
        self._epoll: select.epoll | None = None

    def keep(self, port: int) -> None:
        """Keep all connections to a port of this process open until their clients have closed them."""
        known = {os.fstat(descriptor).st_ino for descriptor in self._sockets}
        for copy in _connections(port, known):
            if self._epoll is None:
                # Of unread bytes, which h2corn may still read, it reports nothing.
                self._epoll = select.epoll()
                asyncio.get_running_loop().add_reader(self._epoll.fileno(), self._on_closed)
            self._epoll.register(copy.fileno(), select.EPOLLRDHUP)
            self._sockets[copy.fileno()] = copy
            self._are_closed.clear()

    async def closed(self, seconds: float) -> None:
        """Wait until the clients have closed their connections, at most for some seconds, and close the copies."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._are_closed.wait(), seconds)
        if self._epoll is not None:
            asyncio.get_running_loop().remove_reader(self._epoll.fileno())
            self._epoll.close()
            self._epoll = None
        for each in self._sockets.values():
            each.close()
        self._sockets.clear()

    def _on_closed(self) -> None:
        assert self._epoll is not None
        for descriptor, _ in self._epoll.poll(0):
            self._epoll.unregister(descriptor)
            self._sockets.pop(descriptor).close()
        if not self._sockets:
            self._are_closed.set()


def _connections(port: int, known: set[int]) -> Iterator[socket.socket]:
    """Yield a copy of each connection of this process that has this local port. known: inodes of sockets to leave out."""
    if not os.path.isdir(_DESCRIPTORS):
        return
    for name in os.listdir(_DESCRIPTORS):
        try:
            found = os.fstat(int(name))
            if not stat.S_ISSOCK(found.st_mode) or found.st_ino in known:
                continue
            copy = socket.socket(fileno=os.dup(int(name)))
        except OSError:
            # It was closed meanwhile.
            continue
        if _is_connected(copy, port):
            known.add(found.st_ino)
            yield copy
        else:
            copy.close()


def _is_connected(found: socket.socket, port: int) -> bool:
    """Return whether a socket is a connection with this local port, not a listener."""
    try:
        is_tcp = found.family in (socket.AF_INET, socket.AF_INET6)
        return is_tcp and found.getsockname()[1] == port and bool(found.getpeername())
    except OSError:
        return False
