"""`tensorflow_client`: runs SavedModels, in TensorFlow Serving or, if none is configured, in this process.

With a server, TensorFlow is not imported. An invalid request is a UserError, a 400 for the client.
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
"""Default timeout of a prediction in a server, in seconds, as in Cortex."""

_MAX_ATTEMPTS = 20
"""Attempts for one prediction, while models are replaced or are evicted for other requests."""
_PAUSE = 0.05


class Backend(Protocol):
    """Loads and runs models: `RemoteBackend` or `InProcessBackend`."""

    def load(self, version: Version, key: str | None) -> Model[Any]: ...
    def predict(self, model: Model[Any], feed: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]: ...
    def load_again(self, model: Model[Any]) -> None: ...
    def unload(self, model: Model[Any]) -> None: ...
    def is_loaded(self, model: Model[Any]) -> bool: ...
    def close(self) -> None: ...


class TensorFlowClient(CachingClient[Model[Any]]):
    """The models of one API. A single model is selected without a name, several by name.

    cache: of models that the backend has loaded. waits: whether a prediction waits for another process.
    """

    argument = "tensorflow_client"

    def __init__(
        self, store: ModelRepository, backend: Backend, cache: "MemoryCache[Model[Any]]", *, waits: bool
    ) -> None:
        super().__init__(store, cache)
        self._backend = backend
        self.may_wait = waits or cache.is_limited
        self._waits = waits

    @property
    def _is_in_process(self) -> bool:
        return not self._waits

    def predict(
        self, model_input: Any, model_name: str | None = None, model_version: str | int | None = "latest"
    ) -> dict[str, Any]:
        """Run a model. Returns its outputs by name: numpy arrays of the model's shapes and types, numpy scalars for shape [].
        Strings are str if they are UTF-8, otherwise bytes. bfloat16 is float32 here.

        model_input: a mapping of input name to array, nested lists or scalar; or, with one input, its value. Bytes in JSON are
        {"b64": ...}. model_version: a number, or None, "" or "latest" for the highest.
        Raises UserError for an unknown model or version, for missing and unknown inputs, for values of the wrong type or shape,
        and for an input that the model refuses; LoadFailed; and HTTPException 503 or 504 if TensorFlow Serving is unavailable
        or too slow.
        """
        for _ in range(_MAX_ATTEMPTS):
            model = self._cache.get(model_name, model_version)
            try:
                outputs = self._backend.predict(model, model.signature.feed(model_input))
            except NotLoaded:
                self._load_again(model, model_name, model_version)
                continue
            record_version(model.version.name, model.version.version)
            return {name: array if array.ndim else array[()] for name, array in outputs.items()}
        raise HTTPException(503, "the models are being replaced; try again", {"Retry-After": "1"})

    def _load_again(self, model: Model[Any], name: str | None, version: str | int | None) -> None:
        """Load a model again that the server has lost, unless its successor is loaded."""
        if self._cache.get(name, version) is not model:
            return
        try:
            self._backend.load_again(model)
        except NotLoaded:
            # Another thread loads its successor.
            time.sleep(_PAUSE)

    def signature(
        self, model_name: str | None = None, model_version: str | int | None = "latest"
    ) -> dict[str, Any]:
        """Return the served signature of a model: its key, inputs and outputs, with shapes and types. In a shape, -1 is a free
        dimension; None as a whole means any rank."""
        return self._cache.get(model_name, model_version).signature.to_dict()

    def classic_signature(
        self, part: str, model_name: str | None = None, model_version: str | int | None = "latest"
    ) -> SignatureDefs:
        """Return the signature of a model as a map of SignatureDefs with inputs and outputs, for either part."""
        return SignatureDefs(self.signature(model_name, model_version))

    def preload(self) -> None:
        """Load all models, unless their number is limited. Raises StartError (ModelInvalid)."""
        with _as_start_error():
            super().preload()

    def close(self) -> None:
        """Release all models. In a server they stay loaded, for the other processes of this replica."""
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
    """Return the client, with its models loaded unless their number is limited.

    address: of TensorFlow Serving; None or "" runs models in this process. size, limit_bytes: limits of this process for models
    in memory. timeout: seconds for a prediction in the server. Raises StartError.
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
        # The server enforces the limits, since all processes share it; only signatures are cached here.
        limit = None if spec.cache_size is None and spec.cache_bytes is None else sys.maxsize
        cache = MemoryCache(store, load, size=limit, unload=backend.unload)
        store.in_memory(
            lambda: {version.stamp for version, model in cache.loaded() if backend.is_loaded(model)}
        )
        if not cache.is_limited:
            with _as_start_error():
                server.add_to_list(store.all_versions())
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
    # The server reads the folder of models, which contains <name>/<stamp>/<version>. Other pods may share it on a volume; each
    # has its own server, with its own name.
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
def _as_start_error() -> Iterator[None]:
    """Raise StartError instead of the 503 of a request, while the API starts."""
    try:
        yield
    except HTTPException as error:
        raise StartError("TensorFlowServingUnavailable", error.detail) from error
