"""`python_client`, also named `model_client`: returns the results of the user's `load_model`."""

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
    """A model in memory: the result of load_model."""

    version: Version
    model: Any


class PythonClient(CachingClient[LoadedModel]):
    """The models of one API. A single model is selected without a name, several by name."""

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
        """Return the result of load_model for a model.

        model_version: a number, or "latest", None or "" for the highest. Raises UserError for an unknown model or version, and
        LoadFailed if load_model has raised.
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
        """Raise, because only the handler knows how to run a Python model."""
        raise TypeError(
            "python_client has no method predict; get_model(name, version) returns the result of load_model"
        )

    def signature(
        self, model_name: str | None = None, model_version: str | int | None = "latest"
    ) -> dict[str, Any]:
        """Return no inputs and outputs, because those of a Python model are unknown."""
        return {"inputs": {}, "outputs": {}}
