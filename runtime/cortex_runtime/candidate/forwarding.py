"""Forward requests to the candidate, and answer with its responses."""

import asyncio
import itertools
import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

from starlette.types import Receive, Send

from cortex_api.contract import CANDIDATE, VERSION_HEADER
from cortex_runtime.candidate.breaker import Breaker
from cortex_runtime.candidate.client import HOP_BY_HOP, CandidateFailed, Client, Request, Response
from cortex_runtime.candidate.deadlines import Deadlines
from cortex_runtime.errors import ClientDisconnected
from cortex_runtime.http.request_body import disconnect

log = logging.getLogger("cortex")
T = TypeVar("T")

_VERSION = (VERSION_HEADER.encode(), CANDIDATE.encode())
_LEFT_OUT = HOP_BY_HOP | {_VERSION[0], b"date"}
"""The server adds `date` itself."""
_SEVERAL = 2
_CONFIRM_SECONDS = 0.05


class ResponseAborted(Exception):
    """The candidate has failed after its first byte. The only way to report that is to close the client's connection."""


class Forwarder:
    """Sends requests to the candidate within the deadlines, and reports the outcome to the breaker.

    part_timeout: seconds for each further part of a response.
    """

    def __init__(self, client: Client, breaker: Breaker, deadlines: Deadlines, part_timeout: float) -> None:
        self._client, self._breaker, self._deadlines = client, breaker, deadlines
        self._part_timeout = part_timeout
        # In order of their start, with its time.
        self._pending: dict[asyncio.Timeout, float] = {}
        self._answered_at = float("-inf")
        self._watchdog: asyncio.TimerHandle | None = None
        self._is_suspected = False

    async def ask(
        self, request: Request, added: Iterable[tuple[str, str]] = (), client: "_ClientWatch | None" = None
    ) -> Response:
        """Return a response whose first byte has arrived; the caller must close it.

        client: ends the wait when the client disconnects. Raises CandidateFailed, and ClientDisconnected.
        """
        return await self.within(lambda: self._client.send(request, added), client)

    async def within(self, send: Callable[[], Awaitable[T]], client: "_ClientWatch | None" = None) -> T:
        """Return what a function returns that sends a request. Raises CandidateFailed, and ClientDisconnected.

        client: ends the wait when the client disconnects.
        """
        self._deadlines.update()
        seconds = self._deadlines.first_byte
        timer = asyncio.timeout(seconds)
        try:
            async with timer:
                self._start(timer)
                if client is not None:
                    client.limit(timer)
                response = await send()
        except TimeoutError:
            if client is not None and client.is_gone:
                raise ClientDisconnected from None
            reason = f"no response within {seconds:.3g} s"
            self._breaker.record_failure(reason, is_timeout=True)
            raise CandidateFailed(reason, is_late=True) from None
        except CandidateFailed as error:
            self._breaker.record_failure(str(error))
            raise
        finally:
            self._pending.pop(timer, None)
        self._answered_at = asyncio.get_running_loop().time()
        self._breaker.record_success()
        return response

    def _start(self, timer: asyncio.Timeout) -> None:
        loop = asyncio.get_running_loop()
        self._pending[timer] = loop.time()
        if self._watchdog is None:
            self._watchdog = loop.call_later(self._deadlines.silence / 2, self._watch)

    def _watch(self) -> None:
        """Notice that the candidate hangs: several requests wait, and nothing was answered meanwhile."""
        self._watchdog = None
        if not self._pending:
            self._is_suspected = False
            return
        loop, silence = asyncio.get_running_loop(), self._deadlines.silence
        limit = loop.time() - silence
        late = sum(started <= limit for started in itertools.islice(self._pending.values(), _SEVERAL))
        is_silent = late == _SEVERAL and self._answered_at <= limit
        if is_silent and self._is_suspected:
            self._breaker.record_hang(f"no response within {silence:.3g} s")
        else:
            # A response may be unread because this event loop was blocked.
            self._watchdog = loop.call_later(_CONFIRM_SECONDS if is_silent else silence / 4, self._watch)
        self._is_suspected = is_silent

    def expire_pending(self) -> None:
        """Stop waiting for the candidate, which hangs."""
        for timer in tuple(self._pending):
            _expire(timer)

    async def answer(
        self,
        request: Request,
        receive: Receive,
        send: Send,
        closes_connection: bool,
        on_first_byte: Callable[[], None],
    ) -> None:
        """Send the candidate's response to the client. on_first_byte: called when it has arrived.

        Raises CandidateFailed if nothing was sent, ClientDisconnected, and ResponseAborted.
        """
        client = _ClientWatch(receive)
        try:
            response = await self.ask(request, client=client)
            on_first_byte()
            try:
                await self._send(response, client, send, closes_connection)
            finally:
                response.close()
        finally:
            client.stop()

    async def _send(
        self, response: Response, client: "_ClientWatch", send: Send, closes_connection: bool
    ) -> None:
        headers = [(name.lower(), value) for name, value in response.headers]
        headers = [pair for pair in headers if pair[0] not in _LEFT_OUT]
        headers.append(_VERSION)
        if closes_connection:
            headers.append((b"connection", b"close"))
        await send({"type": "http.response.start", "status": response.status, "headers": headers})
        if response.body is not None:
            await send({"type": "http.response.body", "body": response.body})
            return
        parts = response.rest.content.iter_any()
        while True:
            try:
                async with asyncio.timeout(self._part_timeout) as timer:
                    client.limit(timer)
                    part: bytes = await anext(parts, b"")
            except Exception as error:
                if client.is_gone:
                    raise ClientDisconnected from None
                raise ResponseAborted(f"{type(error).__name__}: {error}") from None
            await send({"type": "http.response.body", "body": part, "more_body": bool(part)})
            if not part:
                return


class _ClientWatch:
    """Ends what a request waits for when its client disconnects."""

    def __init__(self, receive: Receive) -> None:
        self.is_gone = False
        self._timer: asyncio.Timeout | None = None
        self._task = asyncio.ensure_future(disconnect(receive))
        self._task.add_done_callback(self._on_gone)

    def limit(self, timer: asyncio.Timeout) -> None:
        """Let this timer expire when the client disconnects, or at once if it has."""
        self._timer = timer
        if self.is_gone:
            _expire(timer)

    def stop(self) -> None:
        """Stop watching."""
        self._task.cancel()

    def _on_gone(self, task: "asyncio.Future[None]") -> None:
        if not task.cancelled():
            self.is_gone = True
            if self._timer is not None:
                _expire(self._timer)


def _expire(timer: asyncio.Timeout) -> None:
    """Let a timer expire now, unless its block has been left."""
    try:
        timer.reschedule(asyncio.get_running_loop().time())
    except RuntimeError:
        pass
