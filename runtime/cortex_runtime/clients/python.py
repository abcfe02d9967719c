"""`python_client`, also named `model_client`: hands out what the user's `load_model` has made of each model."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from cortex_runtime.clients import record_version
from cortex_runtime.clients.base import CachingClient
from cortex_runtime.errors import StartError
from cortex_runtime.models.memory_cache import MemoryCache
from cortex_runtime.models.repository import LoadFailed, ModelRepository, Version


@dataclass(frozen=True)
class LoadedModel:
    """A model in memory: whatever load_model returned."""

    version: Version
    model: Any


class PythonClient(CachingClient[LoadedModel]):
    """The models of one API. A single model has no name to give; several are asked for by name."""

    argument = "python_client"
    may_wait = True

    def __init__(
        self,
        store: ModelRepository,
        load_model: Callable[[str], Any],
        *,
        size: int | None = None,
        limit_bytes: int | None = None,
    ) -> None:
        def load(version: Version) -> LoadedModel:
            return LoadedModel(version, load_model(str(version.path)))

        super().__init__(store, MemoryCache(store, load, size=size, limit_bytes=limit_bytes))

    def get_model(self, model_name: str | None = None, model_version: str | int | None = "latest") -> Any:
        """What load_model returned for a model. model_version: a number, or "latest", None or "" for the highest.

        Raises UserError for an unknown model or version, and LoadFailed when load_model raised.
        """
        loaded = self._cache.get(model_name, model_version)
        record_version(loaded.version.name, loaded.version.version)
        return loaded.model

    def path(self) -> str:
        """Return the local path of the latest version of the only model, a file or a folder. Raises StartError."""
        try:
            return str(self._store.find().path)
        except LoadFailed as error:
            raise StartError("ModelNotFound", str(error)) from error

    def predict(
        self, model_input: Any, model_name: str | None = None, model_version: str | int | None = "latest"
    ) -> Any:
        """Not for Python models: only the handler knows what to call."""
        raise TypeError(
            "python_client has no predict; get_model(name, version) gives what load_model returned"
        )

    def signature(
        self, model_name: str | None = None, model_version: str | int | None = "latest"
    ) -> dict[str, Any]:
        """Nothing is known of the inputs of a Python model."""
        return {"inputs": {}, "outputs": {}}
