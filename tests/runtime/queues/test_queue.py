"""The guarantees of a queue, on each backend."""

import asyncio
import dataclasses
import os
from collections.abc import Awaitable, Callable

import pytest

from cortex_runtime.queues.base import Conflict, LeaseLost, Missing, Status
from cortex_runtime.queues.claims import Job
from cortex_runtime.queues.queue import Queue
from cortex_runtime.queues.records import Settings
from cortex_runtime.queues.submissions import OtherRequest

SHORT = 0.3
"""Seconds to wait for something that must not happen."""
Make = Callable[..., Awaitable[Queue]]


class KeptForASecond(Settings):
    """Settings under which the record and the result of an ended job are stored for one second."""

    keep = 1.0


async def take(queue: Queue, seconds: float = 60) -> Job:
    """Return the next job."""
    async with asyncio.timeout(seconds):
        while not (jobs := await queue.take(1, 1)):
            pass
    return jobs[0]


async def none_left(queue: Queue) -> bool:
    depth = await queue.depth()
    return not depth.waiting and not depth.taken


async def emptied(queue: Queue) -> None:
    """Settling a message has no response, so it may take a moment."""
    async with asyncio.timeout(60):
        while not await none_left(queue):
            pass


async def test_the_life_of_a_job(queue: Make) -> None:
    one = await queue()
    identity = await one.submit(b'{"a": 1}', "application/json")
    record = await one.status(identity)
    assert record is not None
    assert record.status is Status.IN_QUEUE
    job = await take(one)
    assert (job.id, job.payload, job.ticket.payload.type) == (identity, b'{"a": 1}', "application/json")
    await one.renew(job)
    record = await one.status(identity)
    assert record is not None
    assert (record.status, record.attempt) == (Status.IN_PROGRESS, 1)
    await one.complete(job, b"[1,2]")
    record = await one.status(identity)
    assert record is not None
    assert record.status is Status.COMPLETED
    assert await one.result(record) == b"[1,2]"
    assert await one.take(1, SHORT) == []
    await emptied(one)


async def test_payload_and_result_of_any_size_are_stored(queue: Make) -> None:
    one = await queue()
    for size in (0, 1, one.backend.inline, one.backend.inline + 1, 2_500_000):
        payload, result = os.urandom(size), b'"' + b"r" * size + b'"'
        identity = await one.submit(payload, "application/octet-stream")
        job = await take(one)
        assert job.payload == payload
        await one.complete(job, result)
        record = await one.status(identity)
        assert record is not None
        assert await one.result(record) == result
    assert [name async for name in one.backend.stored("payload")] == []


async def test_jobs_of_another_api_are_not_taken(queue: Make) -> None:
    one, other = await queue(), await queue("other")
    identity = await one.submit(b"x", "text/plain")
    assert await other.status(identity) is None
    assert await other.cancel(identity) is None
    assert await other.take(1, SHORT) == []


async def test_several_workers_share_the_jobs_and_none_runs_twice(queue: Make) -> None:
    workers = [await queue() for _ in range(3)]
    ids = {await workers[0].submit(b"%d" % number, "text/plain") for number in range(30)}
    done: list[str] = []

    async def work(worker: Queue) -> None:
        while not await none_left(worker):
            for job in await worker.take(2, SHORT):
                done.append(job.id)
                await worker.complete(job, b"1")

    await asyncio.gather(*(work(worker) for worker in workers))
    assert sorted(done) == sorted(ids)


async def test_a_job_of_an_exited_worker_runs_again_and_a_late_worker_cannot_write(queue: Make) -> None:
    late, other = await queue(lease="1s"), await queue(lease="1s")
    identity = await late.submit(b"x", "text/plain")
    first = await take(late)
    second = await take(other)
    assert second.id == identity
    assert second.record.attempt == 2
    assert second.suspect
    with pytest.raises(LeaseLost):
        await late.renew(first)
    with pytest.raises(LeaseLost):
        await late.complete(first, b'"late"')
    await other.complete(second, b'"right"')
    record = await other.status(identity)
    assert record is not None
    assert await other.result(record) == b'"right"'


async def test_a_renewed_job_stays_with_its_worker(queue: Make) -> None:
    holder, other = await queue(lease="3s"), await queue(lease="3s")
    await holder.submit(b"x", "text/plain")
    job = await take(holder)
    stealing = asyncio.create_task(take(other, 60))
    for number in range(8):
        await asyncio.sleep(0.5)
        await holder.renew(job, number / 8, f"step {number}")
    record = await holder.status(job.id, fresh=True)
    assert record is not None
    assert (record.progress, record.note) == (7 / 8, "step 7")
    await holder.complete(job, b"1")
    assert not stealing.done()
    stealing.cancel()


async def test_a_duplicate_message_starts_no_second_attempt(queue: Make) -> None:
    one = await queue()
    identity = await one.submit(b"x", "text/plain")
    job = await take(one)
    if one.backend.finds_messages:
        with pytest.raises(Conflict):
            await one.backend.publish("jobs", identity, job.ticket.pack())
    else:
        await one.backend.publish("jobs", identity, job.ticket.pack())
    assert await one.take(1, SHORT) == []
    await one.complete(job, b"1")
    assert await one.take(1, SHORT) == []
    record = await one.status(identity)
    assert record is not None
    assert record.attempt == 1


async def test_a_job_becomes_a_dead_letter_after_its_last_failed_attempt(queue: Make) -> None:
    one = await queue(maxAttempts=2)
    identity = await one.submit(b"x", "text/plain")
    assert await one.retry(await take(one), "HandlerError", "it failed")
    record = await one.status(identity, fresh=True)
    assert record is not None
    assert (record.status, record.reason) == (Status.IN_QUEUE, "HandlerError")
    assert not await one.retry(await take(one), "HandlerError", "it failed again")
    record = await one.status(identity, fresh=True)
    assert record is not None
    assert (record.status, record.attempt, record.reason) == (Status.FAILED, 2, "HandlerError")
    assert "2 attempts" in record.message
    assert "it failed again" in record.message
    await emptied(one)


async def test_attempts_of_exited_workers_are_counted(queue: Make) -> None:
    one = await queue(lease="1s", maxAttempts=2)
    identity = await one.submit(b"x", "text/plain")
    await take(one)
    await take(one)
    record = None
    async with asyncio.timeout(60):
        while record is None or not record.ended:
            assert await one.take(1, SHORT) == []
            record = await one.status(identity)
    assert (record.status, record.reason, record.attempt) == (Status.FAILED, "WorkerLost", 2)


async def test_a_released_job_is_taken_again_without_counting_the_attempt(queue: Make) -> None:
    one = await queue()
    identity = await one.submit(b"x", "text/plain")
    for _ in range(5):
        job = await take(one)
        assert (job.record.attempt, job.suspect) == (1, False)
        await one.release(job)
    record = await one.status(identity, fresh=True)
    assert record is not None
    assert (record.status, record.attempt) == (Status.IN_QUEUE, 0)


async def test_cancel_a_queued_a_running_and_an_ended_job(queue: Make) -> None:
    one = await queue(lease="2s")
    waiting = await one.submit(os.urandom(300_000), "application/octet-stream")
    record = await one.cancel(waiting)
    assert record is not None
    assert (record.status, record.reason) == (Status.FAILED, "Cancelled")
    assert await one.take(1, SHORT) == []
    await emptied(one)
    assert [name async for name in one.backend.stored("payload")] == []

    running = await one.submit(b"x", "text/plain")
    job = await take(one)
    await one.cancel(running)
    with pytest.raises(LeaseLost):
        await one.renew(job)
    with pytest.raises(LeaseLost):
        await one.complete(job, b"1")
    record = await one.cancel(running)
    assert record is not None
    assert record.status is Status.FAILED

    ended = await one.submit(b"x", "text/plain")
    await one.complete(await take(one), b"1")
    record = await one.cancel(ended)
    assert record is not None
    assert record.status is Status.COMPLETED
    assert await one.cancel("0" * 32) is None


async def test_one_idempotency_key_creates_one_job(queue: Make) -> None:
    one = await queue(lease="4s")
    ids = await asyncio.gather(*(one.submit(b"x", "text/plain", key="k") for _ in range(6)))
    assert len(set(ids)) == 1
    with pytest.raises(OtherRequest):
        await one.submit(b"y", "text/plain", key="k")
    with pytest.raises(OtherRequest):
        await one.submit(b"x", "application/json", key="k")
    ran = []
    while not await none_left(one):
        for job in await one.take(5, 1):
            ran.append(job.payload)
            await one.complete(job, b"1")
    assert ran == [b"x"]
    assert await one.submit(b"x", "text/plain", key="k") == ids[0]
    assert await one.take(1, SHORT) == []


async def test_a_refused_request_with_a_used_key_does_not_run(queue: Make) -> None:
    """Its message may be the first that a worker receives."""
    one = await queue(lease="1s")
    answers = await asyncio.gather(
        *(one.submit(b"%d" % n * 150_000, "text/plain", key="k") for n in range(4)), return_exceptions=True
    )
    accepted = [number for number, answer in enumerate(answers) if isinstance(answer, str)]
    assert len(accepted) == 1
    ran = []
    while not await none_left(one):
        for job in await one.take(5, 1):
            ran.append(job.payload)
            await one.complete(job, b"1")
    assert ran == [b"%d" % accepted[0] * 150_000]


async def test_ended_jobs_expire_and_their_keys_can_be_reused(queue: Make) -> None:
    one = await queue(retention="100ms")
    identity = await one.submit(b"x", "text/plain", key="k")
    await one.complete(await take(one), b"1")
    await asyncio.sleep(0.15)
    assert await one.status(identity) is None
    assert await one.submit(b"other", "text/plain", key="k") == identity
    job = await take(one)
    assert (job.payload, job.record.attempt) == (b"other", 1)
    await one.complete(job, b"2")
    assert await one.result(job.record) == b"2"


async def test_wait_returns_when_the_job_ends(queue: Make) -> None:
    one, worker = await queue(), await queue()
    identity = await one.submit(b"x", "text/plain")
    waiting = asyncio.create_task(one.wait(identity, 30))
    job = await take(worker)
    await worker.renew(job, 0.5, "half")
    assert not waiting.done()
    await worker.complete(job, b"1")
    async with asyncio.timeout(60):
        record = await waiting
    assert record is not None
    assert record.status is Status.COMPLETED
    assert await one.wait("0" * 32, 30) is None


async def test_a_hook_is_delivered_until_it_is_settled(queue: Make) -> None:
    one = await queue()
    identity = await one.submit(b"x", "text/plain", webhook="http://somewhere/")
    assert await one.hooks.take(5, SHORT) == []
    await one.complete(await take(one), b"1")
    [hook] = await one.hooks.take(5, 20)
    assert (hook.record.id, hook.record.webhook) == (identity, "http://somewhere/")
    await one.hooks.retry(hook, 0)
    [hook] = await one.hooks.take(5, 20)
    assert hook.delivery.times == 2
    await one.hooks.settle(hook)
    assert await one.hooks.take(5, SHORT) == []


async def test_only_payloads_without_a_job_are_swept(queue: Make) -> None:
    one = await queue()
    await one.submit(os.urandom(300_000), "application/octet-stream")
    await one.backend.put("payload/0123/0", os.urandom(300_000), None)
    assert await one.sweep() == 0
    assert await one.sweep() == 1
    left = [name async for name in one.backend.stored("payload")]
    assert len(left) == 1
    assert len((await take(one)).payload) == 300_000


async def test_one_of_many_concurrent_writers_wins(queue: Make) -> None:
    one = await queue()
    backend = one.backend

    async def winners(revision: object) -> list[object]:
        # All writes differ, as those of a queue do: the revision of an S3 object is a digest of its content.
        writes = (backend.write("r", os.urandom(20), revision, None) for _ in range(10))
        answers = await asyncio.gather(*writes, return_exceptions=True)
        assert all(isinstance(a, Conflict) for a in answers if isinstance(a, BaseException))
        return [a for a in answers if not isinstance(a, BaseException)]

    created = await winners(None)
    assert len(created) == 1
    replaced = await winners(created[0])
    assert len(replaced) == 1
    assert await winners(created[0]) == []
    entry = await backend.read("r", fresh=True)
    assert entry is not None
    assert entry.revision == replaced[0]


async def test_a_missing_object_raises_missing(queue: Make) -> None:
    one = await queue()
    with pytest.raises(Missing):
        await one.backend.get("result/none/0")
    await one.backend.remove("payload/none/0")
    assert await one.backend.read("none") is None


async def test_a_missing_payload_fails_its_job(queue: Make) -> None:
    one = await queue()
    identity = await one.submit(os.urandom(300_000), "application/octet-stream")
    [name] = [name async for name in one.backend.stored("payload")]
    await one.backend.remove(name)
    record = None
    async with asyncio.timeout(60):
        while record is None or not record.ended:
            assert await one.take(1, SHORT) == []
            record = await one.status(identity, fresh=True)
    assert (record.status, record.reason) == (Status.FAILED, "PayloadLost")


async def test_an_invalid_message_is_dropped(queue: Make) -> None:
    one = await queue()
    await one.backend.publish("jobs", "strange", b"nonsense")
    identity = await one.submit(b"x", "text/plain")
    assert (await take(one)).id == identity


async def test_a_removed_queue_is_empty_afterwards(queue: Make) -> None:
    one = await queue()
    identity = await one.submit(os.urandom(300_000), "application/octet-stream")
    await one.backend.destroy()
    await one.backend.open()
    assert await one.status(identity) is None
    assert [name async for name in one.backend.stored("payload")] == []


async def test_ended_jobs_are_removed_after_retention_and_queued_jobs_stay(queue: Make) -> None:
    one = await queue()
    one.settings = one._records.settings = KeptForASecond(**dataclasses.asdict(one.settings))
    ended = await one.submit(b"x", "text/plain")
    job = await take(one)
    await one.complete(job, b'"%b"' % (b"r" * 300_000))
    waiting = await one.submit(b"y", "text/plain")
    async with asyncio.timeout(60):
        # NATS removes expired records by their time to live, SQS and S3 when the gateway requests it.
        while await one.backend.read(ended, fresh=True) is not None:
            await one.backend.expire(one.settings.keep)
    async with asyncio.timeout(60):
        while True:
            await one.backend.expire(one.settings.keep)
            try:
                await one.result(job.record)
            except Missing:
                break
    assert await one.status(waiting) is not None
    assert (await take(one)).id == waiting
