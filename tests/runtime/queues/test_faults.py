"""The fault table: at each step of a job's life a call gets lost, its answer gets lost, or the process dies after it.

Whatever happens, the job ends once, completed with the result of one of its attempts, its webhook's message is there, and
nothing is left in the queue or among the payloads.
"""

import asyncio
import os
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from cortex_runtime.queues.base import QueueError, Status, Unreachable
from cortex_runtime.queues.queue import Queue
from tests.runtime.queues.faults import (
    Faulty,
    Killed,
    answer_lost_at,
    killed_after,
    nothing,
    unreachable_at,
)
from tests.runtime.queues.servers import Nats

Make = Callable[..., Awaitable[Queue]]

PAYLOAD = os.urandom(400_000)
RESULT = b'"' + b"r" * 400_000 + b'"'
KINDS = {"call lost": unreachable_at, "answer lost": answer_lost_at, "killed": killed_after}


async def submit(client: Queue, again: Queue, patience: float) -> str:
    """As a client does that has a key: once more when it got no answer, from the next gateway when the first is dead."""
    for gateway in (client, again, again):
        try:
            return await gateway.submit(
                PAYLOAD, "application/octet-stream", key="key", webhook="http://x/", retry_seconds=patience
            )
        except (QueueError, Killed):
            continue
    raise AssertionError("not accepted")


async def work(worker: Queue, client: Queue, identity: str) -> None:
    """Until the job has ended; a process that is dead is followed by the next."""
    async with asyncio.timeout(60):
        while True:
            try:
                record = await client.status(identity, fresh=True)
                assert record is not None, "an accepted job is not known any more"
                if record.ended:
                    return
                for job in await worker.take(1, 1):
                    assert job.payload == PAYLOAD
                    await worker.renew(job, 0.5)
                    await worker.complete(job, RESULT)
            except Killed:
                worker = client
            except QueueError:
                # It comes again, lost leases too.
                await asyncio.sleep(0.05)


async def settled(queue: Queue) -> None:
    """What is left over from a broken attempt comes back, and only disappears."""
    async with asyncio.timeout(30):
        while True:
            try:
                depth = await queue.depth()
                if not depth.waiting and not depth.taken:
                    return
                assert await queue.take(1, 1) == []
            except Unreachable:
                await asyncio.sleep(0.05)


async def life(make: Make, name: str, fault: Any, patience: float = 0.2) -> list[str]:
    """One life with one fault; gives the calls that were made."""
    healthy, other = await make(name, lease="1s"), await make(name, lease="1s")
    faulty = Faulty(other.backend, fault)
    broken = Queue(faulty, other.settings)  # type: ignore[arg-type]
    try:
        identity = await submit(broken, healthy, patience)
        await work(broken, healthy, identity)
        await settled(healthy)
        record = await healthy.status(identity, fresh=True)
        assert record is not None
        assert record.status is Status.COMPLETED
        assert await healthy.result(record) == RESULT
        hooks = await healthy.hooks.take(5, 2)
        assert {hook.record.id for hook in hooks} == {identity}
        await healthy.sweep()
        await healthy.sweep()
        assert [payload async for payload in healthy.backend.payloads()] == []
        return faulty.calls
    except AssertionError as error:
        raise AssertionError(f"{name}: {error}; calls: {faulty.calls}") from error


@pytest.mark.parametrize("kind", KINDS)
async def test_a_fault_at_each_step(queue: Make, kind: str, queue_url: str) -> None:
    calls = await life(queue, "none", nothing)
    assert {"read", "write", "put", "get", "remove", "publish", "take", "renew", "settle"} <= set(calls)
    steps = range(len(calls))
    if queue_url.startswith("sqs") and not os.environ.get("CORTEX_TESTS_FULL"):
        # The simulated SQS is slow, so the three kinds share the steps.
        steps = range(list(KINDS).index(kind), len(calls), len(KINDS))
    fault = KINDS[kind]
    tokens = asyncio.Semaphore(6)

    async def one(step: int) -> None:
        async with tokens:
            await life(queue, f"{step}-{calls[step]}", fault(step))

    await asyncio.gather(*(one(step) for step in steps))


async def test_nats_killed_before_each_step(tmp_path: Any, queue_of: Any) -> None:
    """kill -9 of the server, which is started again on its data; clients find it again by themselves."""
    server = Nats(tmp_path)
    server.start()
    try:
        make = queue_of(server.url)
        calls = await life(make, "none", nothing)
        for step in range(len(calls)):

            async def fault(
                number: int, name: str, call: Callable[[], Awaitable[Any]], at: int = step
            ) -> Any:
                if number == at:
                    await asyncio.to_thread(server.kill)
                    await asyncio.to_thread(server.start)
                return await call()

            await life(make, f"{step}-{calls[step]}", fault, 5)
    finally:
        server.kill()
