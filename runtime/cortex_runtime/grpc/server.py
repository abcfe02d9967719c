"""The HTTP/2 server of gRPC: h2corn, in the event loop of the worker."""

import asyncio
import contextlib
import logging
import socket

import h2corn._lib
from h2corn import Config, Server
from starlette.types import ASGIApp

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


# Prints the version and the addresses to standard error, in a format of its own and without a setting that turns it off.
h2corn._lib.emit_banner = lambda config, tls: None


class Http2Server:
    """Serves an ASGI application over HTTP/2 without TLS. timeout: seconds that running calls have when the server stops."""

    def __init__(self, app: ASGIApp, timeout: float) -> None:
        self._app, self._timeout = app, timeout
        self._server: Server | None = None
        self._listener: socket.socket | None = None
        self._serving: asyncio.Task[None] | None = None

    async def start(self, listener: socket.socket) -> None:
        """Accept connections. listener: a listening socket, which is closed when the server stops."""
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
        self._server = Server(self._app, config)
        self._serving = asyncio.get_running_loop().create_task(self._server.serve())
        started = asyncio.get_running_loop().create_task(self._server.wait_started())
        await asyncio.wait((started, self._serving), return_when=asyncio.FIRST_COMPLETED)
        if self._serving.done():
            started.cancel()
            self._serving.result()
        await started
        self._listener = listener

    def begin_stop(self) -> None:
        """Accept nothing more, and end each connection after its running calls, with GOAWAY."""
        if self._server is None or self._listener is None:
            return
        self._server.shutdown()
        # The server keeps a copy of the descriptor until the last call has ended, and the system would queue connections for it.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._listener = None

    async def stopped(self) -> None:
        """Wait until all calls have ended, or were cancelled after the timeout."""
        if self._serving is None:
            return
        try:
            await self._serving
        except RuntimeError as error:
            log.warning("gRPC calls did not end in time: %s", error)
