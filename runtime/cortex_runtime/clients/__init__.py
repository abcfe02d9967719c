"""The clients that handlers receive, one for each handler type. The libraries of a client are imported only if it is used."""

import os
from collections.abc import Callable
from contextvars import ContextVar
from pathlib import Path
from typing import Any, Protocol

from cortex_api import Document, units
from cortex_api.contract import TENSORFLOW_SERVING_VARIABLE
from cortex_runtime.errors import StartError
from cortex_runtime.models.repository import ModelRepository

served: ContextVar[list[tuple[str, int]] | None] = ContextVar("served", default=None)
"""The (name, version) pairs that the current request has used; clients append to the list."""


class Client(Protocol):
    """The interface of clients for the runtime. Handlers also see the methods of each type.

    Clients of models that Cortex served up to 0.11 also have `classic_signature(part, model_name, model_version)`.
    """

    argument: str
    """The constructor argument that receives the client. "python_client" is also known as "model_client"."""
    may_wait: bool
    """Whether a call may first fetch or load a model, which takes long."""

    def info(self) -> list[dict[str, Any]]:
        """Return the name, the versions, the loaded versions and the signatures of each model, for GET /info."""

    def predict(
        self, model_input: Any, model_name: str | None = None, model_version: str | int | None = "latest"
    ) -> Any:
        """Run a model. Raises UserError for an unknown model or version, and for an invalid input."""

    def signature(
        self, model_name: str | None = None, model_version: str | int | None = "latest"
    ) -> dict[str, Any]:
        """Return inputs and outputs of a model: {"inputs": {name: {"shape", "type"}}, "outputs": the same}."""

    def preload(self) -> None:
        """Load all models, unless their number is limited. Raises StartError. Called after the handler is constructed."""

    def refresh(self) -> None:
        """Read the changed index of the models and apply it, while requests are handled."""

    def problems(self) -> dict[str, str]:
        """Return the current problems by model ("iris 3")."""

    def close(self) -> None:
        """Release all models."""


def open_client(
    document: Document,
    models: Path,
    project: Path,
    load_model: Callable[[str], Any] | None = None,
    failed: Callable[[str], None] | None = None,
) -> Client | None:
    """Return the client for the models of an API, or None if it has no models.

    models: the folder that the supervisor fills. load_model: of the user, for type python; called when a model is requested,
    and by `preload`. Models of other types are loaded here unless their number is limited. failed: called with the name of a
    model after each failed load. Raises StartError.
    """
    handler = document.spec.handler
    if handler.models is None:
        return None
    store = ModelRepository.open(handler, models, project)
    if failed is not None:
        store.failed = failed
    size = handler.models.cache_size
    processes = handler.processes_per_replica
    limit = handler.models.cache_bytes
    limit_bytes = None if limit is None else max(1, units.parse_bytes(limit) // processes)
    if handler.type == "python":
        from cortex_runtime.clients.python import PythonClient

        if load_model is None:
            raise StartError(
                "HandlerInvalid",
                "handler.models requires a method load_model(self, model_path), which returns the loaded model",
            )
        return PythonClient(store, load_model, size=size, limit_bytes=limit_bytes)
    if handler.type == "onnx":
        from cortex_runtime.clients.onnx import ONNXClient, intra_op_threads

        at_once = processes * handler.threads_per_process
        client = ONNXClient(store, intra_op_threads(at_once), size=size, limit_bytes=limit_bytes)
        client.preload()
        return client
    from cortex_runtime.clients import tensorflow

    timeout = tensorflow.TIMEOUT
    if document.kind == "RealtimeAPI":
        timeout = units.seconds(document.realtime_spec.handler.request_timeout)
    return tensorflow.open_client(
        store,
        handler.models,
        os.environ.get(TENSORFLOW_SERVING_VARIABLE),
        size=size,
        limit_bytes=limit_bytes,
        timeout=timeout,
    )


def record_version(name: str, version: int) -> None:
    """Record that the current request uses a version of a model, for the header x-model-version."""
    versions = served.get()
    if versions is not None:
        versions.append((name, version))
