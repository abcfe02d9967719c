"""The application of a RealtimeAPI's worker process. This is the request path, so it is kept short.

POST, GET, PUT, PATCH and DELETE of "/" call the handler. GET /info describes the API and its models.
"""

import asyncio
from collections.abc import Awaitable
from contextvars import copy_context
from functools import partial
from time import perf_counter
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send

from cortex_api.handler import ServerSideBatching
from cortex_runtime.clients import served
from cortex_runtime.errors import HttpError
from cortex_runtime.handler.loaded_handler import LoadedHandler
from cortex_runtime.handler.threads import Threads
from cortex_runtime.http import api_keys, response
from cortex_runtime.http.payload import parse_json
from cortex_runtime.http.protocol import Answer
from cortex_runtime.logs.access_log import AccessLog
from cortex_runtime.logs.records import request_id
from cortex_runtime.metrics.shared_memory import WorkerMetrics
from cortex_runtime.serving.admission import INFO, Admission
from cortex_runtime.serving.batching import batcher_of
from cortex_runtime.serving.endpoint import PLAIN, Endpoint, Limits, Resource, is_plain
from cortex_runtime.serving.version_header import header_of


class App:
    """One worker's application.

    limit: requests running and waiting in the whole replica. batching: how POST is batched. keys: what clients have to show.
    Raises StartError when that can't be.
    """

    def __init__(
        self,
        handler: LoadedHandler,
        threads: Threads,
        metrics: WorkerMetrics,
        *,
        limits: Limits,
        limit: int,
        access: AccessLog,
        batching: ServerSideBatching | None = None,
        keys: api_keys.ApiKeys | None = None,
    ) -> None:
        methods = handler.methods
        quick = threads.size == 1 and not handler.may_wait
        batcher = None
        if batching is not None:
            batcher = batcher_of(batching, methods.get("POST"), threads, metrics, limits.timeout)
        self._root = Resource(
            {
                verb: Endpoint(
                    method,
                    threads,
                    limits,
                    inline=quick,
                    tracker=handler.tracker,
                    batcher=batcher if verb == "POST" else None,
                )
                for verb, method in methods.items()
            }
        )
        self._inline = {
            verb.encode(): endpoint
            for verb, endpoint in self._root.endpoints.items()
            if keys is None and not endpoint.is_async and endpoint.batcher is None
        }
        self._limits = limits
        self._info = handler.info
        self._has_models = handler.client is not None
        self._debug: bool = handler.document.spec.handler.debug
        self._access = access
        self._admission = Admission(
            self._route,
            metrics,
            limit=limit,
            access=access,
            keys=keys,
            has_models=self._has_models,
            allows_debug=self._debug,
        )
        if threads.handler_thread is not None:
            self._run_inline = threads.handler_thread.detached.run
        self.threads = self._threads = threads
        self.all_async = all(method.is_async for method in methods.values())

    @property
    def draining(self) -> bool:
        """Whether clients are told to close their connections."""
        return self._admission.draining

    @draining.setter
    def draining(self, value: bool) -> None:
        self._admission.draining = value

    def close(self) -> None:
        """Write the pending lines of the access log."""
        self._access.flush()

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Answer one HTTP request."""
        return self._admission(scope, receive, send)

    async def _route(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"]
        if path == "/":
            await self._root(scope, receive, send)
        elif path == INFO and scope["method"] == "GET":
            # The model client may have to call TensorFlow Serving.
            info = await asyncio.to_thread(self._info)
            await response.send(send, 200, response.JSON, response.to_json(info))
        else:
            raise HttpError(404, f"{path} not found; the API is at /")

    def runs_inline(self, verb: bytes) -> bool:
        """Return whether a request with this HTTP method may be answered inline."""
        endpoint = self._inline.get(verb)
        return (
            endpoint is not None
            and endpoint.policy.inline
            and self._threads.inline
            and not self._admission.draining
        )

    def answer_inline(
        self, verb: bytes, query: bytes, headers: list[tuple[bytes, bytes]], body: bytes
    ) -> Answer | ASGIApp | None:
        """Run a fast method inline, called by the protocol.

        Returns content type, header lines and body of a 200; or an application that answers with what came out otherwise; or
        None, with nothing run, for a request that must use ASGI.
        """
        began = perf_counter()
        endpoint = self._inline[verb]
        fields = dict(headers)
        if endpoint.takes_payload and (
            fields.get(b"content-type") != b"application/json"
            or b"content-encoding" in fields
            or len(body) > self._limits.max_body
        ):
            return None
        admission = self._admission
        if admission.is_full() or (self._debug and b"debug" in query):
            return None
        identity = admission.start(fields)
        token = request_id.set(identity)
        versions: list[tuple[str, int]] | None = None
        if self._has_models:
            versions = []
            served.set(versions)
        context = copy_context()
        result: Any
        try:
            payload = parse_json(body) if endpoint.takes_payload else None
            arguments = endpoint.arguments(payload, query, headers)
            called = perf_counter()
            try:
                result = self._run_inline(asyncio.get_running_loop(), context, endpoint.function, arguments)
            finally:
                endpoint.policy.record(perf_counter() - called)
            encoded = endpoint.encode(result) if type(result) in PLAIN or is_plain(result) else None
        except BaseException as error:
            result, encoded = error, None
        finally:
            request_id.reset(token)
        if encoded is None:
            deliver = partial(endpoint.deliver_inline, result)
            return admission.resume(began, identity, deliver, versions, context)
        admission.finish(began, identity, 200, verb.decode(), "/")
        more = b"x-request-id: %b\r\n" % identity.encode()
        if versions:
            more += b"x-model-version: %b\r\n" % header_of(versions)
        kind, content = encoded
        return kind, more, content
