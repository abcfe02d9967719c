"""GET requests to the admin port of pods: one connection each, small responses, a deadline.

Every running pod is polled every ten seconds; the session of an HTTP library would cost about twice the CPU time.
"""

import asyncio
import json
from typing import Any

from cortex_api.contract import ADMIN_PORT

Object = dict[str, Any]

RESPONSE_TIMEOUT = 3.0
"""Seconds until a request fails."""
MAX_CONCURRENT = 64
"""Concurrent requests."""
_MAX_SIZE = 256 * 1024


class PodClient:
    """A client of the admin ports of pods."""

    def __init__(self, port: int = ADMIN_PORT) -> None:
        self._port = port
        self._turn = asyncio.Semaphore(MAX_CONCURRENT)

    async def get(self, pod: Object, path: str) -> tuple[int, Any] | None:
        """Return status and JSON of the response; None when the pod cannot be reached or a response is not JSON. The body of an
        error response is None if it is not JSON."""
        host = pod.get("status", {}).get("podIP")
        if not host:
            return None
        try:
            async with self._turn, asyncio.timeout(RESPONSE_TIMEOUT):
                return _parse(await self._exchange(host, path))
        except (OSError, TimeoutError, ValueError, RecursionError):
            return None

    async def _exchange(self, host: str, path: str) -> bytes:
        reader, writer = await asyncio.open_connection(host, self._port)
        try:
            # HTTP/1.0: the response is not chunked, and ends with the connection.
            writer.write(f"GET {path} HTTP/1.0\r\nhost: {host}\r\n\r\n".encode("ascii"))
            content = bytearray()
            while part := await reader.read(65536):
                content += part
                if len(content) > _MAX_SIZE:
                    raise ValueError("the response is too long")
            return bytes(content)
        finally:
            writer.transport.abort()


def _parse(answer: bytes) -> tuple[int, Any]:
    """Parse a response. Raises ValueError."""
    head, separator, body = answer.partition(b"\r\n\r\n")
    words = head.split(None, 2)
    if not separator or len(words) < 2 or not words[0].startswith(b"HTTP/1."):
        raise ValueError("not an HTTP response")
    status = int(words[1])
    try:
        return status, json.loads(body)
    except ValueError:
        if status < 400:
            raise
        return status, None
