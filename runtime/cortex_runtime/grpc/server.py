"""The HTTP/2 server of gRPC: h2corn, in the event loop of the worker."""

import asyncio
import contextlib
import logging
import socket
from collections.abc import Callable

import h2corn._lib
from h2corn import Config, Server
from starlette.types import ASGIApp, Receive, Scope, Send

from cortex_runtime.grpc.open_connections import OpenConnections

log = logging.getLogger("cortex")

_HEADER_BYTES = 64 * 1024
"""Maximum size of the metadata of a call."""
_STREAMS = 4096
"""Concurrent calls on one connection; further calls wait in the client. More than the default of maxReplicaConcurrency, so that
clients of a full replica get UNAVAILABLE."""
_FRAME_BYTES = 4 * 1024 * 1024
"""Maximum size of a frame. A message of several frames is copied, and each frame wakes the event loop."""
_IDLE_SECONDS = 7200
"""Time after which a connection without calls is closed. Clients keep theirs, and open another one when they need it."""

_DRAIN_SECONDS = 1.0
"""Time that clients have to connect again, before the connections of those that did are ended once more."""
_CLOSE_SECONDS = 2.0
"""Time that clients have to close their connections after GOAWAY and their last calls. Usually they do that at once."""


# Prints the version and the addresses to standard error, in a format of its own and without a setting that turns it off.
h2corn._lib.emit_banner = lambda config, tls: None


class Http2Server:
    """Serves an ASGI application over HTTP/2 without TLS. timeout: seconds that running calls have when the server stops."""

    def __init__(self, app: ASGIApp, timeout: float) -> None:
        self._app, self._timeout = app, timeout
        self._server: Server | None = None
        self._listener: socket.socket | None = None
        self._serving: set[asyncio.Task[None]] = set()
        self._draining: asyncio.Task[None] | None = None
        self._stopping = asyncio.Event()
        self._connections = OpenConnections()
        self._port = 0

    async def start(self, listener: socket.socket) -> None:
        """Accept connections. listener: a listening socket, which is closed when the server stops."""
        self._server = await self._serve(self._app, listener)
        self._listener = listener
        self._port = listener.getsockname()[1]

    async def _serve(self, app: ASGIApp, listener: socket.socket) -> Server:
        """Start a server, and return it once it accepts connections."""
        config = Config(
            bind=(f"fd://{listener.fileno()}",),
            runtime_threads=1,
            lifespan="off",
            grpc=True,
            http1=False,
            access_log=False,
            log_format="json",
            date_header=False,
            max_concurrent_streams=_STREAMS,
            limit_request_head_size=_HEADER_BYTES,
            h2_max_header_list_size=_HEADER_BYTES,
            h2_max_header_block_size=_HEADER_BYTES,
            limit_request_field_size=_HEADER_BYTES,
            timeout_keep_alive=_IDLE_SECONDS,
            timeout_graceful_shutdown=self._timeout,
            h2_timeout_response_stall=0,
            h2_max_inbound_frame_size=_FRAME_BYTES,
        )
        server = Server(app, config)
        serving = asyncio.create_task(server.serve())
        started = asyncio.create_task(server.wait_started())
        await asyncio.wait((started, serving), return_when=asyncio.FIRST_COMPLETED)
        if serving.done():
            started.cancel()
            serving.result()
        await started
        self._serving.add(serving)
        return server

    def drain(self, on_connection: Callable[[], None]) -> None:
        """End each connection after its running calls, with GOAWAY, and still accept new ones.

        Clients then connect to another replica, or again to this one if proxies still send connections to it.
        on_connection: called for each new connection with a call.
        """
        if self._draining is None:
            self._draining = asyncio.create_task(self._drain(on_connection))

    async def _drain(self, on_connection: Callable[[], None]) -> None:
        """Replace the server by another one on the same socket: only a server that stops ends its connections."""
        assert self._listener is not None
        assert self._server is not None
        while not self._stopping.is_set():
            clients: set[tuple[str, int]] = set()

            async def app(
                scope: Scope, receive: Receive, send: Send, clients: set[tuple[str, int]] = clients
            ) -> None:
                if scope["client"] not in clients:
                    clients.add(scope["client"])
                    on_connection()
                await self._app(scope, receive, send)

            try:
                server = await self._serve(app, self._listener)
            except (OSError, RuntimeError, ValueError) as error:
                if not self._stopping.is_set():
                    log.warning("gRPC connections stay open until the replica stops: %s", error)
                return
            self._shut_down(self._server)
            self._server = server
            await self._pause()
            while not clients and not self._stopping.is_set():
                await self._pause()
        self._shut_down(self._server)

    def _shut_down(self, server: Server) -> None:
        """End the connections of a server."""
        self._connections.keep(self._port)
        server.shutdown()

    async def _pause(self) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), _DRAIN_SECONDS)

    def begin_stop(self) -> None:
        """Accept nothing more, and end each connection after its running calls, with GOAWAY."""
        if self._server is None or self._listener is None or self._stopping.is_set():
            return
        self._stopping.set()
        self._shut_down(self._server)
        # The server keeps a copy of the descriptor until the last call has ended, and the system would queue connections for it.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    async def stopped(self) -> None:
        """Wait until all calls have ended, or were cancelled after the timeout, and the clients have closed their connections."""
        if self._draining is not None:
            await self._draining
        results = await asyncio.gather(*self._serving, return_exceptions=True)
        await self._connections.closed(_CLOSE_SECONDS)
        for result in results:
            if isinstance(result, RuntimeError):
                log.warning("gRPC calls did not end in time: %s", result)
            elif result is not None:
                raise result
