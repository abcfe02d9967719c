"""What the workers of a replica send about themselves when the supervisor asks for it (`Describe`)."""

import asyncio
from collections.abc import Iterable
from itertools import count

from cortex_runtime.messages import Describe, Description
from cortex_runtime.replica.worker_slot import WorkerSlot

_SECONDS = 2.0
"""Seconds to wait for the workers."""


class Descriptions:
    """Asks workers, and collects what they send. Used on the event loop alone."""

    def __init__(self) -> None:
        self._pending: dict[str, asyncio.Future[bytes]] = {}
        self._ids = count()

    async def collect(self, slots: Iterable[WorkerSlot], topic: str) -> list[bytes]:
        """Return what the workers send about a topic of `Describe`, as JSON. A worker that hangs is left out."""
        answers = {}
        for slot in slots:
            if slot.is_serving:
                name = f"{topic}-{next(self._ids)}"
                answers[name] = self._pending[name] = asyncio.get_running_loop().create_future()
                slot.send(Describe(name, topic))
        if answers:
            await asyncio.wait(answers.values(), timeout=_SECONDS)
        for name in answers:
            self._pending.pop(name, None)
        return [answer.result() for answer in answers.values() if answer.done()]

    def on_description(self, description: Description) -> None:
        """Handle what a worker has sent. It is ignored if it is too late."""
        answer = self._pending.pop(description.id, None)
        if answer is not None and not answer.done():
            answer.set_result(description.body)
