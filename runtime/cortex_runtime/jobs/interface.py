"""The way of a handler's interface (openapi/jobs.py) from workers to gateways: an object in the store of the queue.

A worker process writes the interface after its start. The consumer stores it, and compares it with the stored one every minute:
during a rolling update the last worker may be an old one, and a queue server may lose its disk. It remains stored while there are
no workers. A gateway reads it when a client asks for the document.
"""

import asyncio
import logging
import math

from cortex_runtime.queues.base import Backend, Missing, QueueError

log = logging.getLogger("cortex")

_NAME = "interface/handler"
_CHECK_SECONDS, _RETRY_SECONDS = 60.0, 2.0
_CACHE_SECONDS = 1.0
_READ_SECONDS = 2.0


class InterfacePublisher:
    """Stores the interface of a consumer's handler. seconds: between two comparisons with the stored one."""

    def __init__(self, backend: Backend, seconds: float = _CHECK_SECONDS) -> None:
        self._backend = backend
        self._seconds = seconds
        self._content = b""
        self._changed = asyncio.Event()

    @property
    def is_known(self) -> bool:
        """Whether `set` was called."""
        return bool(self._content)

    def set(self, content: bytes) -> None:
        """Publish an interface from now on."""
        self._content = content
        self._changed.set()

    async def run(self) -> None:
        """Store the interface, and restore it when it was replaced or lost. Errors of the queue are retried."""
        await self._changed.wait()
        while True:
            self._changed.clear()
            pause = self._seconds
            try:
                await self._store(self._content)
            except QueueError as error:
                # The dispatcher reports a queue that is unreachable. Jobs run without a stored interface.
                log.debug("failed to store the interface of the handler: %s", error)
                pause = _RETRY_SECONDS
            try:
                async with asyncio.timeout(pause):
                    await self._changed.wait()
            except TimeoutError:
                pass

    async def _store(self, content: bytes) -> None:
        try:
            if await self._backend.get(_NAME) == content:
                return
        except Missing:
            pass
        await self._backend.put(_NAME, content, None)


class InterfaceReader:
    """Reads the stored interface for a gateway, at most every `seconds`."""

    def __init__(self, backend: Backend, seconds: float = _CACHE_SECONDS) -> None:
        self._backend = backend
        self._seconds = seconds
        self._content = b""
        self._read_at = -math.inf

    async def read(self) -> bytes:
        """Return the interface; empty if no worker has stored one. While the queue does not respond, the last known one."""
        now = asyncio.get_running_loop().time()
        if now - self._read_at >= self._seconds:
            self._read_at = now
            try:
                async with asyncio.timeout(_READ_SECONDS):
                    self._content = await self._backend.get(_NAME)
            except (QueueError, TimeoutError) as error:
                log.debug("failed to read the interface of the handler: %s", error)
        return self._content
