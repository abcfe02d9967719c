"""The application of a RealtimeAPI's worker process. Every request runs through this code, so it is kept short.

A request is answered in one of these ways:

- Inline: `InlineProtocol` (http/protocol.py) calls `find_inline` and `answer_inline` on the event loop's thread, without ASGI
  and without a task. Only fast methods run inline; endpoint.py defines when a method does.
- As ASGI, without Starlette: requests to "/" go to the endpoints of the handler, and paths below "/v2/models/" go to the
  application of the Open Inference Protocol, those below "/v1/" to that of the OpenAI-compatible routes.
- As ASGI, with Starlette: the routes of the protocols (protocols.py) and all other routes of the handler.

`Admission.around` wraps all ASGI applications. `answer_inline` calls `Admission` itself.
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
from cortex_runtime.http.request_body import method_not_allowed
from cortex_runtime.logs.access_log import AccessLog
from cortex_runtime.logs.records import request_id as request_id_variable
from cortex_runtime.serving import openai, protocols
from cortex_runtime.serving.admission import Admission
from cortex_runtime.serving.docs import Docs, send_entry
from cortex_runtime.serving.endpoint import Endpoint, is_browser
from cortex_runtime.serving.handler_routes import HandlerRoutes
from cortex_runtime.serving.handler_service import HandlerService
from cortex_runtime.serving.inference import MODELS
from cortex_runtime.serving.interface import describe
from cortex_runtime.serving.route_limits import with_limits
from cortex_runtime.serving.version_header import header_of

_NO_ENDPOINTS: dict[bytes, Endpoint] = {}
_MOST_PATHS = 10
"""Maximum number of paths that the message of a 404 lists."""


class App:
    """The ASGI application of one worker, which can also answer inline.

    limit: maximum number of requests that run and wait in the whole replica. keys: the API keys; a request must have one of
    them. None: no key is required. Raises StartError.
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
        routes = HandlerRoutes(service)
        # An application that is mounted at "/" may have a document and a page of its own.
        docs = Docs(service) if handler.document.spec.handler.docs and not routes.mounts_all else None
        self.admission = self._admission = Admission(
            service.metrics,
            handler.series,
            limit=limit,
            access=access,
            keys=keys,
            has_models=self._has_models,
            allows_debug=self._debug,
            is_open=docs.is_open if docs is not None else None,
        )
        self.interface = partial(describe, service, routes)
        self.metrics = service.metrics
        self._inline = {
            path.encode(): {
                verb.encode(): endpoint
                for verb, endpoint in resource.endpoints.items()
                if keys is None and not endpoint.is_async and endpoint.batcher is None
            }
            for path, resource in routes.resources.items()
            if "{" not in path
        }
        # `answer_inline` does not check API keys, so an API with keys answers nothing inline.
        self._find_inference = None if self.inference is None or keys is not None else self.inference.find
        self._openai_app = openai.application(service, self._admission)
        self._inference_app = None if self.inference is None else self._admission.around(self.inference.app)
        self.starlette = Starlette(
            routes=[
                *(with_limits(route, service.limits) for route in protocols.routes(service)),
                *(with_limits(route, service.limits) for route in (docs.routes if docs is not None else ())),
                *routes.all,
            ],
            middleware=[Middleware(self._admission.around)],
            exception_handlers={HTTPException: _reraise},
            lifespan=routes.lifespan,
        )
        # Behind a route with a prefix, a redirect would lose the prefix.
        self.starlette.router.redirect_slashes = False
        root = None if routes.mounts_all else routes.resources.get("/")
        entry = None
        if docs is not None and (root is None or "GET" not in root.endpoints):
            docs.answers_root, entry = True, send_entry
        self.starlette.router.default = _not_found(routes.paths, entry)
        if root is not None:
            root.entry = entry
        self._root = None if root is None else self._admission.around(root)
        if threads.handler_thread is not None:
            # Runs user code on the event loop's thread, and hides the loop from it. This is safe because `find_inline` checks
            # `threads.inline`: the loop then runs on the only handler thread, so no other synchronous call is running.
            self._run_on_loop_thread = threads.handler_thread.detached.run
        self.threads = self._threads = threads
        self.has_websockets = routes.may_have_websockets
        self.all_async = all(
            endpoint.is_async
            for resource in routes.resources.values()
            for endpoint in resource.endpoints.values()
        ) and all(method.is_async for method in handler.openai.values())

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
            if self._inference_app is not None and path.startswith(MODELS):
                return self._inference_app(scope, receive, send)
            if self._openai_app is not None and path.startswith(openai.PREFIX):
                return self._openai_app(scope, receive, send)
        return self.starlette(scope, receive, send)

    def find_inline(self, verb: bytes, path: bytes) -> Endpoint | None:
        """Return the endpoint that may answer a request inline, or None."""
        endpoint = self._inline.get(path, _NO_ENDPOINTS).get(verb)
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
        """Run a fast method inline. `InlineProtocol` calls this with an endpoint that `find_inline` has returned.

        Returns one of three values:
        - A tuple of content type, header lines and body: the protocol sends them with status 200.
        - An ASGI application: the method was called, or its arguments were invalid. The application sends every other result,
          such as an error or a stream, and does not call the method again.
        - None: the method was not called. The request must use ASGI.
        """
        began = perf_counter()
        admission = self._admission
        # Since `find_inline`, the method may have become slow.
        if not endpoint.policy.inline or not self._threads.inline or admission.draining:
            return None
        fields = dict(headers)
        if not endpoint.accepts_inline(fields, body):
            return None
        if admission.is_full() or (self._debug and b"debug" in query):
            return None
        request_id = admission.start(fields)
        token = request_id_variable.set(request_id)
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
                result = self._run_on_loop_thread(
                    asyncio.get_running_loop(), context, endpoint.function, arguments
                )
            finally:
                endpoint.policy.record(perf_counter() - called)
            encoded = endpoint.encode_inline(result)
        except BaseException as error:
            result, encoded = error, None
        finally:
            request_id_variable.reset(token)
        if encoded is None:
            deliver = partial(endpoint.deliver_inline, result)
            return admission.resume(began, request_id, deliver, versions, context)
        admission.finish(began, request_id, 200, verb.decode(), endpoint.path)
        if endpoint.is_route:
            admission.count_route(endpoint.path, verb.decode(), 200, began)
        added_headers = b"x-request-id: %b\r\n" % request_id.encode()
        if versions:
            added_headers += b"x-model-version: %b\r\n" % header_of(versions)
        content_type, own_headers, content = encoded
        return content_type, added_headers + own_headers, content


async def _reraise(request: Request, error: Exception) -> Response:
    """Raise the exception again. Starlette would answer it; `Admission` answers it in the same format as all errors."""
    allowed = (getattr(error, "headers", None) or {}).get("Allow")
    if getattr(error, "status_code", 0) == 405 and allowed:
        raise method_not_allowed(request.scope, sorted(allowed.split(", ")))
    raise error


def _not_found(paths: list[str], entry: ASGIApp | None) -> ASGIApp:
    shown = ", ".join(paths[:_MOST_PATHS]) + (", ..." if len(paths) > _MOST_PATHS else "")

    async def not_found(scope: Scope, receive: Receive, send: Send) -> None:
        if entry is not None and scope["path"] == "/" and is_browser(scope):
            await entry(scope, receive, send)
            return
        raise HttpError(
            404, f"{scope['path'][:80]} not found" + (f"; the API is at {shown}" if shown else "")
        )

    return not_found
