"""Jobs whose only trace is their message: from acceptance until their first attempt has run for a moment or has ended."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import orjson
import pytest

from cortex_runtime.queues.base import FORMAT, TRACED_FORMAT, Backend, LeaseLost, Status, Unreachable
from cortex_runtime.queues.queue import Queue
from cortex_runtime.queues.submissions import OtherRequest

from .test_queue import SHORT, Make, emptied, none_left, take


@pytest.fixture
def nats(queue_of: Any, nats_server: Any) -> Make:
    make: Callable[..., Awaitable[Queue]] = queue_of(nats_server.url)
    return make


class Wrapped:
    """A backend with some methods replaced."""

    def __init__(self, backend: Backend, **methods: Any) -> None:
        self._backend = backend
        self._methods = methods

    def __getattr__(self, name: str) -> Any:
        return self._methods.get(name) or getattr(self._backend, name)


def wrapped(queue: Queue, **methods: Any) -> Queue:
    return Queue(Wrapped(queue.backend, **methods), queue.settings)  # type: ignore[arg-type]


async def test_a_queued_job_has_no_record_and_is_found(nats: Make) -> None:
    one = await nats()
    identity = await one.submit(b"x", "text/plain")
    assert await one.backend.read(identity, fresh=True) is None
    record = await one.status(identity)
    assert record is not None
    assert (record.status, record.attempt) == (Status.IN_QUEUE, 0)
    await one.complete(await take(one), b"1")
    record = await one.wait(identity, 60)
    assert record is not None
    assert record.status is Status.COMPLETED


async def test_a_job_that_ends_between_two_reads_is_found(nats: Make) -> None:
    one = await nats()
    identity = await one.submit(b"x", "text/plain")

    async def find(id: str) -> bytes | None:
        await one.complete(await take(one), b"1")
        await emptied(one)
        return await one.backend.find(id)

    record = await wrapped(one, find=find).status(identity)
    assert record is not None
    assert record.status is Status.COMPLETED


async def test_a_lost_first_attempt_is_counted_once(nats: Make) -> None:
    """Deliveries that start no attempt are not counted."""
    one = await nats(lease="1s", maxAttempts=3)
    await one.submit(b"x", "text/plain")
    await take(one)

    reads = 0

    async def read(id: str, *, fresh: bool = False) -> Any:
        nonlocal reads
        reads += 1
        raise Unreachable("the network is down")

    broken = wrapped(one, read=read)
    async with asyncio.timeout(60):
        while not reads:
            assert await broken.take(1, 1) == []
    job = await take(one)
    assert (job.delivery.times, job.record.attempt, job.suspect) == (3, 2, True)


async def test_an_only_attempt_is_recorded_before_it_starts(nats: Make) -> None:
    one = await nats(lease="1s", maxAttempts=1)
    identity = await one.submit(b"x", "text/plain")
    job = await take(one)
    record = await one.status(identity, fresh=True)
    assert record is not None
    assert (record.status, record.attempt) == (Status.IN_PROGRESS, 1)
    await one.release(job)
    await take(one)
    async with asyncio.timeout(60):
        while not (record := await one.status(identity, fresh=True)) or not record.ended:
            assert await one.take(1, SHORT) == []
    assert (record.status, record.reason, record.attempt) == (Status.FAILED, "WorkerLost", 1)


async def test_cancel_wins_over_an_attempt_without_a_record(nats: Make) -> None:
    one = await nats()
    identity = await one.submit(b"x", "text/plain")
    job = await take(one)
    record = await one.cancel(identity)
    assert record is not None
    assert (record.status, record.reason) == (Status.FAILED, "Cancelled")
    with pytest.raises(LeaseLost):
        await one.renew(job)
    with pytest.raises(LeaseLost):
        await one.complete(job, b"1")
    await emptied(one)


async def test_a_message_that_a_retry_stored_after_the_end_of_its_job_is_dropped(nats: Make) -> None:
    """The response to the first message was lost, and a worker was faster than the retry."""
    one = await nats()

    async def publish(*arguments: Any) -> None:
        publish.calls += 1  # type: ignore[attr-defined]
        await one.backend.publish(*arguments)
        if publish.calls == 1:  # type: ignore[attr-defined]
            await one.complete(await take(one), b"1")
            await emptied(one)
            raise Unreachable("the response is lost")

    publish.calls = 0  # type: ignore[attr-defined]
    identity = await wrapped(one, publish=publish).submit(b"x", "text/plain")
    assert publish.calls == 2  # type: ignore[attr-defined]
    assert await one.take(1, SHORT) == []
    await emptied(one)
    record = await one.status(identity)
    assert record is not None
    assert (record.status, record.attempt) == (Status.COMPLETED, 1)


async def test_a_key_whose_job_ends_during_the_request_creates_no_second_job(nats: Make) -> None:
    """The first read finds no record; the message is accepted, and dropped by a worker."""
    one = await nats()
    identity = await one.submit(b"x", "text/plain", key="k")

    def meanwhile() -> Queue:
        done = False

        async def publish(*arguments: Any) -> None:
            nonlocal done
            if not done:
                done = True
                while not await none_left(one):
                    for job in await one.take(1, 1):
                        await one.complete(job, b"1")
            await one.backend.publish(*arguments)

        async def read(id: str, *, fresh: bool = False) -> Any:
            return await one.backend.read(id, fresh=fresh) if done else None

        return wrapped(one, publish=publish, read=read)

    assert await meanwhile().submit(b"x", "text/plain", key="k") == identity
    with pytest.raises(OtherRequest):
        await meanwhile().submit(b"y", "text/plain", key="k")
    assert await one.take(5, SHORT) == []
    await emptied(one)


async def test_a_key_can_be_used_again_after_its_job_has_expired(nats: Make) -> None:
    """The expired record is stored for some time, and the payload of the new job is kept."""
    one = await nats(retention="100ms")
    identity = await one.submit(b"x", "text/plain", key="k")
    await one.complete(await take(one), b"1")
    await asyncio.sleep(0.15)
    large = b"y" * (one.backend.inline + 1)
    assert await one.submit(large, "text/plain", key="k") == identity
    record = await one.status(identity)
    assert record is not None
    assert record.status is Status.IN_QUEUE
    assert (await one.sweep(), await one.sweep()) == (0, 0)
    job = await take(one)
    assert (job.payload, job.record.attempt) == (large, 1)


async def test_a_message_of_an_older_version_is_claimed_by_its_record(nats: Make) -> None:
    """Until format 2, each accepted job had a record."""
    one = await nats()
    identity = await one.submit(b"x", "text/plain")
    message = await one.backend.find(identity)
    assert message is not None
    await one.backend.withdraw(identity)
    head, _, body = message.partition(b"\n")
    fields = orjson.loads(head)
    assert fields.pop("format") == FORMAT
    del fields["repeated"]
    await one.backend.publish("jobs", identity, orjson.dumps(fields) + b"\n" + body)
    job = await take(one)
    assert (job.payload, job.record.attempt) == (b"x", 1)
    entry = await one.backend.read(identity, fresh=True)
    assert entry is not None
    assert entry.revision == job.revision


async def test_a_message_of_a_newer_version_stays_in_the_queue(nats: Make) -> None:
    one = await nats()
    head = {"id": "new", "format": TRACED_FORMAT + 1, "content": {}}
    await one.backend.publish("jobs", "new", orjson.dumps(head) + b"\n")
    assert await one.take(1, SHORT) == []
    assert await one.backend.find("new") is not None
