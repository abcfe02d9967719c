"""The thread of a handler with one thread per process, and the event loop, which moves to it and away from it.

Switching threads costs more than a trivial request. So the event loop moves instead of the calls: it runs in a thread of its own,
or on the handler's thread while the methods return within a fraction of a millisecond. All calls run on one thread, one at a
time, so objects that are bound to a thread (an sqlite3 connection, a CUDA device) keep working.
"""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from queue import SimpleQueue
from time import perf_counter
from typing import Any

from cortex_runtime.handler.user_context import DetachedLoop, clean_context


class HandlerThread:
    """The single thread of a handler, and the event loop that runs on it or in a thread of its own.

    pending: returns the number of calls in progress. Call every method but `drive` on the event loop.
    """

    MIN_REQUESTS, MAX_STREAK = 32, 4096
    SETTLED = 1.0
    """Seconds on the handler's thread after which leaving does not raise the threshold for the next move."""

    def __init__(self, pending: Callable[[], int]) -> None:
        self.has_loop = False
        self._pending = pending
        self._calls: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._loop_returned = threading.Semaphore(0)
        self._loop: asyncio.AbstractEventLoop | None = None
        self.detached = DetachedLoop()
        self._moving: asyncio.Future[bool] | None = None
        self._leaving = False
        self._requests_to_move = self._needed = 0
        self._since = 0.0

    def drive(
        self,
        loop: asyncio.AbstractEventLoop,
        main: Coroutine[Any, Any, None],
        on_handler_thread: bool = False,
    ) -> None:
        """Run main to its end and the calls of the handler on the calling thread.

        on_handler_thread: whether the loop starts on the calling thread.
        """
        self._loop = loop
        task = loop.create_task(main, context=clean_context())
        threading.Thread(
            target=self._run_loop_thread, args=(task, on_handler_thread), name="loop", daemon=True
        ).start()
        while (call := self._calls.get()) is not None:
            call()
        task.result()

    def submit(self, function: Callable[[], Any]) -> "Future[Any]":
        """Run a function on the handler's thread. The loop leaves the thread first."""
        future: Future[Any] = Future()
        if self.has_loop and self._loop is not None:
            self.has_loop, self._leaving = False, True
            settled = perf_counter() - self._since > self.SETTLED
            longer = min(max(self._needed * 2, self.MIN_REQUESTS), self.MAX_STREAK)
            self._requests_to_move, self._needed = 0, self.MIN_REQUESTS if settled else longer
            self._loop.stop()
        self._calls.put(partial(_set_result, future, function))
        return future

    async def move_to_handler_thread(self) -> bool:
        """Move the loop onto the handler's thread if that is worthwhile. Returns whether it runs there. Requires no pending call.

        Each time the loop has to leave the thread early, the next move waits for twice as many requests to move.
        """
        if self._moving is None:
            self._requests_to_move += 1
            if self._requests_to_move <= self._needed or self._leaving or self._loop is None:
                return False
            self._moving = self._loop.create_future()
            self._loop.stop()
        return await asyncio.shield(self._moving)

    def _run_loop_thread(self, task: "asyncio.Task[None]", on_handler_thread: bool) -> None:
        """Run the loop in its own thread while it is not on the handler's thread."""
        while True:
            if not on_handler_thread:
                _run(task)
                if task.done():
                    break
                if self._pending():
                    # A call was submitted before the loop stopped; it uses the handler's thread now.
                    task.get_loop().call_soon(self._on_moved, False)
                    continue
            on_handler_thread = False
            self._calls.put(partial(self._run_loop_here, task))
            self._loop_returned.acquire()
            if task.done():
                break
        self._calls.put(None)

    def _run_loop_here(self, task: "asyncio.Task[None]") -> None:
        self.has_loop, self._since = True, perf_counter()
        loop = task.get_loop()
        loop.call_soon(self._on_moved, True)
        _run(task)
        self.has_loop = self._leaving = False
        self._loop_returned.release()

    def _on_moved(self, on_handler_thread: bool) -> None:
        moving, self._moving = self._moving, None
        if moving is not None:
            moving.set_result(on_handler_thread)


def _run(task: "asyncio.Task[None]") -> None:
    """Run the loop until the task ends or the loop is stopped."""
    with suppress(BaseException):
        # The loop was stopped before the task ended: the next run continues it. The task keeps its own exception.
        task.get_loop().run_until_complete(task)


def _set_result(future: "Future[Any]", function: Callable[[], Any]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        result = function()
    except BaseException as error:
        future.set_exception(error)
    else:
        future.set_result(result)
