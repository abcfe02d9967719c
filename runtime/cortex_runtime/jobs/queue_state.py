"""The state of a gateway's queue: whether it is reachable, and its cached length."""

import asyncio
import logging
import math

from cortex_runtime.backoff import backoff
from cortex_runtime.queues.base import Depth, QueueError, Unreachable
from cortex_runtime.queues.queue import Queue

log = logging.getLogger("cortex")

_DEPTH_SECONDS = 1.0
_PAUSE, _LONGEST_PAUSE = 0.2, 5.0


class QueueState:
    """Whether the queue is reachable, and its length. The length is measured on demand, at most once per second."""

    def __init__(self, queue: Queue) -> None:
        self._queue = queue
        self._measuring: asyncio.Task[Depth] | None = None
        self._measured_at = -math.inf
        self._accepted = 0
        self.depth: Depth | None = None
        self.problem = "not reached yet"
        self.reached = False

    async def open(self) -> None:
        """Connect to the queue; retry until it is reachable."""
        for pause in backoff(_PAUSE, _LONGEST_PAUSE):
            try:
                await self._queue.backend.open()
                self.reached, self.problem = True, ""
                return
            except QueueError as error:
                self.problem = str(error)
                log.error("failed to reach the queue; retrying: %s", error)
                await asyncio.sleep(pause)

    def accepted(self) -> None:
        """Count a job that was accepted since the last measurement."""
        self._accepted += 1

    async def fresh(self) -> Depth:
        """Return the depth of the queue, at most one second old. Raises Unreachable."""
        if self.depth is not None and self._age() < _DEPTH_SECONDS and not self.problem:
            return self.depth
        return await asyncio.shield(self._refresh())

    async def length(self) -> int:
        """Return the number of queued and running jobs from the cache, which is refreshed in the background."""
        if self.depth is None:
            await self.fresh()
        elif self._age() >= _DEPTH_SECONDS:
            self._refresh()
        assert self.depth is not None
        return self.depth.waiting + self.depth.taken + self._accepted

    def _age(self) -> float:
        return asyncio.get_running_loop().time() - self._measured_at

    def _refresh(self) -> "asyncio.Task[Depth]":
        if self._measuring is None or self._measuring.done():
            self._measuring = asyncio.create_task(self._measure())
            # Without a caller that awaits the task, its exception must still be retrieved.
            self._measuring.add_done_callback(lambda task: task.cancelled() or task.exception())
        return self._measuring

    async def _measure(self) -> Depth:
        before = self._accepted
        try:
            if not self.reached:
                raise Unreachable(self.problem)
            try:
                self.depth = await self._queue.depth()
            except QueueError:
                # A server that restarts with an empty disk has lost its streams; existing ones stay unchanged.
                await self._queue.backend.open()
                self.depth = await self._queue.depth()
        except QueueError as error:
            self.problem = str(error)
            raise Unreachable(str(error)) from error
        finally:
            self._measured_at = asyncio.get_running_loop().time()
        self.problem = ""
        self._accepted -= before
        return self.depth
