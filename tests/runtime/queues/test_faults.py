"""The table of faults: at each step of a job's life a request is lost, its response is lost, or the process exits after it.

In every case, the job ends once, completed with the result of one of its attempts, its webhook's message exists, and nothing
remains in the queue or among the payloads. Each case with an idempotency key, and without one, where a job starts without a
record.
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


async def submit(client: Queue, again: Queue, key: str, patience: float) -> str:
    """Submit like a client: again if there was no response, to the next gateway if the first one has exited."""
    for gateway in (client, again, again):
        try:
            return await gateway.submit(
                PAYLOAD, "application/octet-stream", key=key, webhook="http://x/", retry_seconds=patience
            )
        except (QueueError, Killed):
            continue
    raise AssertionError("not accepted")


async def work(worker: Queue, client: Queue, identity: str) -> None:
    """Run processes until the job has ended; a process that has exited is followed by the next."""
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
                # It is delivered again, and so are lost leases.
                await asyncio.sleep(0.05)


async def settled(queue: Queue, key: str) -> None:
    """The messages that broken attempts left are delivered again and dropped.

    Without a key, a request that got no response may have created a job of its own, which runs too.
    """
    async with asyncio.timeout(60):
        while True:
            try:
                depth = await queue.depth()
                if not depth.waiting and not depth.taken:
                    return
                for job in await queue.take(1, 1):
                    assert not key
                    await queue.complete(job, RESULT)
            except Unreachable:
                await asyncio.sleep(0.05)


async def life(
    make: Make, name: str, fault: Any, key: str = "key", patience: float = 0.2, lease: str = "1s"
) -> list[str]:
    """Run one life with one fault. Return the calls that were made."""
    healthy, other = [await make(name, lease=lease, maxAttempts=20) for _ in range(2)]
    faulty = Faulty(other.backend, fault)
    broken = Queue(faulty, other.settings)  # type: ignore[arg-type]
    try:
        identity = await submit(broken, healthy, key, patience)
        await work(broken, healthy, identity)
        await settled(healthy, key)
        record = await healthy.status(identity, fresh=True)
        assert record is not None
        assert record.status is Status.COMPLETED
        assert await healthy.result(record) == RESULT
        announced = set()
        while identity not in announced:
            hooks = await healthy.hooks.take(5, 20)
            assert hooks, "the webhook is missing"
            announced |= {hook.record.id for hook in hooks}
        assert not key or announced == {identity}
        await healthy.sweep()
        await healthy.sweep()
        assert [payload async for payload in healthy.backend.stored("payload")] == []
        return faulty.calls
    except AssertionError as error:
        raise AssertionError(f"{name}: {error}; calls: {faulty.calls}") from error


@pytest.mark.parametrize("key", ["key", ""], ids=["with a key", "without"])
@pytest.mark.parametrize("kind", KINDS)
async def test_a_fault_at_each_step(queue: Make, kind: str, key: str, queue_url: str) -> None:
    if queue_url.startswith("sqs") and not key:
        pytest.skip("on SQS, a job without a key has the same steps")
    calls = await life(queue, "none", nothing, key, lease="60s")
    assert {"write", "put", "get", "remove", "publish", "take", "renew", "settle"} <= set(calls)
    # Without a key, nothing is read that was not written before.
    assert ("read" in calls) == bool(key)
    steps = range(len(calls))
    if queue_url.startswith("sqs") and not os.environ.get("CORTEX_TESTS_FULL"):
        # The simulated SQS is slow, so the three kinds share the steps.
        steps = range(list(KINDS).index(kind), len(calls), len(KINDS))
    fault = KINDS[kind]
    tokens = asyncio.Semaphore(6)

    async def one(step: int) -> None:
        async with tokens:
            await life(queue, f"{step}-{calls[step]}", fault(step), key)

    await asyncio.gather(*(one(step) for step in steps))


async def test_nats_killed_before_each_step(tmp_path: Any, queue_of: Any) -> None:
    """Kill the server and restart it with its data; clients reconnect automatically."""
    server = Nats(tmp_path)
    server.start()
    try:
        make = queue_of(server.url)
        calls = await life(make, "none", nothing, lease="60s")
        for step in range(len(calls)):

            async def fault(
                number: int, name: str, call: Callable[[], Awaitable[Any]], at: int = step
            ) -> Any:
                if number == at:
                    await asyncio.to_thread(server.kill)
                    await asyncio.to_thread(server.start)
                return await call()

            await life(make, f"{step}-{calls[step]}", fault, patience=5)
    finally:
        server.kill()
