"""The work queue: one entry for each key, one worker at a time, and retries."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from cortex_operator.workqueue import WorkQueue


@asynccontextmanager
async def running(work: Callable[[str], Awaitable[None]]) -> AsyncIterator[WorkQueue[str]]:
    queue: WorkQueue[str] = WorkQueue(work, workers=4)
    task = asyncio.create_task(queue.run())
    try:
        yield queue
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_key_that_is_added_twice_is_processed_once() -> None:
    seen: list[str] = []
    done = asyncio.Event()

    async def work(key: str) -> None:
        seen.append(key)
        if key == "last":
            done.set()

    async with running(work) as queue:
        for key in ("a", "a", "b", "a", "last"):
            queue.add(key)
        await asyncio.wait_for(done.wait(), 60)
    assert sorted(seen) == ["a", "b", "last"]


async def test_urgent_keys_go_first() -> None:
    seen: list[str] = []
    over = asyncio.Event()

    async def work(key: str) -> None:
        seen.append(key)
        if key == "end":
            over.set()

    queue: WorkQueue[str] = WorkQueue(work, workers=1)
    for key in ("a", "b", "c"):
        queue.add(key)
    queue.add("new", urgent=True)
    queue.add("c", urgent=True)
    queue.add("end")
    assert len(queue) == 5
    task = asyncio.create_task(queue.run())
    await asyncio.wait_for(over.wait(), 60)
    assert seen == ["new", "c", "a", "b", "end"]
    assert len(queue) == 0
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_key_is_never_processed_concurrently_and_again_if_added_meanwhile() -> None:
    started, release, twice = asyncio.Event(), asyncio.Event(), asyncio.Event()
    at_once, most, runs = 0, 0, 0

    async def work(key: str) -> None:
        nonlocal at_once, most, runs
        at_once, runs = at_once + 1, runs + 1
        most = max(most, at_once)
        started.set()
        await release.wait()
        at_once -= 1
        if runs == 2:
            twice.set()

    async with running(work) as queue:
        queue.add("a")
        await asyncio.wait_for(started.wait(), 60)
        queue.add("a")
        queue.add("a")
        release.set()
        await asyncio.wait_for(twice.wait(), 60)
        await asyncio.sleep(0)
    assert (most, runs) == (1, 2)


async def test_a_failed_key_is_retried_without_blocking_others() -> None:
    tries: list[str] = []
    recovered = asyncio.Event()

    async def work(key: str) -> None:
        tries.append(key)
        if key == "bad" and tries.count("bad") < 3:
            raise RuntimeError("not yet")
        if tries.count("bad") == 3 and "good" in tries:
            recovered.set()

    async with running(work) as queue:
        queue.add("bad")
        queue.add("good")
        await asyncio.wait_for(recovered.wait(), 60)
    assert queue.failed == 2
