"""Extend uvicorn's WebSocket protocol: a shutdown that loses no message. Imported only for handlers with a WebSocket route."""

from collections.abc import Callable
from typing import Any

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol


def _ignore() -> None:
    """Do nothing."""


class OrderlyWebSocket(WebSocketsSansIOProtocol):
    """One WebSocket. On shutdown it is closed with code 1012 (service restart) as soon as its application waits for a message.

    on_lost: called when the connection has ended.
    """

    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self.on_lost: Callable[[], None] = _ignore
        self._is_waiting = self._is_stopping = False

    async def receive(self) -> Any:
        """Return the next message of the client."""
        if self._is_stopping and self.queue.empty():
            super().shutdown()
        self._is_waiting = True
        try:
            return await super().receive()
        finally:
            self._is_waiting = False

    def shutdown(self) -> None:
        """Close now, or when the application has handled the message that it works on."""
        if self._is_waiting and self.queue.empty():
            super().shutdown()
        else:
            self._is_stopping = True

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the owner of the connection."""
        super().connection_lost(exc)
        self.on_lost()
