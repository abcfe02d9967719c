"""Failed jobs: listed, and retried with their payload, on each backend."""

import asyncio
import os
from collections.abc import Awaitable, Callable

import pytest

from cortex_runtime.queues.base import Conflict, Full, Status
from cortex_runtime.queues.claims import Job
from cortex_runtime.queues.dead_letters import NotRetryable
from cortex_runtime.queues.queue import Queue

Make = Callable[..., Awaitable[Queue]]


async def take(queue: Queue) -> Job:
    """Return the next job."""
    async with asyncio.timeout(60):
        while not (jobs := await queue.take(1, 5)):
            pass
    return jobs[0]


async def failed(queue: Queue, payload: bytes = b"x", **options: str) -> str:
    """Submit a job that fails, and return its id."""
    identity = await queue.submit(payload, "text/plain", **options)
    await queue.fail(await take(queue), "HandlerError", "the model is missing")
    return identity


async def test_a_failed_job_is_listed_and_retried_with_its_payload_of_any_size(queue: Make) -> None:
    one = await queue()
    for payload in (b"small", os.urandom(300_000)):
        identity = await failed(one, payload)
        [record], count = await one.dead_letters.list(10)
        assert (record.id, record.reason, record.message, count) == (
            identity,
            "HandlerError",
            "the model is missing",
            1,
        )
        assert await one.sweep() + await one.sweep() == 0
        waiting = await one.dead_letters.retry(identity)
        assert waiting is not None
        assert waiting.status is Status.IN_QUEUE
        assert await one.dead_letters.list(10) == ([], 0)
        job = await take(one)
        assert (job.id, job.payload, job.record.attempt) == (identity, payload, 1)
        await one.complete(job, b"1")
        record = await one.status(identity, fresh=True)
        assert record is not None
        assert record.status is Status.COMPLETED
        assert [name async for name in one.backend.stored("payload")] == []


async def test_the_newest_failures_come_first(queue: Make) -> None:
    one = await queue()
    ids = []
    for _ in range(3):
        ids.append(await failed(one))
        await asyncio.sleep(0.002)
    records, count = await one.dead_letters.list(2)
    assert ([record.id for record in records], count) == ([ids[2], ids[1]], 3)


async def test_a_retried_job_that_fails_again_can_be_retried_again(queue: Make) -> None:
    one = await queue()
    identity = await failed(one, key="k", webhook="http://somewhere/")
    for times in range(2):
        [hook] = await one.hooks.take(5, 20)
        assert hook.record.reason == ("HandlerError" if times == 0 else "Again")
        await one.hooks.settle(hook)
        assert await one.dead_letters.retry(identity) is not None
        await one.fail(await take(one), "Again", "failed again")
        [record], _ = await one.dead_letters.list(10)
        assert (record.id, record.reason) == (identity, "Again")


async def test_only_failed_jobs_with_a_payload_are_retried(queue: Make) -> None:
    one = await queue()
    assert await one.dead_letters.retry("0" * 32) is None
    cancelled = await one.submit(b"x", "text/plain")
    await one.cancel(cancelled)
    with pytest.raises(NotRetryable, match="was cancelled"):
        await one.dead_letters.retry(cancelled)
    completed = await one.submit(b"x", "text/plain")
    await one.complete(await take(one), b"1")
    with pytest.raises(NotRetryable, match="the job is completed"):
        await one.dead_letters.retry(completed)
    lost = await failed(one)
    async for name in one.backend.stored("failed"):
        await one.backend.remove(name)
    with pytest.raises(NotRetryable, match="submit it as a new job"):
        await one.dead_letters.retry(lost)
    assert (await one.dead_letters.list(10))[0] == []


async def test_of_two_concurrent_retries_one_starts_the_job(queue: Make) -> None:
    one = await queue()
    identity = await failed(one)
    answers = await asyncio.gather(
        *(one.dead_letters.retry(identity) for _ in range(3)), return_exceptions=True
    )
    assert sum(isinstance(answer, NotRetryable) for answer in answers) == 2
    await one.complete(await take(one), b"1")
    assert await one.take(1, 0.5) == []


async def test_a_retry_without_a_message_leaves_the_job_failed(
    queue: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message cannot be stored: the job must not wait for it."""
    one = await queue()
    identity = await failed(one)

    async def publish(*_: object) -> None:
        raise Full("no space")

    with monkeypatch.context() as patch:
        patch.setattr(one.backend, "publish", publish)
        patch.setattr("cortex_runtime.queues.dead_letters._RETRY_SECONDS", 0.1)
        with pytest.raises(Full):
            await one.dead_letters.retry(identity)
    record = await one.status(identity, fresh=True)
    assert record is not None
    assert (record.status, record.reason) == (Status.FAILED, "HandlerError")
    assert await one.dead_letters.retry(identity) is not None
    await one.complete(await take(one), b"1")


async def test_a_message_that_is_not_settled_yet_does_not_prevent_a_retry(
    queue: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = await queue()
    identity = await failed(one)
    original, calls = one.backend.publish, []

    async def publish(*arguments: object) -> None:
        calls.append(arguments)
        if len(calls) == 1:
            raise Conflict("the message exists")
        await original(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(one.backend, "publish", publish)
    assert await one.dead_letters.retry(identity) is not None
    assert len(calls) == 2
    await one.complete(await take(one), b"1")


async def test_jobs_that_have_not_ended_are_listed_the_oldest_first(queue: Make, queue_url: str) -> None:
    one = await queue(maxAttempts=3)
    if queue_url.startswith("sqs"):
        assert await one.oldest(10) is None
        return
    ids = [await one.submit(b"x", "text/plain") for _ in range(4)]
    await one.complete(await take(one), b"1")
    retried, running = await take(one), await take(one)
    await one.renew(running, 0.5, "half")
    await one.retry(retried, "HandlerError", "not yet")
    found = await one.oldest(10)
    assert found is not None
    assert [record.id for record in found] == ids[1:]
    assert [record.status for record in found] == [Status.IN_QUEUE, Status.IN_PROGRESS, Status.IN_QUEUE]
    assert (found[0].attempt, found[0].message) == (1, "not yet")
    assert found[1].progress == 0.5
    assert len(await one.oldest(2) or ()) == 2
