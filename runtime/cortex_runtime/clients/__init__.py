"""The clients that a handler's constructor may ask for, one for each type of handler; what they need is imported only then."""

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
"""While a request is handled: the list to which a client adds the (name, version) that it answers from."""


class Client(Protocol):
    """What the runtime wants of a client; the handler sees the methods of its own kind as well.

    Clients of models that Cortex served up to 0.11 also have `classic_signature(part, model_name, model_version)`.
    """

    argument: str
    """The constructor argument that it is injected as. "python_client" is also known as "model_client"."""
    may_wait: bool
    """Whether a call may have to fetch or load a model first, and so take long."""

    def info(self) -> list[dict[str, Any]]:
        """For GET /info: of each model its name, versions, what is loaded, and signatures."""

    def predict(
        self, model_input: Any, model_name: str | None = None, model_version: str | int | None = "latest"
    ) -> Any:
        """Run a model. Raises UserError when the caller is wrong about model, version or input."""

    def signature(
        self, model_name: str | None = None, model_version: str | int | None = "latest"
    ) -> dict[str, Any]:
        """Inputs and outputs of a model: {"inputs": {name: {"shape", "type"}}, "outputs": the same}."""

    def preload(self) -> None:
        """Load all models, when no limit stands against it. Raises StartError. Called once the handler is constructed."""

    def refresh(self) -> None:
        """The index of models has changed: read it and follow it, while requests are answered."""

    def problems(self) -> dict[str, str]:
        """What is wrong with models now, by model ("iris 3")."""

    def close(self) -> None:
        """Let go of all models."""


def open_client(
    document: Document,
    models: Path,
    project: Path,
    load_model: Callable[[str], Any] | None = None,
    failed: Callable[[str], None] | None = None,
) -> Client | None:
    """The client for the models of an API; None when it has none.

    models: the folder that the supervisor keeps. load_model: the user's, for type python; called when a model is asked for, and
    by `preload`. Models of the other types are loaded here when there is no limit. failed: is told the name of a model whenever
    a load of it has failed. Raises StartError.
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
                "handler.models is given, so the handler needs a load_model(self, model_path) that returns the model "
                "at a path",
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
