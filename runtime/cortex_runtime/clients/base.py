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

    @property
    def is_single(self) -> bool:
        """Whether the API has one model, which clients do not name."""
        return self._store.single is not None

    def versions(self, name: str) -> list[int]:
        """Return the versions of a model, in order; none for an unknown name."""
        return self._store.versions(name)

    def loaded(self, name: str | None = None, version: str | int | None = None) -> T:
        """Return a model in memory; it is loaded if necessary. Raises what `predict` raises for an unknown or invalid model."""
        return self._cache.get(name, version)

    def is_ready(self, name: str | None = None, version: str | int | None = None) -> bool:
        """Return whether a model is in memory, or is loaded on demand. Raises UserError for an unknown name or version."""
        versions = self._store.candidates(name, version)
        if self._cache.is_limited:
            return True
        held = {(held.name, held.version): model for held, model in self._cache.loaded()}
        keys = [(version.name, version.version) for version in versions]
        return any(key in held and self._is_loaded(held[key]) for key in keys)

    def describe(self, model: T) -> dict[str, Any]:
        """Return the signature of a model in memory, as `signature` does."""
        return self._signature_of(model)

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
