"""A connection to a NATS server with JetStream. Translates its errors to those of a backend."""

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Awaitable, Callable
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
"""Seconds between two pings; the connection is lost after three pings without a response."""
_MAX_LATENESS = 3.0
"""Seconds that a response may be late, from when this process first could read it."""
_WRONG_SEQUENCE = (10071, 10164)
_FULL = (10002, 10023, 10028, 10047, 10077)
"""Error codes of the server: resource limits of the account, server or stream exceeded."""
_IN_USE = 10058
_OLDEST_SERVER = (2, 11)


class InUse(Exception):
    """A stream of this name exists with another configuration."""


class JetStream:
    """A connection that reconnects automatically. Each method raises Unreachable while it is lost.

    name: the name of the client at the server. credentials: path of a file.
    """

    def __init__(self, servers: list[str], name: str, credentials: str | None) -> None:
        self._servers = servers
        self._name = name
        self._credentials = credentials
        self._client: nats.aio.client.Client | None = None
        self._requests: _Requests

    async def open(self) -> None:
        """Connect if not connected."""
        if self._client is None:
            client = await self._connect()
            with translated:
                self._requests = await _Requests.over(client)
            self._client = client

    async def close(self) -> None:
        """Flush and close the connection."""
        client, self._client = self._client, None
        if client is not None:
            with contextlib.suppress(nats.errors.Error, TimeoutError, OSError):
                await client.flush(2)
            await client.close()

    async def call_api(self, subject: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """Send a request to the JetStream API. Raises Missing and InUse."""
        data = b"" if body is None else orjson.dumps(body)
        return _checked(await self._request(f"$JS.API.{subject}", data))

    async def store(self, subject: str, data: bytes, headers: dict[str, str]) -> int:
        """Publish to the stream of a subject and wait until the message is stored. Return its sequence.

        Raises Conflict and Full.
        """
        sequence: int = _checked(await self._request(subject, data, headers))["seq"]
        return sequence

    async def last(self, stream: str, subject: str) -> Msg | None:
        """Return the last message of a subject, or None. Reads from any replica of the stream."""
        return _direct(await self._request(f"$JS.API.DIRECT.GET.{stream}.{subject}", b""))

    async def next(self, stream: str, subject: str, sequence: int) -> Msg | None:
        """Return the first message from a sequence on whose subject matches a pattern, or None. Reads from any replica."""
        body = orjson.dumps({"seq": sequence, "next_by_subj": subject})
        return _direct(await self._request(f"$JS.API.DIRECT.GET.{stream}", body))

    async def publish(self, subject: str, data: bytes) -> None:
        """Publish without waiting for a response."""
        with translated:
            await self._connected().publish(subject, data)

    async def flush(self) -> None:
        """Wait until the server has received everything that was sent."""
        with translated:
            await self._connected().flush()

    async def listen(
        self, subject: str, callback: Callable[[Msg], Awaitable[None]] | None = None
    ) -> Subscription:
        """Subscribe. callback: called for each message; without it, messages wait in the subscription."""
        with translated:
            return await self._connected().subscribe(subject, cb=callback)

    async def inbox(self, source: str) -> "Inbox":
        """Return an inbox for the messages of a consumer. source: the subject that they are requested from."""
        with translated:
            client = self._connected()
            inbox = Inbox(client, source)
            await client.subscribe(f"{inbox.address}.*", cb=inbox.receive)
            return inbox

    async def _request(self, subject: str, data: bytes, headers: dict[str, str] | None = None) -> Msg:
        with translated:
            self._connected()
            return await self._requests.send(subject, data, headers or None)

    def _connected(self) -> nats.aio.client.Client:
        if self._client is None or not self._client.is_connected:
            raise Unreachable("NATS: not connected to the server")
        return self._client

    async def _connect(self) -> nats.aio.client.Client:
        client = nats.aio.client.Client()
        options: dict[str, Any] = {"reconnect_time_wait": 0.25}
        if self._credentials:
            options["user_credentials"] = self._credentials
        try:
            with translated:
                async with asyncio.timeout(_TIMEOUT):
                    await client.connect(
                        self._servers,
                        name=self._name,
                        connect_timeout=2,
                        max_reconnect_attempts=-1,
                        ping_interval=_PING_SECONDS,
                        error_cb=_on_error,
                        disconnected_cb=self._on_disconnect,
                        reconnected_cb=_on_reconnect,
                        **options,
                    )
        except BaseException:
            await client.close()
            raise
        version = client.connected_server_version
        if (version.major, version.minor) < _OLDEST_SERVER:
            await client.close()
            raise Unreachable(
                f"the NATS server must be version 2.11 or newer; got {version.major}.{version.minor}"
            )
        return client

    async def _on_disconnect(self) -> None:
        if self._client is not None:
            log.warning("lost the connection to NATS; reconnecting")
            self._requests.fail()


class _Requests:
    """Sends requests over a connection and receives their responses. Costs half of what `Client.request` does."""

    def __init__(self, client: nats.aio.client.Client) -> None:
        self._client = client
        self._prefix = f"{client.new_inbox()}."
        self._count = 0
        self._waiting: dict[str, asyncio.Future[Msg]] = {}

    @classmethod
    async def over(cls, client: nats.aio.client.Client) -> "_Requests":
        """Return the requests of a connection. The subscription for their responses survives a reconnect."""
        requests = cls(client)
        await client.subscribe(f"{requests._prefix}*", cb=requests._receive)
        return requests

    async def send(self, subject: str, data: bytes, headers: dict[str, str] | None) -> Msg:
        """Send a request and return its response. Raises TimeoutError, Unreachable and errors of the client."""
        self._count += 1
        reply = f"{self._prefix}{self._count}"
        loop = asyncio.get_running_loop()
        response: asyncio.Future[Msg] = loop.create_future()
        self._waiting[reply] = response
        timer = loop.call_later(_TIMEOUT, _fail, response, nats.errors.TimeoutError)
        try:
            await self._client.publish(subject, data, reply, headers)
            message = await response
        finally:
            timer.cancel()
            self._waiting.pop(reply, None)
        if message.headers and message.headers.get("Status") == "503":
            raise nats.errors.NoRespondersError
        return message

    def fail(self) -> None:
        """Fail all requests: their responses will not arrive."""
        for response in self._waiting.values():
            _fail(response, nats.errors.ConnectionClosedError)

    async def _receive(self, message: Msg) -> None:
        response = self._waiting.get(message.subject)
        if response is not None and not response.done():
            response.set_result(message)


def _fail(response: "asyncio.Future[Msg]", error: type[Exception]) -> None:
    if not response.done():
        response.set_exception(error())


class Inbox:
    """Receives the requested messages of one consumer."""

    def __init__(self, client: nats.aio.client.Client, source: str) -> None:
        self.address = client.new_inbox()
        self._client = client
        self._source = source
        self._requests = 0
        self._is_busy = False
        self._received: deque[Msg] = deque()
        self._arrival: asyncio.Future[None] | None = None

    async def receive(self, message: Msg) -> None:
        """Add a message, or a status of the server."""
        self._received.append(message)
        if self._arrival is not None and not self._arrival.done():
            self._arrival.set_result(None)

    async def take(self, limit: int, seconds: float) -> list[Msg]:
        """Return the waiting messages, or wait for the first one.

        At most one message is requested in advance, so no message waits here while another worker is free.
        """
        messages: list[Msg] = []
        if not self._client.is_connected:
            raise Unreachable("NATS: not connected to the server")
        with translated:
            if self._is_busy and limit > 1:
                await self._request(messages, limit, None)
            if not messages:
                await self._request(messages, 1, seconds)
        self._is_busy = bool(messages)
        return messages

    async def _request(self, messages: list[Msg], limit: int, seconds: float | None) -> None:
        """Request messages. seconds: how long the server waits for a message; None: not at all."""
        self._requests += 1
        reconnects = self._client.stats["reconnects"]
        reply = f"{self.address}.{self._requests}"
        wait = {"no_wait": True} if seconds is None else {"expires": int(seconds * 1e9)}
        body = orjson.dumps({"batch": limit - len(messages), **wait})
        await self._client.publish(self._source, body, reply=reply)
        # Two timers: the first also ends while this process is paused, when the response may have arrived and is not read yet.
        for patience in (seconds or _TIMEOUT, _MAX_LATENESS):
            try:
                async with asyncio.timeout(patience):
                    while len(messages) < limit and (message := await self._next(reply)) is not None:
                        messages.append(message)
                return
            except TimeoutError:
                if messages:
                    return
        # Otherwise the request was lost with its connection.
        if self._client.stats["reconnects"] == reconnects:
            raise Unreachable(f"NATS: the server at {self._server()} does not respond")

    async def _next(self, reply: str) -> Msg | None:
        """Return the next message; None once the request with this reply has ended."""
        while True:
            while not self._received:
                self._arrival = asyncio.get_running_loop().create_future()
                await self._arrival
            message = self._received.popleft()
            status = (message.headers or {}).get("Status")
            if status is None:
                return message
            if status == "503":
                raise Unreachable("NATS: the stream does not exist")
            if message.subject == reply:
                # No message, or the time is over. Responses to earlier requests may still arrive.
                return None

    def _server(self) -> str:
        url = self._client.connected_url
        return url.netloc.rpartition("@")[2] if url is not None else "an unknown address"


def _direct(answer: Msg) -> Msg | None:
    """Return the message that was read, or None if it does not exist."""
    headers = answer.headers or {}
    status = headers.get("Status")
    if status is None:
        return answer
    if status == "404":
        return None
    raise Unreachable(f"NATS: {status} {headers.get('Description', '')}")


def _checked(message: Msg) -> dict[str, Any]:
    """Return the response of the server. Raises Conflict, Full, Missing or Unreachable for its errors."""
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


class _Translated(contextlib.AbstractContextManager[None]):
    """Translates errors of the client to those of a backend."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if error is None:
            return
        if isinstance(error, nats.errors.NoRespondersError):
            raise Unreachable("NATS: JetStream does not respond, or the stream does not exist") from error
        if isinstance(error, nats.errors.MaxPayloadError):
            raise Full("NATS: max_payload of the server must be at least 1MB") from error
        if isinstance(error, nats.errors.TimeoutError):
            raise Unreachable(f"NATS: the server did not respond within {_TIMEOUT:g} s") from error
        if isinstance(error, nats.errors.Error | TimeoutError | OSError):
            what = str(error) or type(error).__name__
            raise Unreachable(what if what.startswith("nats: ") else f"NATS: {what}") from error


translated = _Translated()


async def _on_error(error: Exception) -> None:
    log.debug("NATS: %s", error)


async def _on_reconnect() -> None:
    log.info("reconnected to NATS")
