"""SavedModels in TensorFlow Serving."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager

import numpy as np
from starlette.exceptions import HTTPException

from cortex_runtime.clients.tfserving import tensors
from cortex_runtime.clients.tfserving.model import Model, NotLoaded
from cortex_runtime.clients.tfserving.servables import Servable
from cortex_runtime.clients.tfserving.server import ModelServer
from cortex_runtime.clients.tfserving.signature import check, choose_key
from cortex_runtime.errors import StartError
from cortex_runtime.models.disk_cache import DiskCacheFull
from cortex_runtime.models.repository import Version
from cortex_runtime.models.sources.base import Changed

_LOAD_ATTEMPTS = 5


class RemoteBackend:
    """Loads and runs models in a server. reading: keeps the files of a version while they are passed to the server. timeout:
    seconds for a prediction."""

    def __init__(
        self,
        server: ModelServer,
        reading: Callable[[Version], AbstractContextManager[None]],
        timeout: float,
    ) -> None:
        self._server = server
        self._reading = reading
        self._timeout = timeout

    def load(self, version: Version, key: str | None) -> Model[Servable]:
        """Load a version in the server. key: of its signature, if configured.

        Raises LoadFailed, StartError for a signature that cannot be served, and HTTPException if the server is unavailable.
        """
        for _ in range(_LOAD_ATTEMPTS):
            servable = self._server.load(version)
            try:
                signatures = self._server.signatures(servable)
                chosen = choose_key(signatures, key)
                signature = check(tensors.signature(chosen, signatures[chosen]))
            except NotLoaded:
                continue  # Another process has evicted it in the meantime, to load another model.
            except (StartError, ValueError):
                self._server.unload(servable)
                raise
            return Model(version, signature, servable)
        raise HTTPException(503, "TensorFlow Serving repeatedly unloaded the model", {"Retry-After": "1"})

    def predict(self, model: Model[Servable], feed: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return outputs by name. Raises UserError, NotLoaded, and HTTPException if the server is unavailable."""
        return self._server.predict(model.handle, model.signature, feed, self._timeout)

    def load_again(self, model: Model[Servable]) -> None:
        """Load a model again that the server has unloaded, for another model or by a restart. Raises LoadFailed; and NotLoaded
        if its files were replaced by those of a successor."""
        if self._server.has(model.version):
            self._server.load(model.version)
            return
        try:
            with self._reading(model.version):
                self._server.load(model.version)
        except (Changed, DiskCacheFull) as error:
            raise NotLoaded(f"{model.handle.name} is no longer loaded") from error

    def unload(self, model: Model[Servable]) -> None:
        """Unload a model that is no longer needed."""
        self._server.unload(model.handle)

    def is_loaded(self, model: Model[Servable]) -> bool:
        """Return whether the server has the model, as far as the processes of this replica know."""
        return self._server.has(model.version)

    def close(self) -> None:
        """Close the connection."""
        self._server.close()
