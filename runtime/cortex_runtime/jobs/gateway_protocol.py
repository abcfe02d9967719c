"""The HTTP protocol of a gateway: sends the head of a response together with its body.

uvicorn writes them one after the other, each with a system call and a packet. A gateway sends small responses, whose cost that
doubles.
"""

import asyncio
from typing import Any

from cortex_runtime.http.protocol import GracefulProtocol


class JoinedWrites:
    """A transport that joins the head of a response with what follows in the same iteration of the loop."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._head = b""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """Send data, or hold the head of a response."""
        if self._head:
            head, self._head = self._head, b""
            self._transport.writelines((head, data))
        elif data.startswith(b"HTTP/1.1 ") and data.endswith(b"\r\n\r\n"):
            self._head = data
            self._loop.call_soon(self._flush)
        else:
            self._transport.write(data)

    def close(self) -> None:
        """Close the connection after everything was sent."""
        self._flush()
        self._transport.close()

    def _flush(self) -> None:
        if self._head:
            head, self._head = self._head, b""
            self._transport.write(head)


class GatewayProtocol(GracefulProtocol):
    """One connection of a gateway."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Handle a new connection."""
        super().connection_made(JoinedWrites(transport, self.loop))  # type: ignore[arg-type]
