"""The HTTP server of workers, gateways and admin ports: uvicorn without its signal handling."""

import asyncio
import contextlib
import socket
from collections.abc import Callable, Iterator
from typing import Any

from starlette.types import ASGIApp
from uvicorn.config import Config
from uvicorn.server import Server as UvicornServer

from cortex_runtime.http.protocol import GracefulProtocol

_KEEP_ALIVE_SECONDS = 620
"""Time after which a connection without requests is closed. Proxies and load balancers close theirs before (60 s to 600 s): a
client that sends a request while the server closes the connection would lose it."""


class AdminProtocol(GracefulProtocol):
    """One connection of an admin port. On shutdown, it hardly waits for further requests, because its clients repeat theirs."""

    linger_seconds = 0.02


class Server(UvicornServer):
    """A uvicorn server that leaves signals to the supervisor and calls `started` once it listens."""

    def __init__(self, config: Config, started: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_started = started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start to listen, then call `started`."""
        await super().startup(sockets)
        self._on_started()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Install no signal handlers."""
        yield


def counted(protocol: type[asyncio.Protocol], on_connection: Callable[[], None]) -> Any:
    """Return uvicorn's setting `http` for a protocol. on_connection: called for each new connection."""

    def connect(**arguments: Any) -> asyncio.Protocol:
        on_connection()
        return protocol(**arguments)

    return connect


def plain(app: ASGIApp, **own: Any) -> Config:
    """Return uvicorn's configuration for plain HTTP, without its logs, which are not JSON. own: further settings of uvicorn."""
    settings: dict[str, Any] = {"http": AdminProtocol, "ws": "none", "lifespan": "off"}
    settings |= {"log_config": None, "access_log": False}
    settings |= {"server_header": False, "timeout_keep_alive": _KEEP_ALIVE_SECONDS}
    return Config(app, **{**settings, **own})
