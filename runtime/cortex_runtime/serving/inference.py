"""The Open Inference Protocol in a worker: the models, how they are called, and the application for its paths."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from starlette.types import ASGIApp

from cortex_runtime.errors import StartError
from cortex_runtime.handler.interfaces import Form
from cortex_runtime.handler.loaded_handler import LoadedHandler
from cortex_runtime.serving.endpoint import Endpoint
from cortex_runtime.serving.handler_service import HandlerService

MODELS = "/v2/models/"
"""The paths that are answered without Starlette."""


@dataclass(frozen=True)
class Inference:
    """The protocol in one worker. service: an InferenceService. app: answers the paths below PREFIX. endpoint: calls the models'
    method. find: returns the endpoint that may answer an inference at a path inline, or None.
    """

    PREFIX: ClassVar[str] = "/v2"

    service: Any
    app: ASGIApp
    endpoint: Endpoint
    find: Callable[[bytes], Any]


def serves_tensors(handler: LoadedHandler) -> bool:
    """Return whether an API answers the protocol: a model without code, or a handler with `handle_infer`."""
    return handler.infer is not None or (
        handler.code.interface.form is Form.MODEL and handler.client is not None
    )


def open_inference(
    service: HandlerService, models: Path, on_models_changed: Callable[[], None]
) -> Inference | None:
    """Return the protocol of a worker; None for an API that does not serve it, which then imports none of it.

    models: the folder of models. on_models_changed: called when a client has loaded or unloaded a model. Raises StartError.
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
    from cortex_runtime.serving.infer_endpoint import open_endpoints

    inference = open_endpoints(service, protocols is not None and protocols.repository)
    if inference.service.has_repository:
        inference.service.open_repository(models, on_models_changed)
    return inference
