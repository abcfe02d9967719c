"""A connection to a NATS server with JetStream: what the queue on NATS asks of it, and its errors as those of a backend."""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import nats.aio.client
import nats.errors
import orjson
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from cortex_runtime.queues.base import Conflict, Full, Missing, Unreachable

log = logging.getLogger("cortex")

_TIMEOUT = 5.0
_PING_SECONDS = 3
"""Seconds between two pings; the connection counts as lost when three in a row are not answered."""
_LATE = 1.0
"""Seconds that an answer which is due may be late."""
_WRONG_SEQUENCE = (10071, 10164)
_FULL = (10002, 10023, 10028, 10047, 10077)
"""Error codes of the server: resources of the account or server exceeded, and a stream that can't store."""
_IN_USE = 10058
_OLDEST_SERVER = (2, 11)


class InUse(Exception):
    """A stream of that name has another configuration."""


class JetStream:
    """The connection; lost, it comes back by itself. Each method raises Unreachable while there is none.

    name: what the server calls it. credentials: a file.
    """

    def __init__(self, servers: list[str], name: str, credentials: str | None) -> None:
        self._servers = servers
        self._name = name
        self._credentials = credentials
        self._client: nats.aio.client.Client | None = None

    async def open(self) -> None:
        """Connect, unless there is a connection."""
        if self._client is None:
            self._client = await self._connect()

    async def close(self) -> None:
        """Let go of the connection, once what was sent has arrived."""
        client, self._client = self._client, None
        if client is not None:
            with contextlib.suppress(nats.errors.Error, TimeoutError, OSError):
                await client.flush(2)
            await client.close()

    async def ask(self, subject: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """A request to the server's API. Raises Missing for what isn't there, and InUse."""
        data = b"" if body is None else orjson.dumps(body)
        return _checked(await self._request(f"$JS.API.{subject}", data))

    async def store(self, subject: str, data: bytes, headers: dict[str, str]) -> int:
        """Publish into the stream that has the subject, and wait until it is stored. Gives its sequence.

        Raises Conflict and Full.
        """
        sequence: int = _checked(await self._request(subject, data, headers))["seq"]
        return sequence

    async def last(self, stream: str, subject: str) -> Msg | None:
        """The last message of a subject, from any copy of the stream."""
        answer = await self._request(f"$JS.API.DIRECT.GET.{stream}.{subject}", b"")
        status = (answer.headers or {}).get("Status")
        if status is None:
            return answer
        if status == "404":
            return None
        raise Unreachable(f"NATS: {status} {(answer.headers or {}).get('Description', '')}")

    async def publish(self, subject: str, data: bytes) -> None:
        """Send what nobody answers."""
        with translated():
            await self._connected().publish(subject, data)

    async def flush(self) -> None:
        """Return once what was sent has arrived."""
        with translated():
            await self._connected().flush()

    async def listen(
        self, subject: str, heard: Callable[[Msg], Awaitable[None]] | None = None
    ) -> Subscription:
        """Subscribe. heard: called for each message, which else waits in the subscription."""
        with translated():
            return await self._connected().subscribe(subject, cb=heard)

    async def inbox(self, source: str) -> "Inbox":
        """For messages of a consumer. source: where they are asked for."""
        with translated():
            client = self._connected()
            address = client.new_inbox()
            return Inbox(client, source, address, await client.subscribe(f"{address}.*"))

    async def _request(self, subject: str, data: bytes, headers: dict[str, str] | None = None) -> Msg:
        with translated():
            return await self._connected().request(subject, data, timeout=_TIMEOUT, headers=headers or None)

    def _connected(self) -> nats.aio.client.Client:
        if self._client is None or not self._client.is_connected:
            raise Unreachable("NATS: there is no connection to the server")
        return self._client

    async def _connect(self) -> nats.aio.client.Client:
        client = nats.aio.client.Client()
        options: dict[str, Any] = {"reconnect_time_wait": 0.25}
        if self._credentials:
            options["user_credentials"] = self._credentials
        try:
            with translated():
                async with asyncio.timeout(_TIMEOUT):
                    await client.connect(
                        self._servers,
                        name=self._name,
                        connect_timeout=2,
                        max_reconnect_attempts=-1,
                        ping_interval=_PING_SECONDS,
                        error_cb=_note_error,
                        disconnected_cb=self._note_loss,
                        reconnected_cb=_note_return,
                        **options,
                    )
        except BaseException:
            await client.close()
            raise
        version = client.connected_server_version
        if (version.major, version.minor) < _OLDEST_SERVER:
            await client.close()
            raise Unreachable(
                f"the NATS server is {version.major}.{version.minor}, and must be 2.11 or newer"
            )
        return client

    async def _note_loss(self) -> None:
        if self._client is not None:
            log.warning("the connection to NATS is lost; it is tried again")


class Inbox:
    """Where the messages of one consumer arrive that were asked for."""

    def __init__(
        self, client: nats.aio.client.Client, source: str, address: str, subscription: Subscription
    ) -> None:
        self._client = client
        self._source = source
        self._address = address
        self._subscription = subscription
        self._asked = 0
        self._busy = False

    async def take(self, limit: int, seconds: float) -> list[Msg]:
        """Up to so many messages: all that wait, or the first that comes.

        Only one is ever asked for in advance, so none is held here while somebody else could have it.
        """
        messages: list[Msg] = []
        if not self._client.is_connected:
            raise Unreachable("NATS: there is no connection to the server")
        with translated():
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
        reconnects = self._client.stats["reconnects"]
        reply = f"{self._address}.{self._asked}"
        wait = {"no_wait": True} if seconds is None else {"expires": int(seconds * 1e9)}
        body = orjson.dumps({"batch": limit - len(messages), **wait})
        await self._client.publish(self._source, body, reply=reply)
        while len(messages) < limit:
            try:
                message = await self._subscription.next_msg(
                    (seconds or 0.0) + (_LATE if seconds else _TIMEOUT)
                )
            except nats.errors.TimeoutError:
                if self._client.stats["reconnects"] == reconnects:
                    raise Unreachable(f"NATS: the server at {self._server()} does not answer") from None
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

    def _server(self) -> str:
        url = self._client.connected_url
        return url.netloc.rpartition("@")[2] if url is not None else "its address"


def _checked(message: Msg) -> dict[str, Any]:
    """The answer of the server. Raises Conflict, Full, Missing and Unreachable for its errors."""
    answer: dict[str, Any] = orjson.loads(message.data)
    error = answer.get("error")
    if error is None:
        return answer
    code, text = error.get("err_code"), f"NATS: {error.get('description', 'error')} ({error.get('err_code')})"
    if code in _WRONG_SEQUENCE:
        raise Conflict(text)
    if code in _FULL:
        raise Full(text)
    if code == _IN_USE:
        raise InUse(text)
    if error.get("code") == 404:
        raise Missing(text)
    raise Unreachable(text)


@contextlib.contextmanager
def translated() -> Iterator[None]:
    """Errors of the client as those of a backend."""
    try:
        yield
    except nats.errors.NoRespondersError as error:
        raise Unreachable("NATS: JetStream does not answer, or the stream is not there") from error
    except nats.errors.MaxPayloadError as error:
        raise Full("NATS: the server's max_payload is too small; 1MB or more is needed") from error
    except nats.errors.TimeoutError as error:
        raise Unreachable(f"NATS: the server did not answer within {_TIMEOUT:g} s") from error
    except (nats.errors.Error, TimeoutError, OSError) as error:
        what = str(error) or type(error).__name__
        raise Unreachable(what if what.startswith("nats: ") else f"NATS: {what}") from error


async def _note_error(error: Exception) -> None:
    log.debug("NATS: %s", error)


async def _note_return() -> None:
    log.info("the connection to NATS is there again")
