"""A store without space: new jobs are refused, and accepted jobs still end."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from cortex_runtime.queues.base import Full, Status
from cortex_runtime.queues.dead_letters import NotRetryable
from cortex_runtime.queues.queue import Queue
from tests.runtime.queues.servers import Nats

Make = Callable[..., Awaitable[Queue]]


@pytest.fixture
async def small(tmp_path: Path, queue_of: Any) -> AsyncIterator[Make]:
    """Return a factory of queues at a server with little storage."""
    server = Nats(tmp_path, storage=6 * 1024 * 1024)
    server.start()
    yield queue_of(server.url)
    server.kill()


async def filled(queue: Queue) -> list[str]:
    """Return the IDs of jobs that were accepted until the store was full, to the last byte that a job can have."""
    accepted = []
    for size in (200_000, 10_000, 100, 0):
        try:
            while True:
                accepted.append(await queue.submit(b"x" * size, "text/plain", retry_seconds=0))
        except Full:
            pass
    return accepted


async def test_accepted_jobs_complete_on_a_full_store_and_free_its_space(small: Make) -> None:
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


async def test_jobs_are_refused_until_the_reserve_is_full_again(small: Make) -> None:
    gateway, other, worker = await small(), await small(), await small()
    accepted = await filled(gateway)
    (job,) = await worker.take(1, 60)
    for size in (0, 100):
        # Freed by the worker, and not for this.
        with pytest.raises(Full):
            await other.submit(b"x" * size, "text/plain", retry_seconds=0)
    await worker.complete(job, b'"done"')
    for identity in accepted:
        await gateway.cancel(identity)
    await gateway.backend.expire(1)
    await other.submit(b"x", "text/plain")


async def test_new_jobs_have_precedence_over_the_payloads_of_failed_jobs(small: Make) -> None:
    gateway, worker = await small(), await small()
    async with asyncio.timeout(60):
        for _ in range(40):
            await gateway.submit(b"x" * 200_000, "text/plain")
            (job,) = await worker.take(1, 60)
            await worker.fail(job, "HandlerError", "broken")
    listed, count = await gateway.dead_letters.list(5)
    assert count > 10
    later = [await gateway.submit(b"x" * 200_000, "text/plain", retry_seconds=0) for _ in range(15)]
    assert len(set(later)) == 15
    records, count = await gateway.dead_letters.list(5)
    assert (records, count) == ([], 0)
    with pytest.raises(NotRetryable, match="submit it as a new job"):
        await gateway.dead_letters.retry(listed[0].id)


class Quota:
    """A test double of an S3 store with a quota: a real store that accepts no more objects while `full`."""

    def __init__(self, behind: str) -> None:
        self._behind = behind
        self.full = False
        self.url = ""

    async def run(self, runner: web.AppRunner) -> None:
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"

    async def answer(self, request: web.Request) -> web.Response:
        body = await request.read()
        if self.full and request.method == "PUT":
            error = "<Error><Code>QuotaExceeded</Code><Message>the bucket is full</Message></Error>"
            return web.Response(status=403, text=f'<?xml version="1.0"?>{error}')
        async with (
            aiohttp.ClientSession(auto_decompress=False) as session,
            session.request(
                request.method, self._behind + request.raw_path, headers=request.headers, data=body
            ) as answer,
        ):
            kept = {k: v for k, v in answer.headers.items() if k.lower() in ("etag", "content-type")}
            return web.Response(status=answer.status, body=await answer.read(), headers=kept)


async def test_a_full_bucket_refuses_new_jobs_and_completes_accepted_ones_later(
    sqs_url: str, queue_of: Any
) -> None:
    address, _, store = sqs_url.rpartition("&s3=")
    quota = Quota(store)
    app = web.Application(client_max_size=2**30)
    app.router.add_route("*", "/{path:.*}", quota.answer)
    runner = web.AppRunner(app)
    await quota.run(runner)
    try:
        make = queue_of(f"{address}&s3={quota.url}")
        gateway, worker = await make(lease="2s"), await make(lease="2s")
        accepted = [await gateway.submit(b"x" * size, "text/plain") for size in (10, 300_000)]
        quota.full = True
        with pytest.raises(Full):
            await gateway.submit(b"x" * 300_000, "text/plain", retry_seconds=0)
        # Its start cannot be recorded, so it is not started.
        assert await worker.take(1, 1) == []
        for identity in accepted:
            record = await gateway.status(identity)
            assert record is not None
            assert record.status is Status.IN_QUEUE
        quota.full = False
        # Its lease lasts longer than that of the messages, which are delivered again soon.
        worker = await make()
        ended = set()
        async with asyncio.timeout(60):
            while ended != set(accepted):
                for job in await worker.take(2, 1):
                    await worker.complete(job, b'"done"')
                    ended.add(job.id)
        for identity in accepted:
            record = await gateway.status(identity)
            assert record is not None
            assert (record.status, record.attempt) == (Status.COMPLETED, 1)
    finally:
        await runner.cleanup()
