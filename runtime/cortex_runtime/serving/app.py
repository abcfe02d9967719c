"""The ASGI application of a RealtimeAPI's worker process. This is the request path, so it is kept short.

POST, GET, PUT, PATCH and DELETE of "/" call the handler. GET /info describes the API and its models.
"""

import asyncio
import logging
import re
from collections.abc import AsyncIterator, Awaitable
from contextvars import Context, copy_context
from functools import partial
from time import perf_counter
from typing import Any

from starlette.datastructures import Headers, QueryParams
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from cortex_api.handler import ServerSideBatching
from cortex_runtime.clients import served
from cortex_runtime.errors import UserError
from cortex_runtime.handler import debug
from cortex_runtime.handler.inline_policy import InlinePolicy, TimedCall
from cortex_runtime.handler.interfaces import Method
from cortex_runtime.handler.loaded_handler import LoadedHandler
from cortex_runtime.handler.threads import HandlerExited, RequestTimeout, Threads
from cortex_runtime.handler.user_context import adopt, use_context
from cortex_runtime.http import api_keys, response
from cortex_runtime.http.payload import ClientDisconnected, Moved, decompress, parse, parse_json, read_body
from cortex_runtime.http.protocol import Answer
from cortex_runtime.logs.records import AccessLog, RequestIds, request_id
from cortex_runtime.metrics.shared_memory import WorkerMetrics
from cortex_runtime.serving.batching import batcher_of
from cortex_runtime.serving.version_header import header_of, with_versions

log = logging.getLogger("cortex")

_SANE_ID = re.compile(rb"[A-Za-z0-9._:/+=@-]{1,128}").fullmatch
_CLIENT_GONE = 499
_PLAIN = frozenset((dict, list, str, bytes, int, float, bool, type(None)))
"""Types of results that are encoded directly. For most requests, this lookup replaces three slower checks."""
RETRY_AFTER = b"1"
INFO = "/info"


class App:
    """One worker's application.

    max_body: in bytes. timeout: seconds that a request may take, waiting included. limit: requests running and waiting in the
    whole replica. batching: how POST is batched. keys: what clients have to show. Raises StartError when that can't be.
    """

    def __init__(
        self,
        program: LoadedHandler,
        threads: Threads,
        metrics: WorkerMetrics,
        *,
        max_body: int,
        timeout: float,
        limit: int,
        access: AccessLog,
        batching: ServerSideBatching | None = None,
        keys: api_keys.ApiKeys | None = None,
    ) -> None:
        self._methods = methods = program.methods
        quick = threads.size == 1 and not program.may_wait
        self._inline_policies = {
            verb: InlinePolicy(quick and method.inline) for verb, method in methods.items()
        }
        self._batchers = {}
        if batching is not None:
            self._batchers["POST"] = batcher_of(batching, methods.get("POST"), threads, metrics, timeout)
        self._inline = {
            verb.encode(): self._inline_policies[verb]
            for verb, method in methods.items()
            if not method.is_async and verb not in self._batchers
        }
        self._keys = keys
        self._route = self._answer
        if keys is not None:
            self._route = self._answer_known
            self._inline = {}
        self._metrics = metrics
        self._max_body = max_body
        self._timeout = timeout
        self._limit = limit
        self._info = program.info
        self._tracker = program.tracker
        self._has_models = program.client is not None
        self._debug: bool = program.document.spec.handler.debug
        self._access = access
        self._ids = RequestIds()
        self._allow = ", ".join(methods).encode()
        if threads.handler_thread is not None:
            self._run_inline = threads.handler_thread.detached.run
        self.draining = False
        self.threads = self._threads = threads
        self.all_async = all(method.is_async for method in methods.values())

    def close(self) -> None:
        """Write the pending lines of the access log."""
        self._access.flush()

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Answer, count and log one HTTP request. Every exception becomes a response."""
        return self.answer(
            scope, receive, send, perf_counter(), self._metrics.shared.in_flight() >= self._limit
        )

    async def answer(self, scope: Scope, receive: Receive, send: Send, began: float, full: bool) -> None:
        """Do the same. began: arrival of the request, by perf_counter. full: whether to refuse it with a 503."""
        if scope["type"] != "http":
            return
        headers: dict[bytes, bytes] = dict(scope["headers"])
        identity = self._identify(headers.get(b"x-request-id"))
        request_id.set(identity)
        if self._has_models:
            served.set([])
        if self._debug and QueryParams(scope["query_string"]).get("debug") == "true":
            debug.showing.set(True)
        self._metrics.start_request()
        status = _CLIENT_GONE
        over = self._over
        extra = [(b"x-request-id", identity.encode())]
        if self.draining:
            extra.append((b"connection", b"close"))
        try:
            if full:
                extra.append((b"retry-after", RETRY_AFTER))
                message = f"too many requests: {self._limit} are running or waiting in this replica"
                status = await response.send_error(send, 503, message, extra)
            else:
                status = await self._route(scope, receive, send, headers, extra)
        except Moved:
            over = self._moved
        except ClientDisconnected:
            pass
        finally:
            over(began, scope["method"], scope["path"], status, identity)

    def _moved(self, began: float, method: str, path: str, status: int, identity: str) -> None:
        """End a request that was moved. The worker that has it now counts and logs it."""
        self._metrics.finish_request()

    def runs_inline(self, verb: bytes) -> bool:
        """Return whether a request with this HTTP method may be answered inline."""
        policy = self._inline.get(verb)
        return policy is not None and policy.inline and self._threads.inline and not self.draining

    def answer_inline(
        self, verb: bytes, query: bytes, headers: list[tuple[bytes, bytes]], body: bytes
    ) -> Answer | ASGIApp | None:
        """Run a fast method inline, called by the protocol.

        Returns content type, header lines and body of a 200; or an application that answers with what came out otherwise; or
        None, with nothing run, for a request that has to go the long way.
        """
        began = perf_counter()
        method = verb.decode()
        found = self._methods[method]
        fields = dict(headers)
        if found.takes_payload and (
            fields.get(b"content-type") != b"application/json"
            or b"content-encoding" in fields
            or len(body) > self._max_body
        ):
            return None
        metrics = self._metrics
        if metrics.shared.in_flight() >= self._limit or (self._debug and b"debug" in query):
            return None
        identity = self._identify(fields.get(b"x-request-id"))
        token = request_id.set(identity)
        versions: list[tuple[str, int]] | None = None
        if self._has_models:
            versions = []
            served.set(versions)
        context = copy_context()
        metrics.start_request()
        try:
            arguments: dict[str, Any] = {}
            for name in found.arguments:
                if name == "payload":
                    arguments[name] = parse_json(body)
                else:
                    arguments[name] = QueryParams(query) if name == "query_params" else Headers(raw=headers)
            called = perf_counter()
            try:
                result = self._run_inline(asyncio.get_running_loop(), context, found.function, arguments)
            finally:
                self._inline[verb].record(perf_counter() - called)
            if type(result) not in _PLAIN and (
                type(result) is tuple or isinstance(result, Response) or response.is_stream(result)
            ):
                return self._finish(began, identity, result, versions, context)
            kind, content = response.encode(result)
        except BaseException as error:
            return self._finish(began, identity, error, versions, context)
        finally:
            request_id.reset(token)
        if self._tracker is not None:
            self._tracker.note(result)
        self._over(began, method, "/", 200, identity)
        more = b"x-request-id: %b\r\n" % identity.encode()
        if versions:
            more += b"x-model-version: %b\r\n" % header_of(versions)
        return kind, more, content

    def _finish(
        self,
        began: float,
        identity: str,
        result: Any,
        versions: list[tuple[str, int]] | None,
        context: Context,
    ) -> ASGIApp:
        """Return an ASGI application that sends the result, or the exception, of a method that has already run in `context`."""

        async def finish(scope: Scope, receive: Receive, send: Send) -> None:
            request_id.set(identity)
            served.set(versions)
            use_context(context)
            status = _CLIENT_GONE
            extra = [(b"x-request-id", identity.encode())]
            try:
                status = await self._deliver(_returned(result), scope, receive, send, extra)
            except ClientDisconnected:
                pass
            finally:
                self._over(began, scope["method"], "/", status, identity)

        return finish

    def _identify(self, given: bytes | None) -> str:
        return given.decode() if given is not None and _SANE_ID(given) else self._ids.new()

    def _over(self, began: float, method: str, path: str, status: int, identity: str) -> None:
        """Count and log a finished request."""
        seconds = perf_counter() - began
        self._metrics.finish_request()
        if path != INFO:
            # Not a request to the API: counting it would lower the measured latency.
            self._metrics.record_request(method, status, seconds)
        if status >= self._access.least_status:
            self._access.add(method, path, status, seconds, identity)

    async def _answer_known(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        headers: dict[bytes, bytes],
        extra: list[tuple[bytes, bytes]],
    ) -> int:
        """Call _answer if the request has a valid key; otherwise respond with a 401 without reading the body."""
        assert self._keys is not None
        if self._keys.admits(headers):
            return await self._answer(scope, receive, send, headers, extra)
        extra.append(self._keys.challenge)
        return await response.send_error(send, 401, api_keys.MESSAGE, extra)

    async def _answer(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        headers: dict[bytes, bytes],
        extra: list[tuple[bytes, bytes]],
    ) -> int:
        """Answer one admitted request. Returns the status sent; raises ClientDisconnected."""
        verb = scope["method"]
        if scope["path"] != "/":
            if scope["path"] == INFO and verb == "GET":
                # The model client may have to call TensorFlow Serving.
                info = await asyncio.to_thread(self._info)
                return await response.send(send, 200, response.JSON, response.to_json(info), extra)
            return await response.send_error(send, 404, f"{scope['path']} not found; the API is at /", extra)
        method = self._methods.get(verb)
        if method is None:
            allowed = self._allow.decode()
            extra.append((b"allow", self._allow))
            return await response.send_error(
                send, 405, f"{verb} is not allowed; this API handles {allowed}", extra
            )
        return await self._deliver(
            self._result(verb, method, scope, receive, headers), scope, receive, send, extra
        )

    async def _result(
        self, verb: str, method: Method, scope: Scope, receive: Receive, headers: dict[bytes, bytes]
    ) -> Any:
        arguments = await self._arguments(method, scope, receive, headers)
        debug.show("sample", arguments.get("payload"))
        return await self._call(verb, method, arguments, receive)

    async def _deliver(
        self,
        result: Awaitable[Any],
        scope: Scope,
        receive: Receive,
        send: Send,
        extra: list[tuple[bytes, bytes]],
    ) -> int:
        """Send the result of a method, or an error response for its exception.

        Returns the status that was sent. Raises ClientDisconnected.
        """
        started = response.Started(send)
        try:
            value, callback = response.split_callback(await result)
            debug.show("prediction", value)
            status = await self._send_result(value, scope, receive, started, extra)
        except ClientDisconnected:
            raise
        except (UserError, HTTPException) as error:
            status, message, more = response.refusal(error)
            extra.extend(more)
        except (RequestTimeout, response.Stalled):
            status, message = 504, f"the request took longer than {self._timeout:g} s (requestTimeout)"
        except (Exception, SystemExit, KeyboardInterrupt, GeneratorExit):
            log.exception("the handler failed")
            status, message = 500, "internal server error"
        else:
            if self._tracker is not None and not response.is_stream(value):
                self._tracker.note(value)
            if callback is not None:
                await self._threads.run_after(callback, "its response had been sent")
            return status
        if started.yes:
            # The response has started, so the only way to report the failure is to close the connection, which the server does.
            log.error("the response was aborted after its headers were sent")
            return status
        return await response.send_error(send, status, message, extra)

    async def _arguments(
        self, method: Method, scope: Scope, receive: Receive, headers: dict[bytes, bytes]
    ) -> dict[str, Any]:
        arguments: dict[str, Any] = {}
        for name in method.arguments:
            if name == "payload":
                body = await read_body(receive, headers, self._max_body, self._timeout)
                encoding = headers.get(b"content-encoding")
                if encoding is not None:
                    body = decompress(body, encoding.strip().lower(), self._max_body)
                kind = headers.get(b"content-type", b"")
                arguments["payload"] = await parse(body, kind, self._max_body)
            elif name == "query_params":
                arguments["query_params"] = QueryParams(scope["query_string"])
            else:
                arguments["headers"] = Headers(raw=scope["headers"])
        return arguments

    async def _call(self, verb: str, method: Method, arguments: dict[str, Any], receive: Receive) -> Any:
        batcher = self._batchers.get(verb)
        if batcher is not None:
            return await batcher.run(arguments, receive, self._timeout)
        if method.is_async:
            timer = asyncio.timeout(self._timeout)
            try:
                async with timer:
                    return await method.function(**arguments)
            except TimeoutError:
                if timer.expired():
                    raise RequestTimeout from None
                raise
        policy = self._inline_policies[verb]
        if policy.inline and await self._threads.move_to_handler_thread(self._timeout):
            began = perf_counter()
            try:
                return self._threads.run_inline(partial(method.function, **arguments))
            finally:
                policy.record(perf_counter() - began)
        timed = TimedCall(method.function, arguments)
        try:
            return await self._threads.run(timed, receive, self._timeout)
        finally:
            policy.record(timed.seconds)

    async def _send_result(
        self,
        result: Any,
        scope: Scope,
        receive: Receive,
        send: response.Started,
        extra: list[tuple[bytes, bytes]],
    ) -> int:
        if response.is_stream(result):
            if isinstance(result, AsyncIterator):
                adopt()
            accepts = next((value for name, value in scope["headers"] if name == b"accept"), b"")
            as_events = b"text/event-stream" in accepts.lower()
            stream = response.Stream(result, self._threads.run_plain, self._timeout, as_events)
            return await stream.send(receive, send, extra, with_versions)
        if isinstance(result, Response):
            return await response.send_response(result, scope, receive, send, with_versions(extra))
        kind, body = response.encode(result)
        return await response.send(send, 200, kind, body, with_versions(extra))


async def _returned(result: Any) -> Any:
    if isinstance(result, Exception):
        raise result
    if isinstance(result, BaseException):
        raise HandlerExited(f"the handler raised {type(result).__name__}") from result
    return result
