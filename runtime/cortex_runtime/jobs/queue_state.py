"""What a gateway knows of its queue: whether it answers, and how long it is."""

import asyncio
import logging
import math

from cortex_runtime.queues.base import Depth, QueueError, Unreachable
from cortex_runtime.queues.queue import Queue

log = logging.getLogger("cortex")

_DEPTH_SECONDS = 1.0
_PAUSE, _LONGEST_PAUSE = 0.2, 5.0


class QueueState:
    """Whether the queue answers, and how long it is: asked for when somebody wants to know, and then not again for a second."""

    def __init__(self, queue: Queue) -> None:
        self._queue = queue
        self._asking: asyncio.Task[Depth] | None = None
        self._asked = -math.inf
        self._accepted = 0
        self.depth: Depth | None = None
        self.problem = "it has not been reached yet"
        self.reached = False

    async def open(self) -> None:
        """Reach the queue, however long it takes."""
        pause = _PAUSE
        while not self.reached:
            try:
                await self._queue.backend.open()
                self.reached, self.problem = True, ""
            except QueueError as error:
                self.problem = str(error)
                log.error("the queue can't be reached, and is tried again: %s", error)
                await asyncio.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)

    def accepted(self) -> None:
        """One job more."""
        self._accepted += 1

    async def fresh(self) -> Depth:
        """The queue's depth, at most a second old. Raises Unreachable."""
        if self.depth is not None and self._age() < _DEPTH_SECONDS and not self.problem:
            return self.depth
        return await asyncio.shield(self._ask())

    async def length(self) -> int:
        """Jobs that wait and run, as far as known here: nobody waits for the backend unless nothing is known."""
        if self.depth is None:
            await self.fresh()
        elif self._age() >= _DEPTH_SECONDS:
            self._ask()
        assert self.depth is not None
        return self.depth.waiting + self.depth.taken + self._accepted

    def _age(self) -> float:
        return asyncio.get_running_loop().time() - self._asked

    def _ask(self) -> "asyncio.Task[Depth]":
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self._measure())
            # Nobody may be waiting for it.
            self._asking.add_done_callback(lambda task: task.cancelled() or task.exception())
        return self._asking

    async def _measure(self) -> Depth:
        before = self._accepted
        try:
            if not self.reached:
                raise Unreachable(self.problem)
            try:
                self.depth = await self._queue.depth()
            except QueueError:
                # A server that came back with an empty disk has no streams; where there is one, nothing changes.
                await self._queue.backend.open()
                self.depth = await self._queue.depth()
        except QueueError as error:
            self.problem = str(error)
            raise Unreachable(str(error)) from error
        finally:
            self._asked = asyncio.get_running_loop().time()
        self.problem = ""
        self._accepted -= before
        return self.depth
