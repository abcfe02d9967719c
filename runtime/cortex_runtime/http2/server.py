"""The server: accepts connections from a listening socket, and drains them."""

import asyncio
import contextlib
import contextvars
import errno
import logging
import socket
from collections.abc import Mapping

from cortex_runtime.http2.call import Method
from cortex_runtime.http2.connection import Connection

log = logging.getLogger("cortex")

_PAUSE = 1.0
"""Seconds to wait after the system had no file descriptor or memory for a connection."""


class Server:
    """Serves gRPC methods.

    methods: by path, such as b"/package.Service/Method". max_message: bytes of the largest message of a request. Calls start with
    a copy of the current context.
    """

    def __init__(self, methods: Mapping[bytes, Method], max_message: int) -> None:
        self.methods = methods
        self.max_message = max_message
        self.connections: set[Connection] = set()
        self.context = contextvars.copy_context()
        self._listener: socket.socket | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._empty = asyncio.Event()

    def start(self, listener: socket.socket) -> None:
        """Accept connections. Several processes may accept from one socket."""
        self._loop = asyncio.get_running_loop()
        self._listener = listener
        listener.setblocking(False)
        self._listen()

    def _listen(self) -> None:
        if self._listener is not None:
            self._loop.add_reader(self._listener, self._accept)

    def _accept(self) -> None:
        """Accept one connection, so that another process may have the next."""
        assert self._listener is not None
        try:
            connection, _ = self._listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        except OSError as error:
            if error.errno not in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                raise
            log.error("cannot accept a connection: %s", error.strerror)
            self._loop.remove_reader(self._listener)
            self._loop.call_later(_PAUSE, self._listen)
            return
        with contextlib.suppress(OSError):
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        task = self._loop.create_task(self._connect(connection))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _connect(self, connection: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(lambda: Connection(self), connection)
        except OSError:
            # The client closed it at once.
            connection.close()

    def remove(self, connection: Connection) -> None:
        """Forget a connection that is closed."""
        self.connections.discard(connection)
        if not self.connections:
            self._empty.set()

    def drain(self) -> None:
        """Ask all clients to open no further streams on their connections. New connections are accepted."""
        for connection in list(self.connections):
            connection.drain()

    async def stop(self, timeout: float) -> None:
        """Accept nothing more, and wait until all calls have ended. timeout: seconds after which they are cancelled."""
        if self._listener is not None:
            self._loop.remove_reader(self._listener)
            self._listener.close()
            self._listener = None
        self.drain()
        self._empty.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                while self.connections:
                    await self._empty.wait()
        for connection in list(self.connections):
            connection.transport.abort()
