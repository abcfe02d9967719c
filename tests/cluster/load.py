"""A load generator that counts every response: some clients keep their connection, some open one for each request."""

import asyncio
import threading
from collections import Counter
from types import TracebackType
from typing import Self

import httpx


class Load:
    """Sends requests from several clients, one at a time each, while the `with` block runs.

    counts: by HTTP status, or by the name of the error. sent: number of requests.
    """

    def __init__(self, url: str, clients: int = 8, headers: dict[str, str] | None = None) -> None:
        self._url = url
        self._headers = headers
        self._clients = clients
        self._stop = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))
        self.counts: Counter[str] = Counter()
        self.errors: list[str] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    @property
    def sent(self) -> int:
        return sum(self.counts.values())

    @property
    def lost(self) -> dict[str, int]:
        """Return the responses other than 200."""
        return {what: count for what, count in self.counts.items() if what != "200"}

    async def _run(self) -> None:
        await asyncio.gather(*(self._client(keeps=number % 2 == 0) for number in range(self._clients)))

    async def _client(self, keeps: bool) -> None:
        limits = httpx.Limits(max_keepalive_connections=1 if keeps else 0)
        async with httpx.AsyncClient(limits=limits, timeout=30, headers=self._headers) as client:
            number = 0
            while not self._stop.is_set():
                number += 1
                try:
                    answer = await client.post(self._url, json=number)
                    right = answer.status_code != 200 or answer.json()["got"] == number
                    self.counts[str(answer.status_code) if right else "wrong answer"] += 1
                except httpx.TransportError as error:
                    self.counts[type(error).__name__] += 1
                    self.errors.append(f"{'kept' if keeps else 'fresh'} connection: {error!r}")
                await asyncio.sleep(0.005)
