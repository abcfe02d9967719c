"""The Open Inference Protocol in a worker: the models, how they are called, and the application for its paths."""

from dataclasses import dataclass
from typing import Any, ClassVar

from starlette.types import ASGIApp

from cortex_runtime.errors import StartError
from cortex_runtime.handler.interfaces import Form
from cortex_runtime.handler.loaded_handler import LoadedHandler
from cortex_runtime.serving.service import Service


@dataclass(frozen=True)
class Inference:
    """The protocol in one worker. service: an InferenceService. app: answers the paths below PREFIX."""

    PREFIX: ClassVar[str] = "/v2"

    service: Any
    app: ASGIApp


def serves_tensors(handler: LoadedHandler) -> bool:
    """Return whether an API answers the protocol: a model without code, or a handler with `handle_infer`."""
    return handler.infer is not None or (
        handler.code.interface.form is Form.MODEL and handler.client is not None
    )


def open_inference(service: Service) -> Inference | None:
    """Return the protocol of a worker; None for an API that does not serve it, which then imports none of it.

    Raises StartError.
    """
    handler = service.handler
    protocols = handler.document.realtime_spec.handler.protocols
    if not serves_tensors(handler):
        for name in ("grpc", "repository"):
            if protocols is not None and getattr(protocols, name):
                raise StartError(
                    "InvalidSpec",
                    f"handler.protocols.{name}: the API does not serve the Open Inference Protocol. Add a method"
                    " handle_infer(self, inputs, parameters) to the class, or serve a model without handler.path",
                )
        return None
    from cortex_runtime.inference.models import models_of
    from cortex_runtime.inference.routes import Routes
    from cortex_runtime.inference.service import InferenceService

    models = models_of(handler)
    assert models is not None
    batcher = None
    if service.batching is not None:
        from cortex_runtime.inference.batches import batched

        batcher = service.batcher(batched(models))
    endpoint = service.endpoint(models.method, batcher)

    async def call(request: Any, receive: Any) -> Any:
        return await endpoint.call({"request": request}, receive)

    answers = InferenceService(
        models,
        call,
        handler.series,
        tracker=handler.tracker,
        has_repository=protocols is not None and protocols.repository,
    )
    return Inference(answers, Routes(answers, service.limits.max_body, service.limits.timeout))
