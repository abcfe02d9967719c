"""A request body that is read completely before a version is asked, so that another version can read it again."""

import asyncio
from typing import Any

from starlette.types import Message, Receive


class BufferedBody:
    """An ASGI `receive` that returns what was read before, then what follows.

    body: what was read. is_complete: whether that is the whole body. `__self__` is the server's request, as for the method
    that it replaces.
    """

    __slots__ = ("__self__", "_receive", "_replayed", "body", "is_complete", "is_disconnected")

    def __init__(self, receive: Receive) -> None:
        self.__self__: Any = getattr(receive, "__self__", None)
        self._receive = receive
        self._replayed = False
        self.body = b""
        self.is_complete = False
        self.is_disconnected = False

    async def read(self, limit: int, timeout: float) -> None:
        """Read the body until it is complete, longer than `limit` bytes, or late (timeout in seconds), or the client is gone."""
        parts: list[bytes] = []
        size = 0
        try:
            # A timer costs more than to read a body that has arrived.
            async with asyncio.timeout(None if self._has_arrived() else timeout):
                while size <= limit:
                    message = await self._receive()
                    if message["type"] == "http.disconnect":
                        self.is_disconnected = True
                        break
                    part = message.get("body", b"")
                    size += len(part)
                    parts.append(part)
                    if not message.get("more_body", False):
                        self.is_complete = True
                        break
        except TimeoutError:
            pass
        self.body = parts[0] if len(parts) == 1 else b"".join(parts)

    async def __call__(self) -> Message:
        """Return the next message."""
        if not self._replayed:
            self._replayed = True
            return {"type": "http.request", "body": self.body, "more_body": not self.is_complete}
        if self.is_disconnected:
            return {"type": "http.disconnect"}
        return await self._receive()

    def _has_arrived(self) -> bool:
        return getattr(self.__self__, "more_body", True) is False
