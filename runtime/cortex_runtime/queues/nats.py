"""A queue on NATS JetStream, 2.11 or newer: four streams for each API.

Jobs and hooks are work-queue streams with a subject for each job. Records are a key-value bucket (`nats kv get
cortex-NAMESPACE-NAME ID`) whose entries leave by themselves once their job is forgotten, and whose committed changes are
published again for those who wait. Payloads and results that are too large for a message are kept in parts.
"""

import asyncio
import base64
import contextlib
import hashlib
import logging
from collections.abc import AsyncIterator, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

import nats.aio.client
import nats.errors
import orjson
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from cortex_runtime.queues.base import (
    Changed,
    Channel,
    Conflict,
    Delivery,
    Depth,
    Entry,
    Full,
    Missing,
    Unreachable,
)

log = logging.getLogger("cortex")

_TIMEOUT = 5.0
_PART = 512 * 1024
_PARTS_AT_ONCE = 8
_DUPLICATES = 60.0
_WRONG_SEQUENCE = (10071, 10164)
_FULL = (10002, 10023, 10028, 10047, 10077)
"""Error codes of the server: resources of the account or server exceeded, and a stream that can't store."""
_IN_USE = 10058
_CONSUMER = {"jobs": "workers", "hooks": "gateways"}
_OLDEST_SERVER = (2, 11)


class NatsBackend:
    """See base.Backend.

    leases: of the messages of each channel, in seconds. replicas: copies that a cluster keeps. credentials: a file.
    """

    inline = 256 * 1024

    def __init__(
        self,
        servers: list[str],
        name: str,
        leases: Mapping[Channel, float],
        replicas: int = 1,
        credentials: str | None = None,
    ) -> None:
        self._servers = servers
        self._name = name
        self._leases = leases
        self._replicas = replicas
        self._credentials = credentials
        self._nc: nats.aio.client.Client | None = None
        self._inboxes: dict[Channel, _Inbox] = {}
        self._opening = asyncio.Lock()

    async def open(self) -> None:
        """Connect and create what isn't there; the same again changes nothing."""
        async with self._opening:
            if self._nc is None:
                self._nc = await self._connect()
            with _translated():
                for suffix, config in self._streams().items():
                    await self._make_stream(suffix, config)
                for channel in self._leases:
                    await self._make_consumer(channel)

    async def close(self) -> None:
        """Let go of the connection, once what was sent has arrived."""
        connection, self._nc = self._nc, None
        self._inboxes.clear()
        if connection is not None:
            with contextlib.suppress(nats.errors.Error, TimeoutError, OSError):
                await connection.flush(2)
            await connection.close()

    async def destroy(self) -> None:
        """Remove the queue with all that is in it."""
        for suffix in self._streams():
            with contextlib.suppress(Missing):
                await self._ask(f"STREAM.DELETE.{self._stream(suffix)}")

    async def read(self, id: str, *, fresh: bool = False) -> Entry | None:
        """A job's record; from the stream's leader when it has to be fresh, else from any copy."""
        subject = self._record(id)
        if fresh and self._replicas > 1:
            try:
                answer = await self._ask(
                    f"STREAM.MSG.GET.{self._stream('records')}", {"last_by_subj": subject}
                )
            except Missing:
                return None
            message = answer["message"]
            return Entry(base64.b64decode(message.get("data", "")), message["seq"])
        found = await self._direct("records", subject)
        return None if found is None else Entry(found.data, int((found.headers or {})["Nats-Sequence"]))

    async def write(self, id: str, data: bytes, revision: Any, ttl: float | None) -> Any:
        """Create a record (revision None) or replace the one of this revision; gives the new revision."""
        headers = {"Nats-Expected-Last-Subject-Sequence": str(revision or 0), **_ttl(ttl)}
        return await self._store(self._record(id), data, headers)

    @contextlib.asynccontextmanager
    async def watch(self, id: str) -> AsyncIterator[Changed]:
        """Wakes when a change of the record has been committed."""
        with _translated():
            subscription = await self._connection().subscribe(f"{self._changes}.{id}")

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
        """Store the parts, and then the head, without which there is nothing."""
        try:
            await self._put(name, data, ttl)
        except Full:
            # What was stored of it takes the room that others need.
            with contextlib.suppress(Unreachable):
                await self.remove(name)
            raise

    async def _put(self, name: str, data: bytes, ttl: float | None) -> None:
        parts = [data[start : start + _PART] for start in range(0, len(data), _PART)]
        headers = _ttl(ttl)
        subject = self._object(name)
        for first in range(0, len(parts), _PARTS_AT_ONCE):
            numbered = enumerate(parts[first : first + _PARTS_AT_ONCE], first)
            await asyncio.gather(*(self._store(f"{subject}.{n}", part, headers) for n, part in numbered))
        head = {"parts": len(parts), "size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        await self._store(f"{subject}.head", orjson.dumps(head), headers)

    async def get(self, name: str) -> bytes:
        """A payload or result, whole. Raises Missing."""
        subject = self._object(name)
        found = await self._direct("objects", f"{subject}.head")
        if found is None:
            raise Missing(f"{name} is not in the store")
        head = orjson.loads(found.data)
        data = bytearray()
        for first in range(0, head["parts"], _PARTS_AT_ONCE):
            last = min(first + _PARTS_AT_ONCE, head["parts"])
            parts = await asyncio.gather(
                *(self._direct("objects", f"{subject}.{n}") for n in range(first, last))
            )
            for part in parts:
                if part is None:
                    raise Missing(f"a part of {name} is not in the store")
                data += part.data
        if hashlib.sha256(data).hexdigest() != head["sha256"]:
            raise Missing(f"{name} is damaged in the store")
        return bytes(data)

    async def remove(self, name: str) -> None:
        """Remove a payload; one that is not there is fine."""
        await self._ask(f"STREAM.PURGE.{self._stream('objects')}", {"filter": f"{self._object(name)}.>"})

    async def payloads(self) -> AsyncIterator[str]:
        """Names of the payloads in the store, unfinished ones too."""
        subject = self._object("payload")
        seen, offset = set(), 0
        while True:
            answer = await self._ask(
                f"STREAM.INFO.{self._stream('objects')}",
                {"subjects_filter": f"{subject}.>", "offset": offset},
            )
            subjects = answer["state"].get("subjects") or {}
            for found in subjects:
                name = "/".join(("payload", *found[len(subject) + 1 :].split(".")[:-1]))
                if name not in seen:
                    seen.add(name)
                    yield name
            offset += len(subjects)
            if not subjects or offset >= answer.get("total", 0):
                return

    async def publish(self, channel: Channel, id: str, data: bytes) -> None:
        """Store a message; one whose answer was lost is not stored twice."""
        digest = hashlib.sha256(data).hexdigest()[:16]
        await self._store(self._message(channel, id), data, {"Nats-Msg-Id": f"{id}-{digest}"})

    async def holds(self, id: str) -> bool | None:
        """Whether a job's message is in the queue."""
        return await self._direct("jobs", self._message("jobs", id)) is not None

    async def withdraw(self, id: str) -> None:
        """Take a job's message out of the queue."""
        await self._ask(f"STREAM.PURGE.{self._stream('jobs')}", {"filter": self._message("jobs", id)})

    async def take(self, channel: Channel, limit: int, seconds: float) -> list[Delivery]:
        """Up to so many messages, as soon as there is one; none after so many seconds."""
        with _translated():
            connection = self._connection()
            inbox = self._inboxes.get(channel)
            if inbox is None:
                inbox = self._inboxes[channel] = _Inbox(
                    connection, f"$JS.API.CONSUMER.MSG.NEXT.{self._stream(channel)}.{_CONSUMER[channel]}"
                )
                await inbox.open()
            return [self._delivery(message) for message in await inbox.take(limit, seconds)]

    async def renew(self, delivery: Delivery) -> None:
        """Begin the lease of a message again."""
        await self._acknowledge(delivery, b"+WPI")

    async def release(self, delivery: Delivery, delay: float) -> None:
        """Give a message back, to be delivered again after so many seconds."""
        later = b' {"delay": %d}' % int(delay * 1e9) if delay > 0 else b""
        await self._acknowledge(delivery, b"-NAK" + later)

    async def settle(self, delivery: Delivery) -> None:
        """The message is done with."""
        await self._acknowledge(delivery, b"+ACK")

    async def depth(self, channel: Channel) -> Depth:
        """How much a channel holds."""
        stream = self._stream(channel)
        consumer = await self._ask(f"CONSUMER.INFO.{stream}.{_CONSUMER[channel]}")
        state = (await self._ask(f"STREAM.INFO.{stream}"))["state"]
        oldest = None
        if state["messages"]:
            first = datetime.fromisoformat(state["first_ts"][:19]).replace(tzinfo=UTC)
            oldest = max(0.0, (datetime.now(UTC) - first).total_seconds())
        return Depth(consumer["num_pending"], consumer["num_ack_pending"], oldest)

    async def expire(self, keep: float) -> None:
        """Nothing: what has a time to live goes by itself."""

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

    # The server

    async def _connect(self) -> nats.aio.client.Client:
        connection = nats.aio.client.Client()
        options: dict[str, Any] = {"reconnect_time_wait": 0.25}
        if self._credentials:
            options["user_credentials"] = self._credentials
        try:
            with _translated():
                async with asyncio.timeout(_TIMEOUT):
                    await connection.connect(
                        self._servers,
                        name=self._name,
                        connect_timeout=2,
                        max_reconnect_attempts=-1,
                        ping_interval=10,
                        error_cb=_note_error,
                        disconnected_cb=self._note_loss,
                        reconnected_cb=_note_return,
                        **options,
                    )
        except BaseException:
            await connection.close()
            raise
        version = connection.connected_server_version
        if (version.major, version.minor) < _OLDEST_SERVER:
            await connection.close()
            raise Unreachable(
                f"the NATS server is {version.major}.{version.minor}, and must be 2.11 or newer"
            )
        return connection

    def _connection(self) -> nats.aio.client.Client:
        if self._nc is None or not self._nc.is_connected:
            raise Unreachable("NATS: there is no connection to the server")
        return self._nc

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
            await self._ask(f"STREAM.CREATE.{name}", full)
        except _InUse:
            # Made by another version, or for another number of replicas.
            await self._ask(f"STREAM.UPDATE.{name}", full)

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
        await self._ask(f"CONSUMER.CREATE.{stream}.{name}", {"stream_name": stream, "config": config})

    async def _ask(self, subject: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """A request to the server's API. Raises Missing for what isn't there."""
        with _translated():
            data = b"" if body is None else orjson.dumps(body)
            answer = await self._connection().request(f"$JS.API.{subject}", data, timeout=_TIMEOUT)
        return _checked(answer.data)

    async def _store(self, subject: str, data: bytes, headers: dict[str, str]) -> int:
        """Publish into the stream that has the subject, and wait until it is stored. Gives its sequence."""
        with _translated():
            answer = await self._connection().request(
                subject, data, timeout=_TIMEOUT, headers=dict(headers) or None
            )
        sequence: int = _checked(answer.data)["seq"]
        return sequence

    async def _direct(self, suffix: str, subject: str) -> Msg | None:
        """The last message of a subject."""
        with _translated():
            answer = await self._connection().request(
                f"$JS.API.DIRECT.GET.{self._stream(suffix)}.{subject}", b"", timeout=_TIMEOUT
            )
        status = (answer.headers or {}).get("Status")
        if status is None:
            return answer
        if status == "404":
            return None
        raise Unreachable(f"NATS: {status} {(answer.headers or {}).get('Description', '')}")

    async def _acknowledge(self, delivery: Delivery, how: bytes) -> None:
        with _translated():
            await self._connection().publish(delivery.handle, how)

    async def _note_loss(self) -> None:
        if self._nc is not None:
            log.warning("the connection to NATS is lost; it is tried again")

    def _delivery(self, message: Msg) -> Delivery:
        return Delivery(
            message.subject.rpartition(".")[2],
            message.data,
            message.metadata.num_delivered,
            message.reply,
        )


class _Inbox:
    """Where the messages of one channel arrive that were asked for."""

    def __init__(self, connection: nats.aio.client.Client, source: str) -> None:
        self._connection = connection
        self._source = source
        self._address = connection.new_inbox()
        self._subscription: Subscription | None = None
        self._asked = 0
        self._busy = False

    async def open(self) -> None:
        """Listen."""
        self._subscription = await self._connection.subscribe(f"{self._address}.*")

    async def take(self, limit: int, seconds: float) -> list[Msg]:
        """Up to so many messages: all that wait, or the first that comes.

        Only one is ever asked for in advance, so none is held here while somebody else could have it.
        """
        messages: list[Msg] = []
        if self._busy and limit > 1:
            await self._receive(messages, limit, None)
        if not messages:
            await self._receive(messages, 1, seconds)
            if messages and limit > 1:
                await self._receive(messages, limit, None)
        self._busy = bool(messages)
        return messages

    async def _receive(self, messages: list[Msg], limit: int, seconds: float | None) -> None:
        """seconds: how long the server may wait for a message; None: not at all."""
        self._asked += 1
        reply = f"{self._address}.{self._asked}"
        wait = {"no_wait": True} if seconds is None else {"expires": int(seconds * 1e9)}
        body = orjson.dumps({"batch": limit - len(messages), **wait})
        await self._connection.publish(self._source, body, reply=reply)
        assert self._subscription is not None
        while len(messages) < limit:
            try:
                message = await self._subscription.next_msg((seconds or 0.0) + (1.0 if seconds else _TIMEOUT))
            except nats.errors.TimeoutError:
                # The request was lost with its connection.
                return
            status = (message.headers or {}).get("Status")
            if status is None:
                messages.append(message)
            elif status == "503":
                raise Unreachable("NATS: the stream is not there")
            elif message.subject == reply:
                # No message, or the time is over. Answers to earlier requests may still come.
                return


class _InUse(Exception):
    """A stream of that name has another configuration."""


def _ttl(seconds: float | None) -> dict[str, str]:
    return {} if seconds is None else {"Nats-TTL": str(max(1, round(seconds)))}


def _checked(data: bytes) -> dict[str, Any]:
    """The answer of the server. Raises Conflict, Full, Missing and Unreachable for its errors."""
    answer: dict[str, Any] = orjson.loads(data)
    error = answer.get("error")
    if error is None:
        return answer
    code, text = error.get("err_code"), f"NATS: {error.get('description', 'error')} ({error.get('err_code')})"
    if code in _WRONG_SEQUENCE:
        raise Conflict(text)
    if code in _FULL:
        raise Full(text)
    if code == _IN_USE:
        raise _InUse(text)
    if error.get("code") == 404:
        raise Missing(text)
    raise Unreachable(text)


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except nats.errors.NoRespondersError as error:
        raise Unreachable("NATS: JetStream does not answer, or the stream is not there") from error
    except nats.errors.MaxPayloadError as error:
        raise Full("NATS: the server's max_payload is too small; 1MB or more is needed") from error
    except (nats.errors.Error, TimeoutError, OSError) as error:
        what = str(error) or type(error).__name__
        raise Unreachable(what if what.startswith("nats: ") else f"NATS: {what}") from error


async def _note_error(error: Exception) -> None:
    log.debug("NATS: %s", error)


async def _note_return() -> None:
    log.info("the connection to NATS is there again")
