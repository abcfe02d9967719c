"""Inferences as endpoints of a worker: over ASGI, inline and over gRPC. Imported only in APIs that serve the protocol."""

from collections.abc import Callable
from time import perf_counter
from typing import Any

from starlette.types import Receive

from cortex_runtime.http.protocol import Answer
from cortex_runtime.inference import rest
from cortex_runtime.inference.batches import batched
from cortex_runtime.inference.messages import InferRequest, InferResponse
from cortex_runtime.inference.models import models_of
from cortex_runtime.inference.routes import CODINGS, Routes, parse_path
from cortex_runtime.inference.service import LARGE, InferenceService
from cortex_runtime.serving.endpoint import Endpoint, Limits
from cortex_runtime.serving.handler_service import HandlerService
from cortex_runtime.serving.inference import Inference

_PATHS = 1000
"""Paths whose endpoints are kept: one for each model and version that is called."""


class InlineInfer:
    """Inferences at one path as the endpoint of `App.answer_inline`. endpoint: calls the models' method."""

    is_route = False
    """The metrics by model and version say more than one by route."""

    def __init__(self, path: str, endpoint: Endpoint, service: InferenceService, limits: Limits) -> None:
        found = parse_path(path.encode())
        assert found is not None
        self.path = path
        self._name, self._version = found
        self._function = endpoint.function
        self._service = service
        self._max_body = min(limits.max_body, LARGE)
        self.policy = endpoint.policy
        self.deliver_inline = endpoint.deliver_inline

    def accepts_inline(self, fields: dict[bytes, bytes], body: bytes) -> bool:
        """Return whether a request may be answered inline. fields: its headers."""
        return (
            b"content-encoding" not in fields
            and fields.get(b"accept-encoding") not in CODINGS
            and len(body) <= self._max_body
        )

    def read_inline(
        self, query: bytes, headers: list[tuple[bytes, bytes]], fields: dict[bytes, bytes], body: bytes
    ) -> dict[str, Any]:
        """Return the arguments of `function`. Raises UserError."""
        return {"request": rest.decode(self._name, self._version, body, fields.get(rest.HEADER_LENGTH))}

    def function(self, request: InferRequest) -> tuple[InferRequest, InferResponse, float]:
        """Return the request, its response, and the seconds that it took."""
        began = perf_counter()
        response = self._function(request=request)
        return request, response, perf_counter() - began

    def encode_inline(self, result: tuple[InferRequest, InferResponse, float]) -> Answer:
        """Return the response of an inference, and count it."""
        request, answer, seconds = result
        kind, length, content = rest.encode(answer, request)
        self._service.record(answer, seconds)
        return kind, b"" if length is None else b"%b: %b\r\n" % (rest.HEADER_LENGTH, length), content


def open_endpoints(service: HandlerService, has_repository: bool) -> Inference:
    """Return the protocol of an API that serves it. Raises StartError."""
    handler = service.handler
    models = models_of(handler)
    assert models is not None
    batcher = None if service.batching is None else service.batcher(batched(models))
    endpoint = service.endpoint(models.method, batcher)

    async def call(request: InferRequest, receive: Receive | None) -> Any:
        return await endpoint.call({"request": request}, receive)

    answers = InferenceService(
        models, call, handler.series, tracker=handler.tracker, has_repository=has_repository
    )
    routes = Routes(answers, service.limits.max_body, service.limits.timeout)

    find = _finder(endpoint, answers, service.limits) if endpoint.may_run_inline else lambda path: None
    return Inference(answers, routes, endpoint, find)


def _finder(endpoint: Endpoint, service: InferenceService, limits: Limits) -> Callable[[bytes], Any]:
    """Return the function that returns the endpoint for a path, or None for a path that is not one of an inference."""
    known: dict[bytes, InlineInfer | None] = {}

    def find(path: bytes) -> InlineInfer | None:
        try:
            return known[path]
        except KeyError:
            if len(known) >= _PATHS:
                known.clear()
            is_infer = parse_path(path) is not None
            inline = InlineInfer(path.decode(), endpoint, service, limits) if is_infer else None
            known[path] = inline
            return inline

    return find
