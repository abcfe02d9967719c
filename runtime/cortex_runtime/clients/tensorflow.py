"""`tensorflow_client`: runs SavedModels, in TensorFlow Serving or, where none is configured, in this process.

With a server nothing here imports TensorFlow. What a caller sent wrongly becomes a UserError, which reaches him as 400.
"""

import re
import socket
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from starlette.exceptions import HTTPException

from cortex_api import units
from cortex_api.contract import TENSORFLOW_SERVING_VARIABLE
from cortex_runtime.clients import record_version
from cortex_runtime.clients.base import CachingClient
from cortex_runtime.clients.legacy import SignatureDefs
from cortex_runtime.clients.tfserving.model import Model, NotLoaded
from cortex_runtime.errors import StartError
from cortex_runtime.models.memory_cache import MemoryCache
from cortex_runtime.models.repository import ModelRepository, Version

if TYPE_CHECKING:
    from cortex_api.handler import Models

if TYPE_CHECKING:
    from cortex_runtime.clients.tfserving.server import ModelServer

TIMEOUT = 300.0
"""Seconds that a prediction may take in a server when nothing else is said, as in Cortex."""

_TRIES = 20
"""For one prediction, while models are replaced or, beyond what the limits allow, unloaded for others."""
_PAUSE = 0.05


class Backend(Protocol):
    """Where models are loaded and run: `RemoteBackend` or `InProcessBackend`."""

    def load(self, version: Version, key: str | None) -> Model[Any]: ...
    def predict(self, model: Model[Any], feed: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]: ...
    def load_again(self, model: Model[Any]) -> None: ...
    def unload(self, model: Model[Any]) -> None: ...
    def is_loaded(self, model: Model[Any]) -> bool: ...
    def close(self) -> None: ...


class TensorFlowClient(CachingClient[Model[Any]]):
    """The models of one API. A single model has no name to give; several are asked for by name.

    cache: of models that the backend has loaded. waits: whether a prediction waits for another process.
    """

    argument = "tensorflow_client"

    def __init__(
        self, store: ModelRepository, backend: Backend, cache: "MemoryCache[Model[Any]]", *, waits: bool
    ) -> None:
        super().__init__(store, cache)
        self._backend = backend
        self.may_wait = waits or cache.is_limited

    def predict(
        self, model_input: Any, model_name: str | None = None, model_version: str | int | None = "latest"
    ) -> dict[str, Any]:
        """Run a model. Returns its outputs by name: numpy arrays of the model's shapes and types, numpy scalars for shape [].

        Strings are str where they are UTF-8, else bytes. bfloat16 comes and goes as float32.
        model_input: a mapping of input name to array, nested lists or scalar; or, with one input, its value. Bytes may come in
        JSON as {"b64": ...}. model_version: a number, or None, "" or "latest" for the highest.
        Raises UserError for an unknown model or version, for inputs that are missing, unknown or of the wrong type or shape, and
        for what the model refuses; LoadFailed; and HTTPException 503 or 504 when TensorFlow Serving is away or too slow.
        """
        for _ in range(_TRIES):
            model = self._cache.get(model_name, model_version)
            try:
                outputs = self._backend.predict(model, model.signature.feed(model_input))
            except NotLoaded:
                self._recover(model, model_name, model_version)
                continue
            record_version(model.version.name, model.version.version)
            return {name: array if array.ndim else array[()] for name, array in outputs.items()}
        raise HTTPException(503, "the models are changing at this moment", {"Retry-After": "1"})

    def _recover(self, model: Model[Any], name: str | None, version: str | int | None) -> None:
        """After the server has lost a model: load it again, unless its successor is here already."""
        if self._cache.get(name, version) is not model:
            return
        try:
            self._backend.load_again(model)
        except NotLoaded:
            # Its successor is being loaded.
            time.sleep(_PAUSE)

    def signature(
        self, model_name: str | None = None, model_version: str | int | None = "latest"
    ) -> dict[str, Any]:
        """The signature of a model that is served: its key, inputs and outputs, with shapes and types.

        In a shape -1 is a dimension that is free, and a shape that is None is of any rank.
        """
        return self._cache.get(model_name, model_version).signature.to_dict()

    def classic_signature(
        self, part: str, model_name: str | None = None, model_version: str | int | None = "latest"
    ) -> SignatureDefs:
        """Return the signature of a model as a map of SignatureDefs, which holds inputs and outputs whatever the part is."""
        return SignatureDefs(self.signature(model_name, model_version))

    def preload(self) -> None:
        """Load all models, when no limit stands against it. Raises StartError (ModelInvalid)."""
        with _starting():
            super().preload()

    def close(self) -> None:
        """Let go of all models; in a server they stay, for the other processes of this replica."""
        self._backend.close()

    def _is_loaded(self, model: Model[Any]) -> bool:
        return self._backend.is_loaded(model)

    def _signature_of(self, model: Model[Any]) -> dict[str, Any]:
        return model.signature.to_dict()


def open_client(
    store: ModelRepository,
    spec: "Models",
    address: str | None,
    *,
    size: int | None = None,
    limit_bytes: int | None = None,
    timeout: float = TIMEOUT,
) -> TensorFlowClient:
    """The client, with its models loaded when there is no limit.

    address: of TensorFlow Serving; None or "" to run models here. size, limit_bytes: what may be in memory, of this process.
    timeout: seconds that a prediction may take in the server. Raises StartError.
    """
    keys = {model.name: model.signature_key for model in spec.paths or () if model.signature_key is not None}
    backend: Backend
    if address:
        server = _connect(store, spec, address)
        from cortex_runtime.clients.tfserving.remote import RemoteBackend

        backend = RemoteBackend(server, store.reading, timeout)
    else:
        if find_spec("tensorflow") is None:
            raise StartError(
                "InvalidSpec",
                f"handler.type tensorflow needs TensorFlow Serving (set {TENSORFLOW_SERVING_VARIABLE} to its HOST:PORT) or"
                " TensorFlow in this environment (build the image with REQUIREMENTS=runtime-tensorflow, or pip install"
                " tensorflow-cpu)",
            )
        from cortex_runtime.clients.tfserving.inprocess import InProcessBackend

        backend = InProcessBackend()

    def load(version: Version) -> Model[Any]:
        return backend.load(version, keys.get(version.name, spec.signature_key))

    if address:
        # The limits are the server's, since all processes share it; here only signatures are kept.
        limit = None if spec.cache_size is None and spec.cache_bytes is None else sys.maxsize
        cache = MemoryCache(store, load, size=limit, unload=backend.unload)
        store.in_memory(
            lambda: {version.stamp for version, model in cache.loaded() if backend.is_loaded(model)}
        )
        if not cache.is_limited:
            with _starting():
                server.announce(store.all_versions())
    else:
        cache = MemoryCache(store, load, size=size, limit_bytes=limit_bytes)
    client = TensorFlowClient(store, backend, cache, waits=bool(address))
    try:
        client.preload()
    except BaseException:
        client.close()
        raise
    return client


def _connect(store: ModelRepository, spec: "Models", address: str) -> "ModelServer":
    from cortex_runtime.clients.tfserving.servables import Limits
    from cortex_runtime.clients.tfserving.server import ModelServer

    versions = store.all_versions()
    # The server sees the folder of models, in which versions lie as <name>/<stamp>/<version>. Other pods may share it on a
    # volume; each has its own server, and its own name.
    folder = versions[0].path.parents[2]
    replica = re.sub(r"[^A-Za-z0-9.-]", "-", socket.gethostname())
    total = None if spec.cache_bytes is None else units.parse_bytes(spec.cache_bytes)
    server = ModelServer(address, folder / ".tensorflow-serving" / replica, Limits(spec.cache_size, total))
    try:
        server.open(versions)
    except BaseException:
        server.close()
        raise
    return server


@contextmanager
def _starting() -> Iterator[None]:
    """While an API starts, what is a 503 later is the reason why it does not start."""
    try:
        yield
    except HTTPException as error:
        raise StartError("TensorFlowServingUnavailable", error.detail) from error
