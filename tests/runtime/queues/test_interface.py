"""The interface of the handler goes from workers to gateways, on each backend."""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from cortex_runtime.jobs.interface import InterfacePublisher, InterfaceReader
from cortex_runtime.queues.base import Backend
from cortex_runtime.queues.queue import Queue

Make = Callable[..., Awaitable[Queue]]


@asynccontextmanager
async def publisher(backend: Backend, content: bytes) -> AsyncIterator[InterfacePublisher]:
    """Publish an interface while the block runs, and check it all the time."""
    made = InterfacePublisher(backend, 0.02)
    made.set(content)
    task = asyncio.create_task(made.run())
    try:
        yield made
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def is_read(backend: Backend, content: bytes) -> None:
    reader = InterfaceReader(backend, 0)
    async with asyncio.timeout(60):
        while await reader.read() != content:
            pass


async def test_a_gateway_reads_what_a_worker_has_stored_also_after_the_worker_has_exited(queue: Make) -> None:
    worker, gateway = await queue(), await queue()
    assert await InterfaceReader(gateway.backend).read() == b""
    large = os.urandom(256 * 1024)
    async with publisher(worker.backend, b"first") as publishing:
        await is_read(gateway.backend, b"first")
        publishing.set(large)
        await is_read(gateway.backend, large)
    await is_read(gateway.backend, large)
    async with publisher(worker.backend, b"short"):
        await is_read(gateway.backend, b"short")


async def test_the_last_version_that_runs_prevails_and_a_lost_interface_is_stored_again(queue: Make) -> None:
    one = await queue()
    async with publisher(one.backend, b"new"):
        async with publisher(one.backend, b"old"):
            await is_read(one.backend, b"old")
        await is_read(one.backend, b"new")
        await one.backend.remove("interface/handler")
        await is_read(one.backend, b"new")


async def test_it_is_not_a_job_and_no_sweep_removes_it(queue: Make) -> None:
    one = await queue()
    async with publisher(one.backend, b"kept"):
        await is_read(one.backend, b"kept")
    for _ in range(3):
        await one.sweep()
    await is_read(one.backend, b"kept")
    assert [name async for name in one.backend.stored("payload")] == []
    depth = await one.depth()
    assert depth.waiting + depth.taken == 0


async def test_a_gateway_keeps_the_last_interface_while_the_queue_does_not_respond(queue: Make) -> None:
    one = await queue()
    reader = InterfaceReader(one.backend, 0)
    async with publisher(one.backend, b"known"):
        await is_read(one.backend, b"known")
    assert await reader.read() == b"known"
    await one.backend.close()
    assert await reader.read() == b"known"
