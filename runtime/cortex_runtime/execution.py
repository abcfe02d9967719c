"""Where a user's synchronous code runs: in the sized thread pool, or in place once it has proved quick.

With one thread per process, one thread constructs the handler and runs its methods, as long as they are not quick. A hand-over
to that thread costs more than a trivial request, so a method that keeps returning within a fraction of a millisecond moves to the
event loop's thread, and back when it slows down. Never do two calls run at once then. A handler that holds objects bound
to their thread (an sqlite3 connection, say) and is that quick sets `in_place = False` in its class.
"""

import asyncio
import contextvars
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from time import perf_counter
from typing import Any

from starlette.types import Receive

from cortex_runtime.board import Row
from cortex_runtime.payload import ClientGone


class Overdue(Exception):
    """A request took longer than spec.handler.requestTimeout."""


class LeftEarly(RuntimeError):
    """User code ended with sys.exit and the like; the process goes on."""


class Pace:
    """How quick a method has been lately, and so whether it may run in place.

    It moves in place after a streak of quick calls; each move back makes the next streak longer, so a method that is slow
    now and then stays in its thread.
    """

    QUICK = 0.0003
    SLOW_AVERAGE = 0.0005
    SLOW_CALL = 0.02
    STREAK, LONGEST_STREAK = 32, 4096

    def __init__(self, allowed: bool) -> None:
        self.in_place = False
        self._allowed = allowed
        self._average = 0.0
        self._streak = 0
        self._needed = self.STREAK

    def note(self, seconds: float) -> None:
        """Note how long one call took."""
        if self.in_place:
            self._average += (seconds - self._average) / 16
            if self._average > self.SLOW_AVERAGE or seconds > self.SLOW_CALL:
                self.in_place = False
                self._streak = 0
                self._needed = min(self._needed * 2, self.LONGEST_STREAK)
        elif self._allowed:
            self._streak = self._streak + 1 if seconds < self.QUICK else 0
            if self._streak >= self._needed:
                self.in_place = True
                self._average = 0.0


class Threads:
    """The pool in which synchronous user code runs, threads_per_process wide."""

    def __init__(self, threads: int, row: Row) -> None:
        self.size = threads
        self._row = row
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="handler")
        self.pending = 0
        self._idle = asyncio.Event()
        self._idle.set()

    async def idle(self, timeout: float) -> None:
        """Wait until nothing runs or waits here. timeout: seconds. Raises Overdue."""
        try:
            async with asyncio.timeout(timeout):
                await self._idle.wait()
        except TimeoutError:
            raise Overdue from None

    def call(self, function: Callable[[], Any]) -> Any:
        """Run something before the server starts, and wait for it."""
        return self._pool.submit(function).result()

    async def run(self, function: Callable[[], Any], receive: Receive, timeout: float) -> Any:
        """Run a request's function and give its result.

        timeout: seconds, waiting included. Raises Overdue, ClientGone when the client left before the call began, and
        whatever the function raises.
        """
        began = perf_counter()
        future = self._submit(function)
        waiter = asyncio.wrap_future(future)
        gone = asyncio.ensure_future(_disconnect(receive))
        try:
            done, _ = await asyncio.wait((waiter, gone), timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
            if not done:
                future.cancel()
                raise Overdue
            if waiter not in done:
                if future.cancel():
                    raise ClientGone
                done, _ = await asyncio.wait((waiter,), timeout=max(0.0, timeout + began - perf_counter()))
                if not done:
                    raise Overdue
            return waiter.result()
        finally:
            gone.cancel()

    async def run_plain(self, function: Callable[[], Any]) -> Any:
        """Run something that no client waits for, such as a callback, or the next part of a stream."""
        return await asyncio.wrap_future(self._submit(function))

    def _submit(self, function: Callable[[], Any]) -> "Future[Any]":
        loop = asyncio.get_running_loop()
        self._count(1)
        future = self._pool.submit(contextvars.copy_context().run, partial(_guarded, function))
        future.add_done_callback(lambda _: loop.call_soon_threadsafe(self._count, -1))
        return future

    def _count(self, change: int) -> None:
        self.pending += change
        if self.pending:
            self._idle.clear()
        else:
            self._idle.set()
        self._row.waits(max(0, self.pending - self.size))


def _guarded(function: Callable[[], Any]) -> Any:
    try:
        return function()
    except (SystemExit, KeyboardInterrupt, StopIteration) as error:
        # None of these may travel through a future: the first two would end the event loop.
        raise LeftEarly(f"the handler raised {type(error).__name__}") from error


async def _disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
