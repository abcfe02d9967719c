"""What routes use of the handler: its methods as endpoints, and request bodies.

A protocol (protocols.py) receives a `HandlerService` and returns Starlette routes. Limits, API keys, request ID, errors,
metrics, access log and draining are added around the routes (admission.py, route_limits.py), so a route does none of this.
"""

from typing import TYPE_CHECKING

from starlette.requests import Request

from cortex_runtime.handler.interfaces import Method
from cortex_runtime.handler.loaded_handler import LoadedHandler
from cortex_runtime.handler.threads import Threads
from cortex_runtime.http.request_body import read_body
from cortex_runtime.metrics.shared_memory import WorkerMetrics
from cortex_runtime.serving.batching import Batcher, batcher_of
from cortex_runtime.serving.endpoint import Endpoint, Limits

if TYPE_CHECKING:
    from cortex_api.handler import ServerSideBatching
    from cortex_runtime.serving.inference import Inference


class HandlerService:
    """The loaded handler and how its methods are called.

    batching: spec.handler.serverSideBatching, or None. inference: the Open Inference Protocol, if the API serves it.
    """

    endpoint_type, batcher_type = Endpoint, Batcher

    def __init__(
        self,
        handler: LoadedHandler,
        threads: Threads,
        metrics: WorkerMetrics,
        limits: Limits,
        batching: "ServerSideBatching | None" = None,
    ) -> None:
        self.handler = handler
        self.threads = threads
        self.metrics = metrics
        self.limits = limits
        self.batching = batching
        self.inference: Inference | None = None
        self._allows_inline = threads.size == 1 and not handler.may_wait

    def endpoint(self, method: Method, batcher: Batcher | None = None, path: str = "/") -> Endpoint:
        """Return a method as an endpoint.

        As an ASGI application it answers a whole request. `endpoint.call(arguments, receive)` only calls the method: on a
        handler thread, inline, on the event loop or in a batch, for requestTimeout at most. Create an endpoint once, at start.
        path: of the route, with its parameters.
        """
        return self.endpoint_type(
            method,
            self.threads,
            self.limits,
            inline=self._allows_inline,
            tracker=self.handler.tracker,
            batcher=batcher,
            path=path,
        )

    def batcher(self, method: Method | None) -> Batcher | None:
        """Return the batcher of a method, or None without serverSideBatching. Raises StartError if it cannot be batched."""
        if self.batching is None:
            return None
        return batcher_of(
            self.batching, method, self.threads, self.metrics, self.limits.timeout, self.batcher_type
        )

    async def read(self, request: Request) -> bytes:
        """Return the decompressed body of a request. Raises UserError (400, 408, 413 or 415) and ClientDisconnected."""
        headers = dict(request.scope["headers"])
        return await read_body(request.receive, headers, self.limits.max_body, self.limits.timeout)
