"""The HTTP server of workers and admin port: uvicorn, told by us when to stop."""

import contextlib
import socket
from collections.abc import Callable, Iterator
from typing import Any

import uvicorn
from starlette.types import ASGIApp


class Server(uvicorn.Server):
    """uvicorn, with signals left to the supervisor and a word once it listens."""

    def __init__(self, config: uvicorn.Config, started: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_started = started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start listening, and tell."""
        await super().startup(sockets)
        self._on_started()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Install nothing."""
        yield


def plain(app: ASGIApp, **own: Any) -> uvicorn.Config:
    """uvicorn's settings for HTTP alone, without its log, which is not JSON. own: what this server wants beside them."""
    return uvicorn.Config(
        app, ws="none", lifespan="off", log_config=None, access_log=False, server_header=False, **own
    )
