"""One method of the handler as an ASGI application: builds its arguments, calls it, and sends its result.

An async method is called on the event loop. A synchronous method is called on a handler thread, or inline. With server-side
batching, the method is called for a batch of requests.

Inline means on the event loop's thread, without a switch to a handler thread. Three conditions apply:

- Allowed: the method may run inline at all (`may_run_inline`). This is fixed at start.
- Now: its recent calls were fast (`policy.inline`), and the event loop runs on the handler thread (`Threads.inline`).
- This request: it can be answered without ASGI (`accepts_inline`). Otherwise it uses ASGI, and the method may still run inline.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable
from dataclasses import dataclass
from functools import partial
from time import perf_counter
from typing import Any

from starlette.datastructures import Headers, QueryParams
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from cortex_runtime.errors import HttpError, RequestTimeout
from cortex_runtime.handler import debug
from cortex_runtime.handler.inline_policy import InlinePolicy, TimedCall
from cortex_runtime.handler.interfaces import REQUEST_ARGUMENTS, Method
from cortex_runtime.handler.payload_type import Undecided, validator_of
from cortex_runtime.handler.threads import HandlerExited, Threads
from cortex_runtime.handler.user_context import copy_context_variables
from cortex_runtime.http import response
from cortex_runtime.http.protocol import Answer
from cortex_runtime.http.request_body import parse, parse_json, read_body
from cortex_runtime.metrics.tracker import Tracker
from cortex_runtime.serving.admission import ROUTE
from cortex_runtime.serving.batching import Batcher

PLAIN = frozenset((dict, list, str, bytes, int, float, bool, type(None)))
"""Types of results that are encoded directly. For most requests, this lookup replaces three slower checks."""


@dataclass(frozen=True)
class Limits:
    """max_body: bytes of a request body. timeout: seconds for a request, including the time that it waits."""

    max_body: int
    timeout: float


class Endpoint:
    """A method of the handler.

    inline: whether the API allows inline calls; `Method.inline` must allow them too. path: the path template of the route, such
    as `/items/{id}`.
    """

    def __init__(
        self,
        method: Method,
        threads: Threads,
        limits: Limits,
        *,
        inline: bool = False,
        tracker: Tracker | None = None,
        batcher: Batcher | None = None,
        path: str = "/",
    ) -> None:
        self.function = method.function
        self.path = path
        self.is_route = path != "/"
        self._request_arguments = tuple(name for name in method.arguments if name in REQUEST_ARGUMENTS)
        self._path_parameters = tuple(name for name in method.arguments if name not in REQUEST_ARGUMENTS)
        self.takes_payload = method.takes_payload
        self._takes_payload_only = method.arguments == ("payload",)
        self._validator = None
        if method.takes_payload:
            self._validator = validator_of(method.payload_type, method.where, batcher is not None)
        self._parse_json = parse_json if self._validator is None else self._parse_typed
        self.is_async = method.is_async
        self.policy = InlinePolicy(inline and method.inline)
        self.batcher = batcher
        self._threads = threads
        self._limits = limits
        self._tracker = tracker

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Call the method with the request, and send its result. Raises what the method raises, and ClientDisconnected."""
        payload = await self._payload(scope, receive) if self.takes_payload else None
        arguments = self.arguments(payload, scope["query_string"], scope["headers"])
        for name in self._path_parameters:
            arguments[name] = scope["path_params"][name]
        debug.log_stage("sample", payload)
        await self.deliver(await self.call(arguments, receive), scope, receive, send)

    def arguments(self, payload: Any, query: bytes, headers: list[tuple[bytes, bytes]]) -> dict[str, Any]:
        """Return the arguments that the method takes."""
        arguments: dict[str, Any] = {}
        for name in self._request_arguments:
            if name == "payload":
                arguments[name] = payload
            else:
                arguments[name] = QueryParams(query) if name == "query_params" else Headers(raw=headers)
        return arguments

    async def deliver(self, result: Any, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the result of the method, then run the callback if it returned one."""
        value, callback = response.split_callback(result)
        debug.log_stage("prediction", value)
        if response.is_stream(value):
            await self._stream(value, scope, receive, send)
        elif isinstance(value, Response):
            await value(scope, receive, send)
            if self._tracker is not None:
                self._tracker.note(value)
        else:
            content_type, body = self.encode(value)
            await response.send(send, 200, content_type, body)
        if callback is not None:
            await self._threads.run_after(callback, "its response had been sent")

    def encode(self, value: Any) -> tuple[bytes, bytes]:
        """Return content type and body of a plain value, and count it in the tracker. Raises NotSerializable."""
        encoded = response.encode(value)
        if self._tracker is not None:
            self._tracker.note(value)
        return encoded

    @property
    def may_run_inline(self) -> bool:
        """Whether the method may run inline while its calls are fast."""
        return self.policy.allowed and not self.is_async and self.batcher is None

    def accepts_inline(self, fields: dict[bytes, bytes], body: bytes) -> bool:
        """Return whether this request can be answered without ASGI: the method takes no payload, or the body is plain JSON.

        fields: the headers of the request.
        """
        return not self.takes_payload or (
            fields.get(b"content-type") == b"application/json"
            and b"content-encoding" not in fields
            and len(body) <= self._limits.max_body
        )

    def read_inline(
        self, query: bytes, headers: list[tuple[bytes, bytes]], fields: dict[bytes, bytes], body: bytes
    ) -> dict[str, Any]:
        """Return the arguments for a request that is answered inline. Raises UserError, and Undecided for `deliver_inline`."""
        if self._takes_payload_only:
            return {"payload": self._parse_json(body)}
        return self.arguments(self._parse_json(body) if self.takes_payload else None, query, headers)

    def encode_inline(self, result: Any) -> Answer | None:
        """Return content type, header lines (none) and body for a plain result.

        Returns None for a stream, a Starlette response or a pair with a callback; `deliver_inline` sends these.
        """
        if type(result) in PLAIN or is_plain(result):
            content_type, body = response.encode(result)
            if self._tracker is not None:
                self._tracker.note(result)
            return content_type, b"", body
        return None

    async def deliver_inline(self, result: Any, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the result of a call that ran inline. result: its return value, or the exception that it raised."""
        if isinstance(result, Undecided):
            # Before the call. The body is received again.
            await self(scope, receive, send)
            return
        if isinstance(result, Exception):
            raise result
        if isinstance(result, BaseException):
            raise HandlerExited(f"the handler raised {type(result).__name__}") from result
        await self.deliver(result, scope, receive, send)

    async def _payload(self, scope: Scope, receive: Receive) -> Any:
        headers = dict(scope["headers"])
        limits = self._limits
        body = await read_body(receive, headers, limits.max_body, limits.timeout)
        payload = await parse(body, headers.get(b"content-type", b""), limits.max_body)
        return payload if self._validator is None else await self._validator.validate(payload)

    def _parse_typed(self, body: bytes) -> Any:
        assert self._validator is not None
        return self._validator.quick(parse_json(body))

    async def call(self, arguments: dict[str, Any], receive: Receive | None) -> Any:
        """Call the method on the event loop, on a handler thread, inline or in a batch, and return its result.

        receive: None for a request whose task is cancelled when its client disconnects. Raises what the method raises,
        RequestTimeout, and ClientDisconnected if the client disconnects before the call starts.
        """
        timeout = self._limits.timeout
        if self.batcher is not None:
            return await self.batcher.run(arguments, receive, timeout)
        if self.is_async:
            timer = asyncio.timeout(timeout)
            try:
                async with timer:
                    return await self.function(**arguments)
            except TimeoutError:
                if timer.expired():
                    raise RequestTimeout(timeout) from None
                raise
        policy = self.policy
        if policy.inline and await self._threads.move_to_handler_thread(timeout):
            began = perf_counter()
            try:
                return self._threads.run_inline(partial(self.function, **arguments))
            finally:
                policy.record(perf_counter() - began)
        timed = TimedCall(self.function, arguments)
        try:
            if receive is None:
                return await self._threads.run_cancellable(timed, timeout)
            return await self._threads.run(timed, receive, timeout)
        finally:
            policy.record(timed.seconds)

    async def _stream(self, parts: Any, scope: Scope, receive: Receive, send: Send) -> None:
        if isinstance(parts, AsyncIterator):
            copy_context_variables()
        accepts = next((value for name, value in scope["headers"] if name == b"accept"), b"")
        as_events = b"text/event-stream" in accepts.lower()
        stream = response.Stream(parts, self._threads.run_plain, self._limits.timeout, as_events)
        await stream.send(receive, send, only_head=scope["method"] == "HEAD")


def is_plain(result: Any) -> bool:
    """Return whether a result is neither a stream, nor a Starlette response, nor a pair with a callback."""
    return not (type(result) is tuple or isinstance(result, Response) or response.is_stream(result))


def is_browser(scope: Scope) -> bool:
    """Return whether a browser opens the URL of a request."""
    return scope["method"] in ("GET", "HEAD") and any(
        name == b"accept" and b"text/html" in value for name, value in scope["headers"]
    )


class Resource:
    """The methods of one path, as an ASGI application. endpoints: by HTTP verb. entry: answers a browser if GET has no method."""

    def __init__(self, endpoints: dict[str, Endpoint], path: str = "/") -> None:
        self.endpoints = endpoints
        self.entry: ASGIApp | None = None
        self._path = path
        self._allow = ", ".join((*endpoints, "HEAD") if "GET" in endpoints else endpoints)
        self._display_name = "this API" if path == "/" else path

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Call the method for the HTTP verb. Raises HttpError with status 405 if the path does not handle the verb."""
        if self._path != "/":
            scope[ROUTE] = self._path
        endpoint = self.endpoints.get(scope["method"])
        if endpoint is None and scope["method"] == "HEAD":
            # The server sends the headers of the response without its body.
            endpoint = self.endpoints.get("GET")
        if endpoint is None:
            if self.entry is not None and is_browser(scope):
                return self.entry(scope, receive, send)
            message = f"{scope['method']} is not allowed; {self._display_name} handles {self._allow}"
            raise HttpError(405, message, [(b"allow", self._allow.encode())])
        return endpoint(scope, receive, send)
