"""A queue on NATS JetStream, 2.11 or newer: four streams for each API.

Jobs and hooks are work-queue streams with a subject for each job. Records are a key-value bucket (`nats kv get
cortex-NAMESPACE-NAME ID`) whose entries expire after the retention of their job. Committed changes are republished for clients
that wait. Payloads and results that are too large for a message are stored in parts.

The server counts deliveries, and writes the counts to its disk asynchronously. A server that is killed may forget a delivery of
its last moments, and deliver that message as if it were the first time.
"""

import asyncio
import base64
import contextlib
import hashlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import nats.errors
import orjson
from nats.aio.msg import Msg

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
    Unreachable,
)
from cortex_runtime.queues.jetstream import Inbox, InUse, JetStream

log = logging.getLogger("cortex")

_PART = 512 * 1024
_PARTS_AT_ONCE = 8
_DUPLICATES = 60.0
_CONSUMER = {"jobs": "workers", "hooks": "gateways"}
_NONE_YET = {"Nats-Expected-Last-Subject-Sequence": "0"}
_RESERVE, _RESERVED = 4, 128 * 1024
"""Number of pieces of the reserve, and the size of each in bytes."""


class NatsBackend:
    """See base.Backend.

    leases: of the messages of each channel, in seconds. replicas: copies in a cluster. credentials: path of a file.
    """

    inline = 256 * 1024
    finds_messages = True

    def __init__(
        self,
        servers: list[str],
        name: str,
        leases: Mapping[Channel, float],
        replicas: int = 1,
        credentials: str | None = None,
    ) -> None:
        self._server = JetStream(servers, name, credentials)
        self._name = name
        self._leases = leases
        self._replicas = replicas
        self._inboxes: dict[Channel, Inbox] = {}
        self._opening = asyncio.Lock()
        self._listening = False
        self._short = False

    async def open(self) -> None:
        """Connect, and create missing resources. Idempotent."""
        async with self._opening:
            await self._server.open()
            for suffix, config in self._streams().items():
                await self._make_stream(suffix, config)
            for channel in self._leases:
                await self._make_consumer(channel)
            if not self._listening:
                await self._server.listen(self._shortage, self._note_shortage)
                self._listening = True
            with contextlib.suppress(Full):
                await self._fill_reserve()

    async def close(self) -> None:
        """Flush and close the connection."""
        self._inboxes.clear()
        self._listening = False
        await self._server.close()

    async def destroy(self) -> None:
        """Connect, and delete the queue with all its content. A missing queue is not an error."""
        await self._server.open()
        for suffix in self._streams():
            with contextlib.suppress(Missing):
                await self._server.call_api(f"STREAM.DELETE.{self._stream(suffix)}")

    async def read(self, id: str, *, fresh: bool = False) -> Entry | None:
        """Return the record of a job. fresh: from the leader of the stream instead of any replica."""
        message = await self._last("records", self._record(id), fresh)
        return None if message is None else Entry(*message)

    async def write(self, id: str, data: bytes, revision: Any, ttl: float | None) -> Any:
        """Create a record (revision None) or replace the one of this revision. Return the new revision."""
        headers = {"Nats-Expected-Last-Subject-Sequence": str(revision or 0), **_ttl(ttl)}
        return await self._store_at_last(self._record(id), data, headers)

    @contextlib.asynccontextmanager
    async def watch(self, id: str) -> AsyncIterator[Changed]:
        """See base.Backend.watch; wakes when a change of the record is committed."""
        subscription = await self._server.listen(f"{self._changes}.{id}")

        async def changed(seconds: float) -> None:
            try:
                await subscription.next_msg(seconds)
            except nats.errors.TimeoutError:
                return
            except nats.errors.Error as error:
                raise Unreachable(f"NATS: {error}") from error

        try:
            yield changed
        finally:
            with contextlib.suppress(nats.errors.Error):
                await subscription.unsubscribe()

    async def put(self, name: str, data: bytes, ttl: float | None) -> None:
        """Store the parts, then the head that makes them visible."""
        is_new = name.startswith("payload/")
        if is_new:
            await self._admit()
        try:
            if is_new:
                await self._make_room(lambda: self._put(name, data, ttl))
            else:
                await self._put(name, data, ttl)
        except Full:
            self._short = True
            # Free the space of the parts that were stored.
            with contextlib.suppress(Unreachable):
                await self.remove(name)
            raise

    async def _put(self, name: str, data: bytes, ttl: float | None) -> None:
        parts = [data[start : start + _PART] for start in range(0, len(data), _PART)]
        headers = _ttl(ttl)
        subject = self._object(name)
        for first in range(0, len(parts), _PARTS_AT_ONCE):
            numbered = enumerate(parts[first : first + _PARTS_AT_ONCE], first)
            await asyncio.gather(
                *(self._server.store(f"{subject}.{n}", part, headers) for n, part in numbered)
            )
        head = {"parts": len(parts), "size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        await self._server.store(f"{subject}.head", orjson.dumps(head), headers)

    async def get(self, name: str) -> bytes:
        """Return a complete payload or result. Raises Missing."""
        subject = self._object(name)
        found = await self._server.last(self._stream("objects"), f"{subject}.head")
        if found is None:
            raise Missing(f"{name} is missing in the store")
        head = orjson.loads(found.data)
        data = bytearray()
        for first in range(0, head["parts"], _PARTS_AT_ONCE):
            last = min(first + _PARTS_AT_ONCE, head["parts"])
            parts = await asyncio.gather(
                *(self._server.last(self._stream("objects"), f"{subject}.{n}") for n in range(first, last))
            )
            for part in parts:
                if part is None:
                    raise Missing(f"a part of {name} is missing in the store")
                data += part.data
        if hashlib.sha256(data).hexdigest() != head["sha256"]:
            raise Missing(f"{name} is corrupt in the store")
        return bytes(data)

    async def remove(self, name: str) -> None:
        """Delete a payload. A missing one is not an error."""
        await self._server.call_api(
            f"STREAM.PURGE.{self._stream('objects')}", {"filter": f"{self._object(name)}.>"}
        )

    async def stored(self, kind: Kind) -> AsyncIterator[str]:
        """Yield the names of the stored objects of a kind, including incomplete ones."""
        subject = self._object(kind)
        seen, offset = set(), 0
        while True:
            answer = await self._server.call_api(
                f"STREAM.INFO.{self._stream('objects')}",
                {"subjects_filter": f"{subject}.>", "offset": offset},
            )
            subjects = answer["state"].get("subjects") or {}
            for found in subjects:
                name = "/".join((kind, *found[len(subject) + 1 :].split(".")[:-1]))
                if name not in seen:
                    seen.add(name)
                    yield name
            offset += len(subjects)
            if not subjects or offset >= answer.get("total", 0):
                return

    async def publish(self, channel: Channel, id: str, data: bytes) -> None:
        """Store a message. Raises Conflict if the queue has a message of the same job."""
        subject = self._message(channel, id)
        if channel == "hooks":
            digest = hashlib.sha256(data).hexdigest()[:16]
            await self._store_at_last(subject, data, {"Nats-Msg-Id": f"{id}-{digest}"})
            return
        await self._admit()
        await self._make_room(lambda: self._server.store(subject, data, _NONE_YET))

    async def find(self, id: str) -> bytes | None:
        """Return the message of a job that is queued or running, or None."""
        # From the leader: a replica may not have the message of a job that has just been accepted.
        message = await self._last("jobs", self._message("jobs", id), fresh=True)
        return None if message is None else message[0]

    async def oldest(self, limit: int) -> list[bytes]:
        """Return the messages of the oldest jobs that are queued or running."""
        found: list[bytes] = []
        sequence = 1
        while len(found) < limit:
            message = await self._server.next(self._stream("jobs"), self._message("jobs", "*"), sequence)
            if message is None:
                break
            found.append(message.data)
            sequence = int((message.headers or {})["Nats-Sequence"]) + 1
        return found

    async def withdraw(self, id: str) -> None:
        """Delete the message of a job."""
        await self._server.call_api(
            f"STREAM.PURGE.{self._stream('jobs')}", {"filter": self._message("jobs", id)}
        )

    async def take(self, channel: Channel, limit: int, seconds: float) -> list[Delivery]:
        """Wait for messages and return at most `limit`; an empty list after `seconds`."""
        inbox = self._inboxes.get(channel)
        if inbox is None:
            source = f"$JS.API.CONSUMER.MSG.NEXT.{self._stream(channel)}.{_CONSUMER[channel]}"
            inbox = self._inboxes[channel] = await self._server.inbox(source)
        return [_delivery(message) for message in await inbox.take(limit, seconds)]

    async def renew(self, delivery: Delivery) -> None:
        """Renew the lease of a message."""
        await self._server.publish(delivery.handle, b"+WPI")

    async def release(self, delivery: Delivery, delay: float) -> None:
        """Release a message, to be delivered again after `delay` seconds."""
        later = b' {"delay": %d}' % int(delay * 1e9) if delay > 0 else b""
        await self._server.publish(delivery.handle, b"-NAK" + later)

    async def settle(self, delivery: Delivery) -> None:
        """Delete a message that has been processed."""
        await self._server.publish(delivery.handle, b"+ACK")

    async def depth(self, channel: Channel) -> Depth:
        """Return the depth of a channel."""
        stream = self._stream(channel)
        consumer = await self._server.call_api(f"CONSUMER.INFO.{stream}.{_CONSUMER[channel]}")
        state = (await self._server.call_api(f"STREAM.INFO.{stream}"))["state"]
        oldest = None
        if state["messages"]:
            first = datetime.fromisoformat(state["first_ts"][:19]).replace(tzinfo=UTC)
            oldest = max(0.0, (datetime.now(UTC) - first).total_seconds())
        return Depth(consumer["num_pending"], consumer["num_ack_pending"], oldest)

    async def expire(self, keep: float) -> None:
        """Refill the reserve when there is space again; expired entries are deleted by the server."""
        with contextlib.suppress(Full):
            await self._admit()

    # The reserve: space that is only used to complete accepted jobs. A full store would otherwise refuse the records of the jobs
    # that fill it, and stay full. New jobs are refused from the first use of the reserve until it is complete again.

    async def _store_at_last(self, subject: str, data: bytes, headers: dict[str, str]) -> int:
        """Store a message, using the reserve if the store is full."""
        for piece in range(_RESERVE):
            try:
                return await self._server.store(subject, data, headers)
            except Full:
                self._short = True
                with contextlib.suppress(Unreachable):
                    await self._server.publish(self._shortage, b"")
                await self.remove(f"reserve/{piece}")
        return await self._server.store(subject, data, headers)

    async def _admit(self) -> None:
        """Refill the reserve before a job is stored. Raises Full."""
        if self._short:
            await self._make_room(self._fill_reserve)

    async def _make_room(self, action: Callable[[], Awaitable[Any]]) -> None:
        """Run an action for a new job. New jobs have precedence over dead letters, which are removed if the store is full."""
        try:
            await action()
        except Full:
            self._short = True
            answer = await self._server.call_api(
                f"STREAM.PURGE.{self._stream('objects')}", {"filter": f"{self._object('failed')}.>"}
            )
            if not answer.get("purged"):
                raise
            log.warning(
                "the store is full: removed the payloads of failed jobs, which cannot be retried any more"
            )
            await action()

    async def _fill_reserve(self) -> None:
        self._short = True
        answer = await self._server.call_api(
            f"STREAM.INFO.{self._stream('objects')}", {"subjects_filter": f"{self._object('reserve')}.>"}
        )
        there = answer["state"].get("subjects") or {}
        subjects = [self._object(f"reserve/{piece}/room") for piece in range(_RESERVE)]
        for subject in subjects:
            if subject not in there:
                with contextlib.suppress(Conflict):
                    await self._server.store(subject, bytes(_RESERVED), _NONE_YET)
        self._short = False

    async def _note_shortage(self, message: Msg) -> None:
        self._short = True

    async def _last(self, suffix: str, subject: str, fresh: bool) -> tuple[bytes, int] | None:
        """Return the last message of a subject and its sequence. fresh: from the leader of the stream, not from any replica."""
        if not fresh or self._replicas == 1:
            found = await self._server.last(self._stream(suffix), subject)
            return None if found is None else (found.data, int((found.headers or {})["Nats-Sequence"]))
        try:
            answer = await self._server.call_api(
                f"STREAM.MSG.GET.{self._stream(suffix)}", {"last_by_subj": subject}
            )
        except Missing:
            return None
        message = answer["message"]
        return base64.b64decode(message.get("data", "")), message["seq"]

    # Names

    def _stream(self, suffix: str) -> str:
        return f"KV_{self._name}" if suffix == "records" else f"{self._name}-{suffix}"

    def _message(self, channel: Channel, id: str) -> str:
        return f"{self._name}.{channel}.{id}"

    def _record(self, id: str) -> str:
        return f"$KV.{self._name}.{id}"

    def _object(self, name: str) -> str:
        return f"{self._name}.objects.{name.replace('/', '.')}"

    @property
    def _changes(self) -> str:
        return f"{self._name}.changed"

    @property
    def _shortage(self) -> str:
        return f"{self._name}.short"

    def _streams(self) -> dict[str, dict[str, Any]]:
        work = {"retention": "workqueue", "duplicate_window": int(_DUPLICATES * 1e9), "allow_direct": True}
        kept = {"retention": "limits", "max_msgs_per_subject": 1, "allow_msg_ttl": True, "allow_direct": True}
        changes = {"src": f"$KV.{self._name}.>", "dest": f"{self._changes}.>", "headers_only": True}
        return {
            "jobs": {**work, "subjects": [f"{self._name}.jobs.*"]},
            "hooks": {**work, "subjects": [f"{self._name}.hooks.*"]},
            "records": {
                **kept,
                "subjects": [f"$KV.{self._name}.>"],
                "republish": changes,
                "allow_rollup_hdrs": True,
                "deny_delete": True,
            },
            "objects": {**kept, "subjects": [f"{self._name}.objects.>"]},
        }

    async def _make_stream(self, suffix: str, config: dict[str, Any]) -> None:
        name = self._stream(suffix)
        full = {
            **config,
            "name": name,
            "storage": "file",
            "discard": "new",
            "num_replicas": self._replicas,
            "max_msg_size": -1,
        }
        try:
            await self._server.call_api(f"STREAM.CREATE.{name}", full)
        except InUse:
            # Created by another version or with another number of replicas.
            await self._server.call_api(f"STREAM.UPDATE.{name}", full)

    async def _make_consumer(self, channel: Channel) -> None:
        stream, name = self._stream(channel), _CONSUMER[channel]
        config = {
            "name": name,
            "durable_name": name,
            "ack_policy": "explicit",
            "ack_wait": int(self._leases[channel] * 1e9),
            "deliver_policy": "all",
            "replay_policy": "instant",
            "max_ack_pending": -1,
            "max_deliver": -1,
            "max_waiting": 10_000,
        }
        await self._server.call_api(
            f"CONSUMER.CREATE.{stream}.{name}", {"stream_name": stream, "config": config}
        )


def _ttl(seconds: float | None) -> dict[str, str]:
    return {} if seconds is None else {"Nats-TTL": str(max(1, round(seconds)))}


def _delivery(message: Msg) -> Delivery:
    identity = message.subject.rpartition(".")[2]
    # $JS.ACK.STREAM.CONSUMER.DELIVERED..., with DOMAIN.ACCOUNT before STREAM if the server has a domain.
    tokens = message.reply.split(".")
    return Delivery(identity, message.data, int(tokens[4 if len(tokens) == 9 else 6]), message.reply)
