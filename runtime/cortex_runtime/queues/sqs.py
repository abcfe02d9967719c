"""A queue on SQS and S3, or compatible services.

Messages are in two SQS queues per API; payloads, records and results are objects below a prefix of a bucket. Records are
replaced by conditional writes (If-Match, If-None-Match). The store must make them atomic, as S3 does; otherwise a job can run
twice. The calls of boto3 block, so they run in threads.
"""

import asyncio
import base64
import contextlib
import functools
import hashlib
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import boto3
import botocore.client
import botocore.config
import botocore.exceptions

from cortex_runtime.backoff import backoff
from cortex_runtime.queues.base import (
    Changed,
    Channel,
    Conflict,
    Delivery,
    Depth,
    Entry,
    Full,
    Kind,
    Missing,
    Record,
    Unreachable,
)

T = TypeVar("T")

_THREADS = 32
_MAX_NAME = 80
_MAX_VISIBILITY = 12 * 3600
_MAX_WAIT = 20
_MAX_MESSAGES = 10
_FIRST_POLL, _LONGEST_POLL = 0.05, 1.0
"""Seconds."""
_CONFLICTS = ("PreconditionFailed", "ConditionalRequestConflict", "412", "409")
_ABSENT = ("NoSuchKey", "404", "NotFound")
_FULL = ("QuotaExceeded", "XMinioStorageFull", "InsufficientCapacity", "507", "OverLimit", "EntityTooLarge")
_NO_QUEUE = ("QueueDoesNotExist", "AWS.SimpleQueueService.NonExistentQueue")


class SqsBackend:
    """See base.Backend.

    bucket, prefix: location of the objects. name: of the API's queues. leases: of the messages of each channel, in seconds.
    endpoints: URLs of "sqs" and "s3", to override the environment.
    """

    inline = 128 * 1024
    finds_messages = False

    def __init__(
        self,
        bucket: str,
        prefix: str,
        name: str,
        leases: Mapping[Channel, float],
        region: str | None = None,
        endpoints: Mapping[str, str] | None = None,
    ) -> None:
        self._bucket = bucket
        self._prefix = prefix
        self._leases = leases
        self._region = region
        self._endpoints = endpoints or {}
        self._names: dict[Channel, str] = {channel: _queue_name(name, channel) for channel in leases}
        self._urls: dict[Channel, str] = {}
        self._clients: tuple[Any, Any] | None = None
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="queue")

    async def open(self) -> None:
        """Check that the bucket exists and create the queues. Idempotent."""
        await self._run(self._open)

    async def close(self) -> None:
        """Close the connections."""
        clients, self._clients = self._clients, None
        for client in clients or ():
            client.close()

    async def destroy(self) -> None:
        """Connect, and delete the queue with all its content. A missing queue is not an error."""
        await self._run(self._destroy)

    async def read(self, id: str, *, fresh: bool = False) -> Entry | None:
        """Return the record of a job; reads of S3 are always consistent."""
        try:
            return await self._run(self._get, f"records/{id}")
        except Missing:
            return None

    async def write(self, id: str, data: bytes, revision: Any, ttl: float | None) -> Any:
        """Create a record (revision None) or replace the one of this revision. Return the new revision."""
        condition = {"IfNoneMatch": "*"} if revision is None else {"IfMatch": revision}
        return await self._run(self._put, f"records/{id}", data, condition)

    @contextlib.asynccontextmanager
    async def watch(self, id: str) -> AsyncIterator[Changed]:
        """See base.Backend.watch. S3 has no notifications, so this polls with growing pauses."""
        pauses = backoff(_FIRST_POLL, _LONGEST_POLL, 1.5)

        async def changed(seconds: float) -> None:
            await asyncio.sleep(min(next(pauses), seconds))

        yield changed

    async def put(self, name: str, data: bytes, ttl: float | None) -> None:
        """Store an object; `expire` deletes results and dead letters."""
        await self._run(self._put, f"objects/{name}", data, {})

    async def get(self, name: str) -> bytes:
        """Return a complete payload or result. Raises Missing."""
        entry = await self._run(self._get, f"objects/{name}")
        return entry.data

    async def remove(self, name: str) -> None:
        """Delete a payload. A missing one is not an error."""
        await self._run(self._delete, f"objects/{name}")

    async def stored(self, kind: Kind) -> AsyncIterator[str]:
        """Yield the names of the stored objects of a kind."""
        for key, _ in await self._run(self._list, f"objects/{kind}/"):
            yield key.removeprefix("objects/")

    async def publish(self, channel: Channel, id: str, data: bytes) -> None:
        """Store a message, which may be delivered twice."""
        body = f"{id} {base64.b64encode(data).decode()}"
        await self._run(self._message, "send_message", channel, MessageBody=body)

    async def find(self, id: str) -> bytes | None:
        """Do not call: SQS can't look up a message."""
        raise NotImplementedError

    async def oldest(self, limit: int) -> list[bytes]:
        """Do not call: SQS can't look up messages."""
        raise NotImplementedError

    async def withdraw(self, id: str) -> None:
        """Do nothing: SQS can't delete it, so a worker receives and drops it."""

    async def take(self, channel: Channel, limit: int, seconds: float) -> list[Delivery]:
        """Wait for messages and return at most `limit`, and at most ten; an empty list after `seconds`, which are rounded."""
        answer = await self._run(
            self._message,
            "receive_message",
            channel,
            MaxNumberOfMessages=min(limit, _MAX_MESSAGES),
            WaitTimeSeconds=min(round(seconds), _MAX_WAIT),
            VisibilityTimeout=max(1, round(self._leases[channel])),
            MessageSystemAttributeNames=["ApproximateReceiveCount"],
        )
        deliveries = []
        for message in answer.get("Messages", ()):
            identity, _, content = message["Body"].partition(" ")
            try:
                data = base64.b64decode(content, validate=True)
            except ValueError:
                # Not written by Cortex; the queue drops messages that it can't parse.
                data = b""
            times = int(message.get("Attributes", {}).get("ApproximateReceiveCount", 1))
            deliveries.append(Delivery(identity, data, times, (channel, message["ReceiptHandle"])))
        return deliveries

    async def renew(self, delivery: Delivery) -> None:
        """Renew the lease of a message. SQS ends it after twelve hours; after that only the lease in the record remains."""
        await self._set_visibility(delivery, max(1, round(self._leases[delivery.handle[0]])))

    async def release(self, delivery: Delivery, delay: float) -> None:
        """Release a message, to be delivered again after `delay` seconds."""
        await self._set_visibility(delivery, min(round(delay), _MAX_VISIBILITY))

    async def settle(self, delivery: Delivery) -> None:
        """Delete a message that has been processed."""
        channel, receipt = delivery.handle
        with contextlib.suppress(_Stale):
            await self._run(self._message, "delete_message", channel, ReceiptHandle=receipt)

    async def depth(self, channel: Channel) -> Depth:
        """Return the depth of a channel, as estimated by SQS."""
        kinds = ("", "Delayed", "NotVisible")
        names = [f"ApproximateNumberOfMessages{kind}" for kind in kinds]
        answer = await self._run(self._message, "get_queue_attributes", channel, AttributeNames=names)
        waiting, delayed, taken = (int(answer["Attributes"].get(name, 0)) for name in names)
        return Depth(waiting + delayed, taken, None)

    async def expire(self, keep: float) -> None:
        """Delete records, results and dead letters of ended jobs older than `keep` seconds."""
        await self._run(self._expire, keep)

    # Blocking calls

    async def _run(self, function: Callable[..., T], *arguments: Any, **more: Any) -> T:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, functools.partial(function, *arguments, **more))

    def _connect(self) -> tuple[Any, Any]:
        with _translated():
            if self._clients is None:
                session = boto3.session.Session()
                config = botocore.config.Config(
                    connect_timeout=3,
                    read_timeout=30,
                    retries={"max_attempts": 2, "mode": "standard"},
                    max_pool_connections=_THREADS,
                )
                options: dict[str, Any] = {"config": config}
                if (
                    region := self._region
                    or session.region_name
                    or ("us-east-1" if self._endpoints else None)
                ):
                    options["region_name"] = region
                s3 = session.client("s3", endpoint_url=self._endpoints.get("s3"), **options)
                sqs = session.client("sqs", endpoint_url=self._endpoints.get("sqs"), **options)
                self._clients = (s3, sqs)
            return self._clients

    def _open(self) -> None:
        s3, sqs = self._connect()
        with _translated():
            s3.head_bucket(Bucket=self._bucket)
            for channel, name in self._names.items():
                # 14 days is the longest that SQS keeps a message.
                attributes = {"MessageRetentionPeriod": str(14 * 24 * 3600)}
                self._urls[channel] = sqs.create_queue(QueueName=name, Attributes=attributes)["QueueUrl"]

    def _services(self) -> tuple[Any, Any]:
        if self._clients is None or len(self._urls) < len(self._names):
            raise Unreachable("not connected to SQS and S3 yet")
        return self._clients

    def _destroy(self) -> None:
        s3, sqs = self._connect()
        with _translated():
            s3.head_bucket(Bucket=self._bucket)
            for name in self._names.values():
                with contextlib.suppress(sqs.exceptions.QueueDoesNotExist):
                    sqs.delete_queue(QueueUrl=sqs.get_queue_url(QueueName=name)["QueueUrl"])
        for key, _ in self._list(""):
            self._delete(key)

    def _get(self, key: str) -> Entry:
        s3, _ = self._services()
        with _translated():
            answer = s3.get_object(Bucket=self._bucket, Key=f"{self._prefix}/{key}")
            return Entry(answer["Body"].read(), answer["ETag"])

    def _put(self, key: str, data: bytes, condition: dict[str, str]) -> str:
        s3, _ = self._services()
        with _translated():
            try:
                answer = s3.put_object(
                    Bucket=self._bucket, Key=f"{self._prefix}/{key}", Body=data, **condition
                )
            except botocore.exceptions.ClientError as error:
                if condition and _code(error) in _ABSENT:
                    raise Conflict("the record does not exist") from error
                raise
            etag: str = answer["ETag"]
            return etag

    def _delete(self, key: str) -> None:
        s3, _ = self._connect()
        with _translated():
            s3.delete_object(Bucket=self._bucket, Key=f"{self._prefix}/{key}")

    def _list(self, below: str) -> list[tuple[str, float]]:
        """Return (key, Unix time of its last change) of all objects below a prefix."""
        s3, _ = self._connect()
        found = []
        with _translated():
            pages = s3.get_paginator("list_objects_v2").paginate(
                Bucket=self._bucket, Prefix=f"{self._prefix}/{below}"
            )
            for page in pages:
                for item in page.get("Contents", ()):
                    key = item["Key"].removeprefix(f"{self._prefix}/")
                    found.append((key, item["LastModified"].timestamp()))
        return found

    def _message(self, operation: str, channel: Channel, **arguments: Any) -> dict[str, Any]:
        _, sqs = self._services()
        with _translated():
            answer: dict[str, Any] = getattr(sqs, operation)(QueueUrl=self._urls[channel], **arguments)
            return answer

    async def _set_visibility(self, delivery: Delivery, seconds: int) -> None:
        channel, receipt = delivery.handle
        with contextlib.suppress(_Stale):
            await self._run(
                self._message,
                "change_message_visibility",
                channel,
                ReceiptHandle=receipt,
                VisibilityTimeout=seconds,
            )

    def _expire(self, keep: float) -> None:
        before = time.time() - keep
        for key, changed in self._list("records/"):
            # An old record may belong to a job that is still queued.
            if changed < before:
                with contextlib.suppress(Missing):
                    if Record.unpack(self._get(key).data).ended:
                        self._delete(key)
        for below in ("objects/result/", "objects/failed/"):
            for key, changed in self._list(below):
                if changed < before:
                    self._delete(key)


class _Stale(Unreachable):
    """The receipt of a message is no longer valid: it has been delivered again or settled."""


def _queue_name(name: str, channel: str) -> str:
    full = f"{name}-{channel}"
    if len(full) <= _MAX_NAME:
        return full
    digest = hashlib.sha256(name.encode()).hexdigest()[:10]
    return f"{name[: _MAX_NAME - len(channel) - 12]}-{digest}-{channel}"


def _code(error: botocore.exceptions.ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    """Translate errors of boto3 to those of a backend."""
    try:
        yield
    except botocore.exceptions.ClientError as error:
        code, status = _code(error), error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        text = f"{error.operation_name}: {error.response.get('Error', {}).get('Message') or code}"
        if code in _CONFLICTS or status in (409, 412):
            raise Conflict(text) from error
        if code in _NO_QUEUE:
            raise Unreachable(f"the queue does not exist: {text}") from error
        if code in _ABSENT:
            raise Missing(text) from error
        if code in ("ReceiptHandleIsInvalid", "MessageNotInflight", "InvalidParameterValue"):
            raise _Stale(text) from error
        if code in _FULL or status == 507:
            raise Full(text) from error
        raise Unreachable(text) from error
    except (botocore.exceptions.BotoCoreError, OSError) as error:
        raise Unreachable(str(error) or type(error).__name__) from error
