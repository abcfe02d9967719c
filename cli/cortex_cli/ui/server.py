"""Serve the page on a loopback address."""

import contextlib
import secrets
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass

import uvicorn

from cortex_cli.connection import Cluster, ClusterError
from cortex_cli.local.ports import HOST
from cortex_cli.ui import app
from cortex_cli.ui.backend import Backend
from cortex_cli.ui.prometheus import Prometheus

_STOP_SECONDS = 3
"""For open streams to end, which look for it every second."""


@dataclass(frozen=True)
class Page:
    """A server that is about to run. url: contains the token."""

    url: str
    backend: Backend
    server: uvicorn.Server
    listener: socket.socket

    def run(self) -> None:
        """Serve until Ctrl-C or `stop`. The APIs are read already before the page is opened."""
        threading.Thread(target=self._connect, daemon=True).start()
        try:
            self.server.run([self.listener])
        finally:
            self.backend.close()

    def _connect(self) -> None:
        with contextlib.suppress(ClusterError):
            # The page connects again, and shows the error.
            self.backend.open()

    def start(self) -> threading.Thread:
        """Serve in a thread until this process exits, or `stop`. Return the thread."""
        thread = threading.Thread(target=self.run, daemon=True)
        thread.start()
        return thread

    def stop(self) -> None:
        """End the server, and what it reads from the cluster, soon."""
        self.server.should_exit = True


def prepare(
    connect: Callable[[], Cluster],
    namespace: str,
    port: int,
    prometheus: str | None = None,
    command: str = "cortex ui",
) -> Page:
    """Listen on a port (0 for a free one), and create the server. Raises OSError if the port is in use.

    connect: opens the cluster. namespace: "" for all namespaces. prometheus: the URL of a server with the history, if any.
    command: the command that serves the page, as the user calls it.
    """
    listener = socket.create_server((HOST, port))
    port = listener.getsockname()[1]
    token = secrets.token_urlsafe(24)
    backend = Backend(connect, namespace, Prometheus(prometheus) if prometheus else None)
    application = app.create(backend, token, port, command)
    config = uvicorn.Config(
        application,
        http="h11",
        lifespan="off",
        access_log=False,
        log_level="warning",
        timeout_graceful_shutdown=_STOP_SECONDS,
        server_header=False,
    )
    server = uvicorn.Server(config)
    backend.is_stopping = lambda: server.should_exit
    return Page(f"http://{HOST}:{port}/?token={token}", backend, server, listener)
