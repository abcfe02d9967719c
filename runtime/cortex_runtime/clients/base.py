"""What the three clients have in common: the models of one store, in one cache."""

from typing import Any, Generic, TypeVar

from cortex_runtime.models.memory_cache import MemoryCache
from cortex_runtime.models.repository import ModelRepository

T = TypeVar("T")


class CachingClient(Generic[T]):
    """The part of a `Client` that is the same for all types of models. T: a model in memory."""

    def __init__(self, store: ModelRepository, cache: MemoryCache[T]) -> None:
        self._store = store
        self._cache = cache

    def names(self) -> list[str]:
        """Return the names of all models; of a single model the name that it has inside."""
        return self._store.names()

    def info(self) -> list[dict[str, Any]]:
        """Names, versions, what is loaded, and the signature of the highest version in memory, for GET /info."""
        held: dict[str, dict[int, T]] = {}
        for version, model in self._cache.loaded():
            held.setdefault(version.name, {})[version.version] = model
        entries = []
        for name in self._store.names():
            models = held.get(name, {})
            loaded = [number for number in sorted(models) if self._is_loaded(models[number])]
            entries.append(
                {
                    "name": None if self._store.single else name,
                    "versions": [str(number) for number in self._store.versions(name)],
                    "loaded": [str(number) for number in loaded],
                    **(self._signature_of(models[max(models)]) if models else {}),
                }
            )
        return entries

    def preload(self) -> None:
        """Load all models, when no limit stands against it. Raises StartError (ModelInvalid)."""
        self._cache.preload()

    def refresh(self) -> None:
        """Follow the index of models."""
        if self._store.refresh():
            self._cache.refresh()

    def problems(self) -> dict[str, str]:
        """What is wrong with models now, by model."""
        return self._cache.problems()

    def close(self) -> None:
        """Let go of all models."""
        self._cache.close()

    def _is_loaded(self, model: T) -> bool:
        return True

    def _signature_of(self, model: T) -> dict[str, Any]:
        return {}
