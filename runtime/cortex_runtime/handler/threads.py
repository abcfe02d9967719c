"""Run synchronous user code in a pool of threads, or, with one thread, on the thread that constructed the handler.

The second case is in handler_thread.py.
"""

import asyncio
import inspect
import logging
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import Context, copy_context
from functools import partial
from queue import SimpleQueue
from time import perf_counter
from typing import Any

from starlette.types import Receive

from cortex_runtime.errors import ClientDisconnected, RequestTimeout
from cortex_runtime.handler.handler_thread import HandlerThread
from cortex_runtime.handler.user_context import clean_context, copy_context_variables, user_context
from cortex_runtime.http.request_body import disconnect
from cortex_runtime.metrics.shared_memory import WorkerMetrics

log = logging.getLogger("cortex")


class HandlerExited(RuntimeError):
    """User code raised SystemExit, KeyboardInterrupt or StopIteration. The process keeps running."""


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
        self._calls: SimpleQueue[Callable[[], Any]] = SimpleQueue()
        self._started = 0
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
        copy_context_variables(context)
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
            loop.run_until_complete(loop.create_task(main, context=clean_context()))

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
            raise RequestTimeout(timeout) from None

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
                raise RequestTimeout(timeout)
            if waiter not in done:
                if future.cancel():
                    raise ClientDisconnected
                done, _ = await asyncio.wait((waiter,), timeout=max(0.0, end - perf_counter()))
                if not done:
                    raise RequestTimeout(timeout)
            return waiter.result()
        finally:
            gone.cancel()

    def run_inline(self, function: Callable[[], Any]) -> Any:
        """Call a request's function on the event loop's thread. Requires a running task and `inline`."""
        assert self.handler_thread is not None
        loop = asyncio.get_running_loop()
        return self.handler_thread.detached.run_in_task(
            loop, user_context(), call_user_code, {"function": function}
        )

    async def run_cancellable(self, function: Callable[[], Any], timeout: float) -> Any:
        """Run a request's function in a thread, for a request whose task is cancelled when its client leaves.

        timeout: seconds, including the wait for a thread. Raises RequestTimeout and whatever the function raises.
        """
        try:
            async with asyncio.timeout(timeout) as timer:
                return await self.run_plain(function)
        except TimeoutError:
            if timer.expired():
                raise RequestTimeout(timeout) from None
            raise

    def start(self, function: Callable[[], Any], running: int) -> None:
        """Run a function in a thread and ignore its result. A thread pool with futures would cost half of a trivial job.

        running: functions started and not ended, with this one. Call it on one thread, and only if the loop never moves to the
        handler's thread.
        """
        if self.handler_thread is not None:
            self.handler_thread.submit(function)
            return
        if self._started < min(running, self.size):
            self._started += 1
            name = f"handler-job_{self._started}"
            threading.Thread(target=self._run_calls, name=name, daemon=True).start()
        self._calls.put(function)

    def _run_calls(self) -> None:
        while True:
            self._calls.get()()

    async def run_plain(self, function: Callable[[], Any], context: Context | None = None) -> Any:
        """Run a function in a thread without watching the client, such as a callback or the next step of a generator.

        context: the context to run in; the current request's by default.
        """
        return await asyncio.wrap_future(self._submit(function, context))

    async def run_after(self, callback: Callable[[], Any], state: str) -> None:
        """Run the user's callback after a response was sent or a job ended. state: which of them, for the log."""
        try:
            if inspect.iscoroutinefunction(callback):
                copy_context_variables()
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
        job = partial((context or user_context()).run, call_user_code, function)
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


def call_user_code(function: Callable[[], Any]) -> Any:
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
