"""Serve the page on a loopback address."""

import secrets
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass

import uvicorn

from cortex_cli.connection import Cluster
from cortex_cli.local.ports import HOST
from cortex_cli.ui import app

_STOP_SECONDS = 1


@dataclass(frozen=True)
class Page:
    """A server that is about to run. url: contains the token."""

    url: str
    server: uvicorn.Server
    listener: socket.socket

    def run(self) -> None:
        """Serve until Ctrl-C."""
        self.server.run([self.listener])

    def start(self) -> None:
        """Serve in a thread until this process exits."""
        self.server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
        threading.Thread(target=self.run, daemon=True).start()


def prepare(connect: Callable[[], Cluster], namespace: str, port: int) -> Page:
    """Listen on a port (0 for a free one), and create the server. Raises OSError if the port is in use.

    connect: opens the cluster. namespace: "" for all namespaces.
    """
    listener = socket.create_server((HOST, port))
    port = listener.getsockname()[1]
    token = secrets.token_urlsafe(24)
    application = app.create(app.Backend(connect, namespace), token, port)
    config = uvicorn.Config(
        application,
        http="h11",
        lifespan="off",
        access_log=False,
        log_level="warning",
        timeout_graceful_shutdown=_STOP_SECONDS,
        server_header=False,
    )
    return Page(f"http://{HOST}:{port}/?token={token}", uvicorn.Server(config), listener)
