"""Where a user's synchronous code runs: in a pool of threads, or, with one thread, on the one that constructed the handler.

A hand-over to another thread costs more than a trivial request. So with one thread per process it is the event loop that moves:
beside the handler's thread, or onto it once the methods keep returning within a fraction of a millisecond, and away again
when one slows down. Whatever belongs to a thread (an sqlite3 connection, a CUDA device) is always met by the same one, and never
do two calls run at once.
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

from cortex_runtime.handler.environment import Detached, adopt, clean_copy, user_context
from cortex_runtime.http.payload import ClientGone, disconnect
from cortex_runtime.metrics.shared_memory import WorkerMetrics

log = logging.getLogger("cortex")


class Overdue(Exception):
    """A request took longer than spec.handler.requestTimeout."""


class LeftEarly(RuntimeError):
    """User code ended with sys.exit and the like; the process goes on."""


class Pace:
    """How quick a method has been lately, and so whether it may run in place.

    It moves in place once quick calls outnumber the slow ones by enough, and out when many of its last calls were slow, or their
    average was: a few may have waited for a processor in the midst of their work, for longer than all the others took
    together, which they would do in a thread as well. Each move out that comes soon asks for more quick calls before the next,
    so a method that is slow now and then stays in its thread.
    """

    QUICK = 0.0003
    SLOW, MOST_SLOW = 0.0005, 0.3
    """Seconds from which a call is slow, and the part of the last calls that may be."""
    SLOW_AVERAGE, LONGEST = 0.005, 0.1
    """Seconds; no call counts as a longer one."""
    STREAK, LONGEST_STREAK = 32, 4096
    SETTLED = 1000
    """Calls in place after which it is not held against a method that it moves out again."""

    def __init__(self, allowed: bool) -> None:
        self.in_place = False
        self._allowed = allowed
        self._average = self._slow = 0.0
        self._streak = 0
        self._stayed = 0
        self._needed = self.STREAK

    def note(self, seconds: float) -> None:
        """Note how long one call took."""
        if self.in_place:
            self._stayed += 1
            self._slow += ((seconds > self.SLOW) - self._slow) / 16
            self._average += (min(seconds, self.LONGEST) - self._average) / 16
            if self._slow > self.MOST_SLOW or self._average > self.SLOW_AVERAGE:
                self.in_place = False
                self._streak = 0
                longer = min(self._needed * 2, self.LONGEST_STREAK)
                self._needed = self.STREAK if self._stayed > self.SETTLED else longer
        elif self._allowed:
            self._streak = self._streak + 1 if seconds < self.QUICK else max(0, self._streak - 1)
            if self._streak >= self._needed:
                self.in_place = True
                self._average = self._slow = 0.0
                self._stayed = 0


class Home:
    """The one thread of a handler, and the event loop beside it or on it.

    Everything but `drive` is called on the event loop. pending: says how many calls are under way.
    """

    FIRST_STREAK, LONGEST_STREAK = 32, 4096
    SETTLED = 1.0
    """Seconds on the handler's thread after which it is not held against the loop that it leaves again."""

    def __init__(self, pending: Callable[[], int]) -> None:
        self.together = False
        self._pending = pending
        self._jobs: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._back = threading.Semaphore(0)
        self._loop: asyncio.AbstractEventLoop | None = None
        self.detached = Detached()
        self._moving: asyncio.Future[bool] | None = None
        self._leaving = False
        self._calm = self._needed = 0
        self._since = 0.0

    def drive(
        self, loop: asyncio.AbstractEventLoop, main: Coroutine[Any, Any, None], together: bool = False
    ) -> None:
        """Run main to its end, on the calling thread or beside it. together: whether the loop begins on this thread."""
        self._loop = loop
        task = loop.create_task(main, context=clean_copy())
        threading.Thread(target=self._beside, args=(task, together), name="loop", daemon=True).start()
        while (job := self._jobs.get()) is not None:
            job()
        task.result()

    def submit(self, function: Callable[[], Any]) -> "Future[Any]":
        """Run something on the handler's thread; the loop leaves it first."""
        future: Future[Any] = Future()
        if self.together and self._loop is not None:
            self.together, self._leaving = False, True
            settled = perf_counter() - self._since > self.SETTLED
            longer = min(max(self._needed * 2, self.FIRST_STREAK), self.LONGEST_STREAK)
            self._calm, self._needed = 0, self.FIRST_STREAK if settled else longer
            self._loop.stop()
        self._jobs.put(partial(_fulfil, future, function))
        return future

    async def come(self) -> bool:
        """Bring the loop onto the handler's thread if that is worth while. Returns whether it is there. Nothing may be pending.

        Each time that the loop has had to leave again makes the next move wait for more calls that are worth it.
        """
        if self._moving is None:
            self._calm += 1
            if self._calm <= self._needed or self._leaving or self._loop is None:
                return False
            self._moving = self._loop.create_future()
            self._loop.stop()
        return await asyncio.shield(self._moving)

    def _beside(self, task: "asyncio.Task[None]", together: bool) -> None:
        """The other thread: runs the loop while it is not on the handler's."""
        while True:
            if not together:
                _run(task)
                if task.done():
                    break
                if self._pending():
                    # A call came in before the loop had stopped, and has the thread now.
                    task.get_loop().call_soon(self._arrived, False)
                    continue
            together = False
            self._jobs.put(partial(self._host, task))
            self._back.acquire()
            if task.done():
                break
        self._jobs.put(None)

    def _host(self, task: "asyncio.Task[None]") -> None:
        self.together, self._since = True, perf_counter()
        loop = task.get_loop()
        loop.call_soon(self._arrived, True)
        _run(task)
        self.together = self._leaving = False
        self._back.release()

    def _arrived(self, together: bool) -> None:
        moving, self._moving = self._moving, None
        if moving is not None:
            moving.set_result(together)


def _run(task: "asyncio.Task[None]") -> None:
    """Run the loop until the task ends or the loop is stopped."""
    with suppress(BaseException):
        # Stopped before the task has ended: it goes on with the next run. Its own exception is left in it.
        task.get_loop().run_until_complete(task)


def _fulfil(future: "Future[Any]", function: Callable[[], Any]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        result = function()
    except BaseException as error:
        future.set_exception(error)
    else:
        future.set_result(result)


class Threads:
    """Where synchronous user code runs: threads_per_process calls at the same time."""

    def __init__(self, threads: int, metrics: WorkerMetrics) -> None:
        self.size = threads
        self.pending = self.finished = 0
        self.home = Home(lambda: self.pending) if threads == 1 else None
        self._metrics = metrics
        self._pool = None if self.home else ThreadPoolExecutor(threads, thread_name_prefix="handler")
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def in_place(self) -> bool:
        """Whether a call may be made here and now, on the event loop's thread."""
        return self.home is not None and self.home.together

    def call(self, function: Callable[[], Any]) -> Any:
        """Run something before the server starts, and wait for it. With one thread, that is the caller's.

        The caller's context then has what the function sets in its own.
        """
        if self._pool is None:
            return function()
        context = copy_context()
        result = self._pool.submit(context.run, function).result()
        adopt(context)
        return result

    def drive(
        self, loop: asyncio.AbstractEventLoop, main: Coroutine[Any, Any, None], together: bool = False
    ) -> None:
        """Run main to its end. together: whether the loop begins on the handler's one thread."""
        if self.home is not None:
            self.home.drive(loop, main, together)
        else:
            loop.run_until_complete(loop.create_task(main, context=clean_copy()))

    async def come(self, timeout: float) -> bool:
        """Let what runs end, and see whether a call can then be made in place. timeout: seconds. Raises Overdue."""
        home = self.home
        if home is None or home.together:
            return home is not None
        try:
            async with asyncio.timeout(timeout):
                await self._idle.wait()
                return await home.come()
        except TimeoutError:
            raise Overdue from None

    async def run(self, function: Callable[[], Any], receive: Receive, timeout: float) -> Any:
        """Run a request's function and give its result.

        timeout: seconds, waiting included. Raises Overdue, ClientGone when the client left before the call began, and
        whatever the function raises.
        """
        end = perf_counter() + timeout
        future = self._enqueue(function, receive)
        waiter = asyncio.wrap_future(future)
        gone = asyncio.ensure_future(disconnect(receive))
        try:
            done, _ = await asyncio.wait((waiter, gone), timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
            if not done:
                future.cancel()
                raise Overdue
            if waiter not in done:
                if future.cancel():
                    raise ClientGone
                done, _ = await asyncio.wait((waiter,), timeout=max(0.0, end - perf_counter()))
                if not done:
                    raise Overdue
            return waiter.result()
        finally:
            gone.cancel()

    def run_inline(self, function: Callable[[], Any]) -> Any:
        """Call a request's function here and now, on the event loop's thread. Call this in a task, only while `in_place`."""
        assert self.home is not None
        loop = asyncio.get_running_loop()
        return self.home.detached.run_in_task(loop, user_context(), guarded, {"function": function})

    async def run_plain(self, function: Callable[[], Any], context: Context | None = None) -> Any:
        """Run something that no client waits for, such as a callback, or the next part of a stream.

        context: in which it runs; that of the current request by default.
        """
        return await asyncio.wrap_future(self._submit(function, context))

    async def run_after(self, callback: Callable[[], Any], state: str) -> None:
        """Run what the user wants done once a response has been sent or a job is over. state: that, for the log."""
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
        future = self._pool.submit(job) if self._pool else self.home.submit(job)  # type: ignore[union-attr]
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
    """Call the user's function. What is no Exception becomes one: it would end the event loop, or pass for a cancelled task."""
    try:
        return function()
    except StopIteration as error:
        raise LeftEarly("the handler raised StopIteration") from error
    except Exception:
        raise
    except BaseException as error:
        raise LeftEarly(f"the handler raised {type(error).__name__}") from error


class Timed:
    """A call that notes how long it took. seconds: infinite until then."""

    __slots__ = ("_call", "seconds")

    def __init__(self, function: Callable[..., Any], arguments: dict[str, Any]) -> None:
        self._call = partial(function, **arguments)
        self.seconds = math.inf

    def __call__(self) -> Any:
        """Make it."""
        began = perf_counter()
        try:
            return self._call()
        finally:
            self.seconds = perf_counter() - began
