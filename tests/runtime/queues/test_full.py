"""A store without room for more: new jobs are refused, and those that were accepted come to their end all the same."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from cortex_runtime.queues.base import Full, Status
from cortex_runtime.queues.queue import Queue
from tests.runtime.queues.servers import Nats

Make = Callable[..., Awaitable[Queue]]


@pytest.fixture
async def small(tmp_path: Path, queue_of: Any) -> AsyncIterator[Make]:
    """Makes queues at a server that stores little."""
    server = Nats(tmp_path, storage=6 * 1024 * 1024)
    server.start()
    yield queue_of(server.url)
    server.kill()


async def filled(queue: Queue) -> list[str]:
    """Ids of the jobs that were accepted until there was no room, to the last byte that a job can have."""
    accepted = []
    for size in (200_000, 10_000, 100, 0):
        try:
            while True:
                accepted.append(await queue.submit(b"x" * size, "text/plain", patience=0))
        except Full:
            pass
    return accepted


async def test_what_was_accepted_ends_and_then_there_is_room_again(small: Make) -> None:
    gateway, worker = await small(), await small()
    accepted = await filled(gateway)
    assert len(accepted) > 10
    cancelled = await gateway.cancel(accepted[0])
    assert cancelled is not None
    assert (cancelled.status, cancelled.reason) == (Status.FAILED, "Cancelled")
    ended = set()
    async with asyncio.timeout(60):
        while len(ended) < len(accepted) - 1:
            for job in await worker.take(4, 1):
                await worker.complete(job, b'"done"')
                ended.add(job.id)
    for identity in accepted[1:]:
        record = await gateway.status(identity, fresh=True)
        assert record is not None
        assert record.status is Status.COMPLETED
    await gateway.submit(b"x" * 200_000, "text/plain")


async def test_jobs_are_refused_until_the_room_for_ending_them_is_whole_again(small: Make) -> None:
    gateway, other, worker = await small(), await small(), await small()
    accepted = await filled(gateway)
    (job,) = await worker.take(1, 10)
    for size in (0, 100):
        # Freed by the worker, and not for this.
        with pytest.raises(Full):
            await other.submit(b"x" * size, "text/plain", patience=0)
    await worker.complete(job, b'"done"')
    for identity in accepted:
        await gateway.cancel(identity)
    await gateway.backend.expire(1)
    await other.submit(b"x", "text/plain")
