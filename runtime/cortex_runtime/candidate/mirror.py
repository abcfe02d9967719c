"""Mirrored requests: the candidate answers a copy of a request of the stable version, and both responses are compared.

This happens after the stable version has answered. Copies are bounded in number, bytes and time. What exceeds the bounds is
dropped and counted, so that copies do not slow the answers under load.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from time import monotonic

from cortex_api.contract import CANDIDATE, MIRROR_HEADER, VERSION_HEADER
from cortex_runtime.candidate import counters
from cortex_runtime.candidate.client import CandidateFailed, Request
from cortex_runtime.candidate.compare import Answer, Comparator, Comparison
from cortex_runtime.candidate.counters import WorkerCounters
from cortex_runtime.candidate.differences import DifferingPairs
from cortex_runtime.candidate.forwarding import Forwarder
from cortex_runtime.candidate.reports import ConfusionMatrix

log = logging.getLogger("cortex")

MOST_BODY = 1024 * 1024
"""Bytes of a request, and of a response, that are mirrored and compared."""
_MOST_PENDING = 32
_MOST_BYTES = 8 * 1024 * 1024
"""Bytes of requests and responses of pending copies."""
_SHARE = 0.1
"""Share of a worker's CPU that copies may take, estimated by:"""
_SECONDS_PER_COPY, _SECONDS_PER_BYTE = 0.0005, 20e-9
_BURST = 0.1
"""Seconds of such time that may be saved up."""
_LATE = 0.01
"""Seconds after which a task starts if the event loop is overloaded. Then no copy is sent for _PAUSE seconds."""
_PAUSE = 0.5
_SMALL = 32 * 1024
"""Bytes of responses that are compared on the event loop: it takes less than a switch of threads."""
_HEADERS = ((MIRROR_HEADER, "true"), (VERSION_HEADER, CANDIDATE))
_NEGOTIATED = (b"accept-encoding", VERSION_HEADER.encode())
_OVERLOADED = 503


class Mirror:
    """Sends copies of requests to the candidate and compares the responses.

    cpus: that the worker may use. is_probing: returns whether the only copies are probes of a candidate that has failed. They are
    also sent under load: otherwise, the candidate of a busy replica would never get requests again.
    """

    def __init__(
        self,
        forwarder: Forwarder,
        worker_counters: WorkerCounters,
        comparator: Comparator,
        pairs: DifferingPairs,
        classes: ConfusionMatrix,
        *,
        cpus: float = 1.0,
        is_probing: Callable[[], bool] = lambda: False,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self.comparator = comparator
        self._forwarder, self._counters = forwarder, worker_counters
        self._pairs, self._classes = pairs, classes
        self._clock = clock
        self._is_probing = is_probing
        self._share = _SHARE * min(cpus, 1.0)
        self._resume_at = float("-inf")
        self._tasks: set[asyncio.Task[None]] = set()
        self._bytes = 0
        self._budget, self._updated = _BURST, clock()

    def offer(
        self,
        request: Request,
        stable: Answer,
        answer: Callable[[Request], Awaitable[Answer]] | None = None,
    ) -> None:
        """Send a copy of a request that the stable version has answered, unless a bound is reached. Returns at once.

        answer: returns the candidate's response to the copy; None: over HTTP.
        """
        size = len(request.body) + 2 * len(stable.body)
        if not self._admits(size):
            self._counters.add(counters.DROPPED)
            return
        self._bytes += size
        task = asyncio.get_running_loop().create_task(
            self._run(request, stable, answer or self._answer, size, self._clock())
        )
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def close(self) -> None:
        """Cancel the pending copies."""
        for task in tuple(self._tasks):
            task.cancel()

    def _admits(self, size: int) -> bool:
        now = self._clock()
        self._budget = min(_BURST, self._budget + (now - self._updated) * self._share)
        self._updated = now
        is_busy = self._budget <= 0 or now < self._resume_at
        if (
            (is_busy and not self._is_probing())
            or len(self._tasks) >= _MOST_PENDING
            or self._bytes + size > _MOST_BYTES
        ):
            return False
        self._budget -= _SECONDS_PER_COPY + _SECONDS_PER_BYTE * size
        return True

    async def _run(
        self,
        request: Request,
        stable: Answer,
        answer: Callable[[Request], Awaitable[Answer]],
        size: int,
        offered: float,
    ) -> None:
        try:
            if (now := self._clock()) - offered > _LATE and not self._is_probing():
                self._resume_at = now + _PAUSE
                self._counters.add(counters.DROPPED)
                return
            self._counters.add(counters.MIRRORED)
            await self._record(request, stable, await answer(request))
        except CandidateFailed as error:
            # A candidate that copies overload does not fail.
            cell = counters.DROPPED if error.status == _OVERLOADED else counters.FAILED
            self._counters.add_error(cell, error.is_late)
            log.debug("a mirrored request failed: %s", error)
        except Exception:
            self._counters.add(counters.FAILED)
            log.exception("a mirrored request could not be compared")
        finally:
            self._bytes -= size

    async def _answer(self, request: Request) -> Answer:
        """Return the candidate's response. Raises CandidateFailed."""
        headers = [pair for pair in request.headers if pair[0] not in _NEGOTIATED]
        copy = Request(request.method, request.target, headers, request.body, request.request_id)
        try:
            response = await self._forwarder.ask(copy, _HEADERS)
        except CandidateFailed as error:
            if error.status in (0, _OVERLOADED):
                raise
            return Answer(error.status, "", b"")
        try:
            body = response.body
            if body is None:
                body = await response.read(MOST_BODY + 1)
        finally:
            response.close()
        fields = {name.lower(): value for name, value in response.headers}
        return Answer.received(response.status, fields, body)

    async def _record(self, request: Request, stable: Answer, candidate: Answer) -> None:
        compare = self.comparator.compare
        comparison: Comparison | None
        if len(stable.body) + len(candidate.body) <= _SMALL:
            comparison = compare(stable, candidate)
        else:
            comparison = await asyncio.get_running_loop().run_in_executor(None, compare, stable, candidate)
        if comparison is None:
            self._counters.add(counters.DROPPED)
            return
        is_answered = candidate.status < 500
        if comparison.classes is not None:
            self._classes.add(*comparison.classes)
        if comparison.differences and is_answered:
            self._counters.add(counters.DIFFERING)
        # Last: the supervisor reads the counts at any time, and what it finds of a compared copy must be complete.
        self._counters.add(counters.COMPARED if is_answered else counters.FAILED)
        if comparison.differences:
            sent = None
            if request.body:
                kind = next((value for name, value in request.headers if name == b"content-type"), b"")
                sent = Answer(0, kind.decode("latin-1"), request.body)
            self._pairs.add(request.request_id, request.target, sent, (stable, candidate), comparison)
