"""The application of a RealtimeAPI's worker process. This is the request path, so it is kept short.

POST, GET, PUT, PATCH and DELETE of "/" call the handler: inline if the method is fast (`answer_inline`), otherwise as an ASGI
application. All other paths are routes of a Starlette application (protocols.py). `Admission` is around both.
"""

import asyncio
from collections.abc import Awaitable
from contextvars import copy_context
from functools import partial
from time import perf_counter
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from cortex_runtime.clients import served
from cortex_runtime.errors import HttpError
from cortex_runtime.http import api_keys
from cortex_runtime.http.protocol import Answer
from cortex_runtime.logs.access_log import AccessLog
from cortex_runtime.logs.records import request_id
from cortex_runtime.serving import protocols
from cortex_runtime.serving.admission import Admission
from cortex_runtime.serving.endpoint import Endpoint
from cortex_runtime.serving.handler_routes import HandlerRoutes
from cortex_runtime.serving.handler_service import HandlerService
from cortex_runtime.serving.inference import MODELS
from cortex_runtime.serving.route_limits import with_limits
from cortex_runtime.serving.version_header import header_of

_NONE: dict[bytes, Endpoint] = {}
_MOST_PATHS = 10
"""Paths that the message of a 404 lists."""


class App:
    """One worker's application: a Starlette application, with a shorter way to "/" in front of it.

    limit: requests running and waiting in the whole replica. keys: those of which a request must have one.
    Raises StartError.
    """

    def __init__(
        self,
        service: HandlerService,
        *,
        limit: int,
        access: AccessLog,
        keys: api_keys.ApiKeys | None = None,
    ) -> None:
        handler, threads = service.handler, service.threads
        self.inference = service.inference
        self._limits = service.limits
        self._has_models = handler.client is not None
        self._debug: bool = handler.document.spec.handler.debug
        self._access = access
        self.admission = self._admission = Admission(
            service.metrics,
            handler.series,
            limit=limit,
            access=access,
            keys=keys,
            has_models=self._has_models,
            allows_debug=self._debug,
        )
        routes = HandlerRoutes(service)
        self._inline = {
            path.encode(): {
                verb.encode(): endpoint
                for verb, endpoint in resource.endpoints.items()
                if keys is None and not endpoint.is_async and endpoint.batcher is None
            }
            for path, resource in routes.resources.items()
            if "{" not in path
        }
        # A request that needs a key is not answered inline.
        self._find_inference = None if self.inference is None or keys is not None else self.inference.find
        self._models = None if self.inference is None else self._admission.around(self.inference.app)
        self.starlette = Starlette(
            routes=[
                *(with_limits(route, service.limits) for route in protocols.routes(service)),
                *routes.all,
            ],
            middleware=[Middleware(self._admission.around)],
            exception_handlers={HTTPException: _raise},
            lifespan=routes.lifespan,
        )
        # Behind a route with a prefix, a redirect would lose the prefix.
        self.starlette.router.redirect_slashes = False
        self.starlette.router.default = _not_found(list(routes.resources))
        root = None if routes.mounts_all else routes.resources.get("/")
        self._root = None if root is None else self._admission.around(root)
        if threads.handler_thread is not None:
            self._run_inline = threads.handler_thread.detached.run
        self.threads = self._threads = threads
        self.has_websockets = bool(routes.websockets)
        self.all_async = all(
            endpoint.is_async
            for resource in routes.resources.values()
            for endpoint in resource.endpoints.values()
        )

    @property
    def draining(self) -> bool:
        """Whether responses have `connection: close`."""
        return self._admission.draining

    @draining.setter
    def draining(self, value: bool) -> None:
        self._admission.draining = value
        if self.inference is not None:
            self.inference.service.draining = value

    def close(self) -> None:
        """Write the pending lines of the access log."""
        self._access.flush()

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Answer one request."""
        if scope["type"] == "http":
            path = scope["path"]
            if self._root is not None and path == "/":
                return self._root(scope, receive, send)
            if self._models is not None and path.startswith(MODELS):
                return self._models(scope, receive, send)
        return self.starlette(scope, receive, send)

    def find_inline(self, verb: bytes, path: bytes) -> Endpoint | None:
        """Return the endpoint that may answer a request inline, or None."""
        endpoint = self._inline.get(path, _NONE).get(verb)
        if endpoint is None and self._find_inference is not None and verb == b"POST":
            endpoint = self._find_inference(path)
        if (
            endpoint is not None
            and endpoint.policy.inline
            and self._threads.inline
            and not self._admission.draining
        ):
            return endpoint
        return None

    def answer_inline(
        self, endpoint: Endpoint, verb: bytes, query: bytes, headers: list[tuple[bytes, bytes]], body: bytes
    ) -> Answer | ASGIApp | None:
        """Run a fast method inline, called by the protocol.

        Returns content type, header lines and body of a 200; or an application that sends any other outcome; or
        None, with nothing run, for a request that must use ASGI.
        """
        began = perf_counter()
        fields = dict(headers)
        if not endpoint.accepts_inline(fields, body):
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
            arguments = endpoint.read_inline(query, headers, fields, body)
            called = perf_counter()
            try:
                result = self._run_inline(asyncio.get_running_loop(), context, endpoint.function, arguments)
            finally:
                endpoint.policy.record(perf_counter() - called)
            encoded = endpoint.encode_inline(result)
        except BaseException as error:
            result, encoded = error, None
        finally:
            request_id.reset(token)
        if encoded is None:
            deliver = partial(endpoint.deliver_inline, result)
            return admission.resume(began, identity, deliver, versions, context)
        admission.finish(began, identity, 200, verb.decode(), endpoint.path)
        if endpoint.is_route:
            admission.count_route(endpoint.path, verb.decode(), 200, began)
        more = b"x-request-id: %b\r\n" % identity.encode()
        if versions:
            more += b"x-model-version: %b\r\n" % header_of(versions)
        kind, own, content = encoded
        return kind, more + own, content


async def _raise(request: Request, error: Exception) -> Response:
    """Leave the exception to Admission, which answers it as any other."""
    raise error


def _not_found(paths: list[str]) -> ASGIApp:
    shown = ", ".join(paths[:_MOST_PATHS]) + (", ..." if len(paths) > _MOST_PATHS else "")

    async def not_found(scope: Scope, receive: Receive, send: Send) -> None:
        raise HttpError(404, f"{scope['path']} not found" + (f"; the API is at {shown}" if shown else ""))

    return not_found
