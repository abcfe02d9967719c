"""Server-side batching: handle concurrent requests in one call of the method, whose arguments are lists.

Each process runs one batch at a time. A batch starts when it is full, when its first request has waited for batchInterval, when
all open connections have a request in it, or when the previous batch ends. A batch that raises is run again in halves until the
failing request is alone, so that one invalid request does not fail the others.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from contextvars import Context, copy_context
from dataclasses import dataclass
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from starlette.types import Receive

from cortex_api.units import seconds as seconds_of
from cortex_runtime.arrays import is_array
from cortex_runtime.clients import served
from cortex_runtime.errors import ClientDisconnected, RequestTimeout, StartError
from cortex_runtime.handler.interfaces import Method
from cortex_runtime.handler.threads import Threads
from cortex_runtime.http.request_body import connection_of, is_disconnected
from cortex_runtime.logs.records import request_id
from cortex_runtime.metrics.shared_memory import WorkerMetrics

if TYPE_CHECKING:
    from cortex_api.handler import ServerSideBatching

log = logging.getLogger("cortex")

Call = Callable[[dict[str, list[Any]]], Awaitable[Any]]
"""Calls the user's method with, for each argument, a list of the values of all requests. Returns the method's result."""

_SHARE = 0.1
"""Fraction of a batch's duration that the next batch waits, for clients that send a new request after their response."""


class WrongLength(Exception):
    """A batched method did not return one result per request."""


@dataclass(eq=False)
class BatchItem:
    """A request that waits for its batch, or is in one. since: its arrival, by perf_counter. context: of the request."""

    arguments: dict[str, Any]
    answer: "asyncio.Future[Any]"
    since: float
    receive: Receive | None
    request_id: str | None
    served: list[tuple[str, int]] | None
    context: Context
    connection: Any


class Batcher:
    """The batches of one method in one process. Used on the event loop alone.

    most: requests in a batch. interval: seconds that the first request waits for others. give_up: seconds after which a failed
    batch is no longer split.
    """

    def __init__(
        self, call: Call, metrics: WorkerMetrics, *, most: int, interval: float, give_up: float
    ) -> None:
        self._call = call
        self._metrics = metrics
        self._most = most
        self._interval = interval
        self._give_up = give_up
        self._waiting: deque[BatchItem] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._work: asyncio.Task[None] | None = None
        self._known: WeakSet[Any] = WeakSet()

    async def run(self, arguments: dict[str, Any], receive: Receive | None, timeout: float) -> Any:
        """Run a request in a batch and return its result.

        Raises what the method raises, RequestTimeout, and ClientDisconnected when the client leaves before the batch starts.
        """
        loop = asyncio.get_running_loop()
        item = BatchItem(
            arguments,
            loop.create_future(),
            perf_counter(),
            receive,
            request_id.get(),
            served.get(),
            copy_context(),
            connection_of(receive),
        )
        self._waiting.append(item)
        self._metrics.set_batching(len(self._waiting))
        if self._work is None:
            if self._is_complete():
                self._begin()
            elif self._timer is None:
                self._timer = loop.call_later(self._interval, self._begin)
        expiry = loop.call_later(timeout, self._expire, item, timeout)
        try:
            return await item.answer
        finally:
            expiry.cancel()

    def _expire(self, item: BatchItem, timeout: float) -> None:
        """Give up a request. One that is already in a batch cannot be removed from it."""
        with suppress(ValueError):
            self._waiting.remove(item)
            self._metrics.set_batching(len(self._waiting))
        if not item.answer.done():
            item.answer.set_exception(RequestTimeout(timeout))

    def _is_complete(self) -> bool:
        """Return whether to start a batch now: it is full, or every open connection already waits for it.

        A new connection may be the first of several, so this only counts connections that have been in a batch before.
        """
        waiting = self._waiting
        if len(waiting) >= self._most:
            return True
        connection = waiting[0].connection
        return (
            connection is not None
            and len(waiting) >= len(connection.server_state.connections)
            and all(item.connection in self._known for item in waiting)
        )

    def _begin(self) -> None:
        """Start a batch with the waiting requests."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        items: list[BatchItem] = []
        while self._waiting and len(items) < self._most:
            item = self._waiting.popleft()
            if is_disconnected(item.receive):
                item.answer.set_exception(ClientDisconnected())
            else:
                items.append(item)
        self._metrics.set_batching(len(self._waiting))
        if items:
            now = perf_counter()
            self._metrics.record_batch([now - item.since for item in items])
            # The current context may be that of the previous batch, in which user code has run.
            self._work = asyncio.get_running_loop().create_task(self.handle(items), context=items[0].context)

    async def handle(self, items: list[BatchItem]) -> None:
        """Run a batch, and answer its requests."""
        began = perf_counter()
        try:
            results = await self._results(items, began + self._give_up)
        except BaseException as error:
            results = [error] * len(items)
        self._work = None
        if len(self._waiting) >= self._most:
            # First, so that it runs while the responses of this batch are encoded and sent.
            self._begin()
        for item, result in zip(items, results, strict=True):
            if item.connection is not None:
                self._known.add(item.connection)
            if item.answer.done():
                continue
            if isinstance(result, BaseException):
                item.answer.set_exception(result)
                # Mark the exception as retrieved: the client may have disconnected, and asyncio would log it.
                item.answer.exception()
            else:
                item.answer.set_result(result)
        if self._work is None and self._waiting:
            pause = min(self._interval, (perf_counter() - began) * _SHARE)
            self._timer = asyncio.get_running_loop().call_later(pause, self._begin)

    async def _results(self, items: Sequence[BatchItem], end: float) -> list[Any]:
        """Return, for each item, its result or the exception to raise."""
        versions: list[tuple[str, int]] = []
        request_id.set(items[0].request_id if len(items) == 1 else None)
        served.set(versions)
        try:
            returned = await self._call(
                {name: [item.arguments[name] for item in items] for name in items[0].arguments}
            )
            results = _checked(returned, len(items))
        except WrongLength as error:
            return [error] * len(items)
        except Exception as error:
            if len(items) == 1 or perf_counter() > end:
                return [error] * len(items)
            log.warning(
                "a batch of %d requests raised %s; running it again in halves",
                len(items),
                type(error).__name__,
            )
            middle = len(items) // 2
            return [
                *await self._results(items[:middle], end),
                *await self._results(items[middle:], end),
            ]
        # With several versions, the version that produced a single result is unknown.
        if len(set(versions)) == 1:
            for item in items:
                if item.served is not None:
                    item.served.extend(versions)
        return results


def batcher_of(
    spec: "ServerSideBatching",
    method: Method | None,
    threads: Threads,
    metrics: WorkerMetrics,
    timeout: float,
    batcher_type: type[Batcher] = Batcher,
) -> Batcher:
    """Return the batcher of a method. Raises StartError if the method cannot be batched."""
    if method is None:
        raise StartError(
            "HandlerInvalid", "handler.serverSideBatching needs a method handle_post (or predict)"
        )
    if not method.arguments:
        raise StartError(
            "HandlerInvalid",
            "handler.serverSideBatching: the method must take an argument, such as payload; it receives a list with one"
            " value per request",
        )

    async def call(arguments: dict[str, list[Any]]) -> Any:
        if method.is_async:
            return await method.function(**arguments)
        return await threads.run_plain(partial(method.function, **arguments), copy_context())

    return batcher_type(
        call, metrics, most=spec.max_batch_size, interval=seconds_of(spec.batch_interval), give_up=timeout
    )


def _checked(returned: Any, wanted: int) -> list[Any]:
    if not (isinstance(returned, list | tuple) or (is_array(returned) and returned.ndim > 0)):
        raise WrongLength(
            f"with serverSideBatching, the method must return a list with one result per request; got "
            f"{type(returned).__name__}"
        )
    if len(returned) != wanted:
        raise WrongLength(
            f"the method returned {len(returned)} results for a batch of {wanted} requests; it must return one per request"
        )
    return list(returned)
