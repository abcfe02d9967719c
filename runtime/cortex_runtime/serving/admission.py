"""What applies to every request, on every route: request ID, limit, API key, `connection: close`, error, metrics, access log.

`Admission.around` is ASGI middleware. The application that it wraps does not count or log requests. It raises its errors, and the
middleware answers them.

Requests that are answered inline (`App.answer_inline`) and gRPC calls (grpc_server.py, infer_inline.py) do not pass through the
middleware. Their code calls `start` and `finish` itself.
"""

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from time import perf_counter
from typing import Any

from starlette.datastructures import QueryParams
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocketDisconnect

from cortex_runtime.clients import served
from cortex_runtime.errors import ClientDisconnected, HttpError, Moved
from cortex_runtime.handler import debug
from cortex_runtime.handler.user_context import enter_user_context
from cortex_runtime.http import api_keys, response
from cortex_runtime.http.strict_protocol import DISCONNECTED
from cortex_runtime.logs.access_log import AccessLog
from cortex_runtime.logs.records import RequestIds
from cortex_runtime.logs.records import request_id as request_id_variable
from cortex_runtime.metrics.series import NamedSeries
from cortex_runtime.metrics.shared_memory import WorkerMetrics
from cortex_runtime.serving.version_header import with_versions

log = logging.getLogger("cortex")

ARRIVED = "cortex.arrived"
"""Scope key: the time of the request's arrival, by perf_counter. Set only in a request that another worker of the replica has
admitted and passed on (load_sharing.py); the limit is not checked again."""
ROUTE = "cortex.route"
"""Scope key: the path template of a route other than "/" (`/items/{id}`). It is a label of the metrics by route."""
MOVED = "cortex.moved"
"""Scope key: set when the request was passed on to another worker of the replica, which answers it."""
ROUTE_REQUESTS, ROUTE_SECONDS = "cortex_route_requests", "cortex_route_request_duration_seconds"
INFO = "/info"
_VALID_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:/+=@-]{1,128}").fullmatch
_CLIENT_GONE = 499
_SWITCHED = 101
_POLICY, _ERROR, _RESTART = 1008, 1011, 1012
"""Close codes of WebSockets, of RFC 6455 and its registry."""
_LONGEST_REASON = 123
SendError = Callable[[Send, HttpError], Awaitable[None]]
_RETRY_AFTER = (b"retry-after", b"1")


class AdmittedRequest:
    """One admitted request, and the ASGI `send` of its response, which adds the runtime's headers.

    began: arrival of the request, by perf_counter. closes_connection: whether the response has `connection: close`.

    sent: the status in the response's start message; 0 before it is sent. complete: whether the last message of the body was
    sent. status: the status that is counted and logged. `Admission` sets it when the application returns or raises; it stays 499
    if the client disconnects. server_send: the server's `send`.
    """

    __slots__ = ("began", "closes_connection", "complete", "request_id", "sent", "server_send", "status")
    server_send: Send

    def __init__(self, began: float, request_id: str, closes_connection: bool = False) -> None:
        self.began = began
        self.request_id = request_id
        self.closes_connection = closes_connection
        self.status = _CLIENT_GONE
        self.sent = 0
        self.complete = False

    def __call__(self, message: Any) -> Awaitable[None]:
        """Send a message of the response."""
        if message["type"] == "http.response.start":
            self.sent = message["status"]
            added = with_versions([(b"x-request-id", self.request_id.encode())])
            if self.closes_connection:
                added.append((b"connection", b"close"))
            names = [name for name, _ in added]
            headers = [pair for pair in message.get("headers", ()) if pair[0].lower() not in names]
            message = {**message, "headers": headers + added}
        elif not message.get("more_body", False):
            self.complete = True
        # Returned instead of awaited: this runs at least twice for each response, and a coroutine costs time.
        return self.server_send(message)


class AdmittedWebSocket(AdmittedRequest):
    """One admitted WebSocket, and its ASGI `send`. sent: 101 after it was accepted, or the status of its refusal; 0 before."""

    __slots__ = ()

    def __call__(self, message: Any) -> Awaitable[None]:
        """Send a message."""
        kind = message["type"]
        if kind == "websocket.accept":
            self.sent = _SWITCHED
            named = (b"x-request-id", self.request_id.encode())
            message = {**message, "headers": [*message.get("headers", ()), named]}
        elif kind == "websocket.http.response.start":
            self.sent = message["status"]
        return self.server_send(message)

    async def close(self, code: int, reason: str) -> None:
        """Close an accepted WebSocket, unless it is closed. reason: cut to the length that a frame can hold."""
        text = reason.encode(errors="replace")[:_LONGEST_REASON].decode(errors="ignore")
        with suppress(Exception):
            await self.server_send({"type": "websocket.close", "code": code, "reason": text})

    async def refuse(self, error: HttpError) -> None:
        """Answer the handshake with an error."""
        body = response.error_body(error)
        headers = [
            (b"content-type", response.JSON),
            (b"x-request-id", self.request_id.encode()),
            *error.headers,
        ]
        with suppress(Exception):
            await self({"type": "websocket.http.response.start", "status": error.status, "headers": headers})
            await self.server_send({"type": "websocket.http.response.body", "body": body})


class Admission:
    """Admits, counts and logs requests.

    series: for the metrics by route. limit: maximum number of requests that run and wait in the whole replica. keys: the API
    keys; a request must have one of them. None: no key is required. has_models: whether responses name the model versions that
    produced them. allows_debug: whether `?debug=true` logs the stages of a request. is_open: returns whether a request needs no
    key.
    """

    def __init__(
        self,
        metrics: WorkerMetrics,
        series: NamedSeries,
        *,
        limit: int,
        access: AccessLog,
        keys: api_keys.ApiKeys | None,
        has_models: bool,
        allows_debug: bool,
        is_open: Callable[[Scope], bool] | None = None,
    ) -> None:
        self._metrics = metrics
        self._series = series
        self._limit = limit
        self._access = access
        self._keys = keys
        self._has_models = has_models
        self._allows_debug = allows_debug
        self._is_open = is_open
        self._ids = RequestIds()
        self.draining = False

    def around(self, app: ASGIApp, send_error: SendError = response.send_error) -> ASGIApp:
        """Wrap an application: admit, count and log its requests, and answer its exceptions. send_error: sends errors."""
        return partial(self._admit, app, send_error)

    async def _admit(
        self, app: ASGIApp, send_error: SendError, scope: Scope, receive: Receive, send: Send
    ) -> None:
        if scope["type"] == "lifespan":
            await app(scope, receive, send)
            return
        began = scope.get(ARRIVED)
        full = began is None and self.is_full()
        headers: dict[bytes, bytes] = dict(scope["headers"])
        request_id = self.choose_request_id(headers.get(b"x-request-id"))
        request_id_variable.set(request_id)
        if self._has_models:
            served.set([])
        if self._allows_debug and QueryParams(scope["query_string"]).get("debug") == "true":
            debug.showing.set(True)
        self._metrics.start_request()
        refused = self._overload() if full else self.key_error(headers)
        if refused is not None and (full or self._is_open is None or not self._is_open(scope)):
            app = _refuse_with(refused)
        if scope["type"] == "http":
            exchange = AdmittedRequest(began or perf_counter(), request_id, self.draining)
            await self.serve(exchange, app, scope, receive, send, send_error)
        else:
            await self._serve_websocket(
                AdmittedWebSocket(perf_counter(), request_id), app, scope, receive, send
            )

    async def serve(
        self,
        exchange: AdmittedRequest,
        app: ASGIApp,
        scope: Scope,
        receive: Receive,
        send: Send,
        send_error: SendError = response.send_error,
    ) -> None:
        """Let an application answer an admitted request, and finish the request."""
        exchange.server_send = send
        moved = False
        try:
            await app(scope, receive, exchange)
            if DISCONNECTED not in scope:
                exchange.status = exchange.sent or 500
        except Moved:
            moved = scope[MOVED] = True
        except (ClientDisconnected, ClientDisconnect):
            pass
        except (Exception, SystemExit, KeyboardInterrupt, GeneratorExit) as error:
            answer = response.error_of(error)
            exchange.status = answer.status
            if exchange.complete:
                # A Starlette application that a handler mounts sends a 500 and then raises the exception again.
                exchange.status = exchange.sent
            elif exchange.sent:
                # The only way to report the failure is to close the connection, which the server does.
                log.error("the response was aborted after its headers were sent")
            else:
                await send_error(exchange, answer)
        finally:
            if moved:
                # The worker that has the request now counts and logs it.
                self._metrics.finish_request()
            else:
                method = scope["method"]
                self.finish(exchange.began, exchange.request_id, exchange.status, method, scope["path"])
                if ROUTE in scope:
                    self.count_route(scope[ROUTE], method, exchange.status, exchange.began)

    async def _serve_websocket(
        self, exchange: "AdmittedWebSocket", app: ASGIApp, scope: Scope, receive: Receive, send: Send
    ) -> None:
        """Let an application talk to a client over a WebSocket. An exception closes it, or refuses it before it is accepted."""
        exchange.server_send = send
        try:
            await app(scope, receive, exchange)
            exchange.status = exchange.sent or 403
        except (WebSocketDisconnect, ClientDisconnected):
            exchange.status = exchange.sent or exchange.status
        except asyncio.CancelledError:
            # The worker shuts down, and the application has not returned in time.
            exchange.status = exchange.sent or exchange.status
            await exchange.close(_RESTART, "")
            raise
        except (Exception, SystemExit, KeyboardInterrupt, GeneratorExit) as error:
            answer = response.error_of(error)
            exchange.status = answer.status
            if exchange.sent:
                await exchange.close(_POLICY if answer.status < 500 else _ERROR, str(answer.message))
            else:
                await exchange.refuse(answer)
        finally:
            self._metrics.finish_request()
            if exchange.sent != _SWITCHED:
                self._metrics.record_request("GET", exchange.status, perf_counter() - exchange.began)
            if ROUTE in scope:
                tags = {"route": scope[ROUTE], "method": "WEBSOCKET", "status": str(exchange.status)}
                self._series.add(ROUTE_REQUESTS, tags, 1)
            if exchange.status >= self._access.least_status:
                seconds = perf_counter() - exchange.began
                self._access.add("WEBSOCKET", scope["path"], exchange.status, seconds, exchange.request_id)

    def resume(self, began: float, request_id: str, app: ASGIApp, versions: Any, context: Any) -> ASGIApp:
        """Return an application that sends the result of a method that has run inline, and finishes the request.

        app: sends the result or raises the error. versions: the model versions that the method has used. context: the context
        (contextvars) in which it has run.
        """

        async def resumed(scope: Scope, receive: Receive, send: Send) -> None:
            request_id_variable.set(request_id)
            served.set(versions)
            enter_user_context(context)
            await self.serve(AdmittedRequest(began, request_id), app, scope, receive, send)

        return resumed

    def start(self, headers: dict[bytes, bytes]) -> str:
        """Start to count a request outside the middleware, and return its ID. It does not check the limit or the API key.

        For each `start`, the caller must either call `finish`, or run the application that `resume` returns, which calls it.
        """
        self._metrics.start_request()
        return self.choose_request_id(headers.get(b"x-request-id"))

    def finish(self, began: float, request_id: str, status: int, method: str, path: str) -> None:
        """Count and log a request that has ended."""
        seconds = perf_counter() - began
        if path != INFO:
            # Not a request to the API: counting it would lower the measured latency.
            self._metrics.record_request(method, status, seconds)
        # Last, so that every request is counted once none is in flight.
        self._metrics.finish_request()
        if status >= self._access.least_status:
            self._access.add(method, path, status, seconds, request_id)

    def count_route(self, route: str, method: str, status: int, began: float) -> None:
        """Count a request that has ended in the metrics by route. route: the path template."""
        self._series.add(ROUTE_REQUESTS, {"route": route, "method": method, "status": str(status)}, 1)
        self._series.observe(ROUTE_SECONDS, {"route": route}, perf_counter() - began)

    def refusal(self, headers: dict[bytes, bytes]) -> HttpError | None:
        """Return why a request is not admitted: the replica is full, or it has no valid key. None if it is admitted."""
        return self._overload() if self.is_full() else self.key_error(headers)

    def key_error(self, headers: dict[bytes, bytes]) -> HttpError | None:
        """Return the error of a request without a valid key, if the API requires one."""
        if self._keys is None or self._keys.admits(headers):
            return None
        return HttpError(401, api_keys.MESSAGE, [self._keys.challenge])

    def _overload(self) -> HttpError:
        message = f"too many requests: {self._limit} are running or waiting in this replica"
        return HttpError(503, message, [_RETRY_AFTER])

    def is_full(self) -> bool:
        """Return whether the requests that run and wait in the replica have reached the limit."""
        return self._metrics.shared.in_flight() >= self._limit

    def choose_request_id(self, given: bytes | None) -> str:
        """Return the ID of a request: the ID that the client has sent if it is valid, otherwise a new one."""
        return given.decode() if given is not None and _VALID_REQUEST_ID(given) else self._ids.new()


def _refuse_with(error: HttpError) -> ASGIApp:
    """Return an application that raises an error."""

    async def refuse(scope: Scope, receive: Receive, send: Send) -> None:
        raise error

    return refuse
