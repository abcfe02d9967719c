"""Run the user's synchronous code: in a pool of threads, or, with one thread, on the thread that constructed the handler.

Switching threads costs more than a trivial request. With one thread per process, the event loop therefore moves instead of the
call: it runs in a thread of its own, or on the handler's thread while the methods return within a fraction of a millisecond. All
calls run on the same thread, one at a time, so objects bound to a thread (an sqlite3 connection, a CUDA device) keep working.
"""

import asyncio
import inspect
import logging
import math
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from contextvars import Context, copy_context
from functools import partial
from queue import SimpleQueue
from time import perf_counter
from typing import Any

from starlette.types import Receive

from cortex_runtime.handler.user_context import Detached, adopt, clean_copy, user_context
from cortex_runtime.http.payload import ClientDisconnected, disconnect
from cortex_runtime.metrics.shared_memory import WorkerMetrics

log = logging.getLogger("cortex")


class RequestTimeout(Exception):
    """A request took longer than spec.handler.requestTimeout."""


class HandlerExited(RuntimeError):
    """User code raised SystemExit, KeyboardInterrupt or StopIteration. The process keeps running."""


class InlinePolicy:
    """Decide from a method's recent durations whether its calls run inline, on the event loop's thread.

    A method becomes inline once its quick calls outnumber the slow ones by a threshold. It leaves when too many recent calls, or
    their average, are slow. A few slow calls are tolerated: a call that was preempted would be as slow in a thread. Leaving soon
    after becoming inline doubles the threshold, so a method that is slow now and then stays in its thread.
    """

    QUICK = 0.0003
    """Seconds below which a call is quick."""
    SLOW, MAX_SLOW_FRACTION = 0.0005, 0.3
    """Seconds above which a call is slow, and the fraction of recent calls that may be slow."""
    SLOW_AVERAGE, MAX_DURATION = 0.005, 0.1
    """Seconds. A longer call counts as MAX_DURATION in the average."""
    STREAK, MAX_STREAK = 32, 4096
    SETTLED = 1000
    """Inline calls after which leaving does not raise the threshold for the next time."""

    def __init__(self, allowed: bool) -> None:
        self.inline = False
        self._allowed = allowed
        self._average = self._slow = 0.0
        self._streak = 0
        self._inline_calls = 0
        self._needed = self.STREAK

    def record(self, seconds: float) -> None:
        """Record the duration of one call, in seconds."""
        if self.inline:
            self._inline_calls += 1
            self._slow += ((seconds > self.SLOW) - self._slow) / 16
            self._average += (min(seconds, self.MAX_DURATION) - self._average) / 16
            if self._slow > self.MAX_SLOW_FRACTION or self._average > self.SLOW_AVERAGE:
                self.inline = False
                self._streak = 0
                longer = min(self._needed * 2, self.MAX_STREAK)
                self._needed = self.STREAK if self._inline_calls > self.SETTLED else longer
        elif self._allowed:
            self._streak = self._streak + 1 if seconds < self.QUICK else max(0, self._streak - 1)
            if self._streak >= self._needed:
                self.inline = True
                self._average = self._slow = 0.0
                self._inline_calls = 0


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
        self.detached = Detached()
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
        task = loop.create_task(main, context=clean_copy())
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


class Threads:
    """Run synchronous user code, `threads` calls at a time."""

    def __init__(self, threads: int, metrics: WorkerMetrics) -> None:
        self.size = threads
        self.pending = self.finished = 0
        self.handler_thread = HandlerThread(lambda: self.pending) if threads == 1 else None
        self._metrics = metrics
        self._pool = (
            None if self.handler_thread else ThreadPoolExecutor(threads, thread_name_prefix="handler")
        )
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def inline(self) -> bool:
        """Whether the event loop runs on the handler's thread, so that a call may be made inline."""
        return self.handler_thread is not None and self.handler_thread.has_loop

    def call(self, function: Callable[[], Any]) -> Any:
        """Run a function before the server starts, and wait for it. With one thread, it runs on the caller's.

        Context variables that the function sets are set in the caller's context too.
        """
        if self._pool is None:
            return function()
        context = copy_context()
        result = self._pool.submit(context.run, function).result()
        adopt(context)
        return result

    def drive(
        self,
        loop: asyncio.AbstractEventLoop,
        main: Coroutine[Any, Any, None],
        on_handler_thread: bool = False,
    ) -> None:
        """Run main to its end. on_handler_thread: whether the loop starts on the handler's single thread."""
        if self.handler_thread is not None:
            self.handler_thread.drive(loop, main, on_handler_thread)
        else:
            loop.run_until_complete(loop.create_task(main, context=clean_copy()))

    async def move_to_handler_thread(self, timeout: float) -> bool:
        """Wait for the calls in progress, then move the loop to the handler's thread if that is worthwhile.

        timeout: seconds. Returns whether a call can be made inline. Raises RequestTimeout.
        """
        thread = self.handler_thread
        if thread is None or thread.has_loop:
            return thread is not None
        try:
            async with asyncio.timeout(timeout):
                await self._idle.wait()
                return await thread.move_to_handler_thread()
        except TimeoutError:
            raise RequestTimeout from None

    async def run(self, function: Callable[[], Any], receive: Receive, timeout: float) -> Any:
        """Run a request's function in a thread and return its result.

        timeout: seconds, including the wait for a thread. Raises RequestTimeout, ClientDisconnected when the client disconnects
        before the call starts, and whatever the function raises.
        """
        end = perf_counter() + timeout
        future = self._enqueue(function, receive)
        waiter = asyncio.wrap_future(future)
        gone = asyncio.ensure_future(disconnect(receive))
        try:
            done, _ = await asyncio.wait((waiter, gone), timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
            if not done:
                future.cancel()
                raise RequestTimeout
            if waiter not in done:
                if future.cancel():
                    raise ClientDisconnected
                done, _ = await asyncio.wait((waiter,), timeout=max(0.0, end - perf_counter()))
                if not done:
                    raise RequestTimeout
            return waiter.result()
        finally:
            gone.cancel()

    def run_inline(self, function: Callable[[], Any]) -> Any:
        """Call a request's function on the event loop's thread. Requires a running task and `inline`."""
        assert self.handler_thread is not None
        loop = asyncio.get_running_loop()
        return self.handler_thread.detached.run_in_task(loop, user_context(), guarded, {"function": function})

    async def run_plain(self, function: Callable[[], Any], context: Context | None = None) -> Any:
        """Run a function in a thread without watching the client, such as a callback or the next step of a generator.

        context: the context to run in; the current request's by default.
        """
        return await asyncio.wrap_future(self._submit(function, context))

    async def run_after(self, callback: Callable[[], Any], state: str) -> None:
        """Run the user's callback after a response was sent or a job ended. state: which of them, for the log."""
        try:
            if inspect.iscoroutinefunction(callback):
                adopt()
                await callback()
            else:
                await self.run_plain(callback)
        except Exception:
            log.exception("the callback failed; %s", state)

    def _enqueue(self, function: Callable[[], Any], receive: Receive) -> "Future[Any]":
        return self._submit(function)

    def _submit(self, function: Callable[[], Any], context: Context | None = None) -> "Future[Any]":
        loop = asyncio.get_running_loop()
        self._count(1)
        job = partial((context or user_context()).run, guarded, function)
        future = self._pool.submit(job) if self._pool else self.handler_thread.submit(job)  # type: ignore[union-attr]
        future.add_done_callback(lambda _: loop.call_soon_threadsafe(self._count, -1))
        return future

    def _count(self, change: int) -> None:
        self.pending += change
        self.finished += change < 0
        if self.pending:
            self._idle.clear()
        else:
            self._idle.set()
        self._metrics.set_queued(max(0, self.pending - self.size))


def guarded(function: Callable[[], Any]) -> Any:
    """Call the user's function.

    Raises HandlerExited for StopIteration and whatever is not an Exception (SystemExit, KeyboardInterrupt, CancelledError):
    unchanged, these would stop the event loop or look like a cancelled task.
    """
    try:
        return function()
    except StopIteration as error:
        raise HandlerExited("the handler raised StopIteration") from error
    except Exception:
        raise
    except BaseException as error:
        raise HandlerExited(f"the handler raised {type(error).__name__}") from error


class TimedCall:
    """A call that measures its duration. seconds: infinite until it returns."""

    __slots__ = ("_call", "seconds")

    def __init__(self, function: Callable[..., Any], arguments: dict[str, Any]) -> None:
        self._call = partial(function, **arguments)
        self.seconds = math.inf

    def __call__(self) -> Any:
        """Make the call."""
        began = perf_counter()
        try:
            return self._call()
        finally:
            self.seconds = perf_counter() - began
