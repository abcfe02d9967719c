"""The part that all clients have in common: a cache of the models of one repository."""

from typing import Any, Generic, TypeVar

from cortex_runtime.models.memory_cache import MemoryCache
from cortex_runtime.models.repository import ModelRepository

T = TypeVar("T")


class CachingClient(Generic[T]):
    """The methods of a `Client` that do not depend on the type of the models. T: a model in memory."""

    def __init__(self, store: ModelRepository, cache: MemoryCache[T]) -> None:
        self._store = store
        self._cache = cache

    def names(self) -> list[str]:
        """Return the names of all models; a single model has an internal name."""
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

    def evict(self, name: str) -> None:
        """Release the versions of a model in memory. The next request for it loads it again."""
        self._cache.evict(name)

    def describe(self, model: T) -> dict[str, Any]:
        """Return the signature of a model in memory, as `signature` does."""
        return self._signature_of(model)

    def info(self) -> list[dict[str, Any]]:
        """Return names, versions, loaded versions and the signature of the highest loaded version, for GET /info.

        For versions in the memory of this process, "memory" has the bytes by which it grew when they were loaded, if known.
        """
        growth = self._cache.growth()
        held: dict[str, dict[int, T]] = {}
        for version, model in self._cache.loaded():
            held.setdefault(version.name, {})[version.version] = model
        entries = []
        for name in self._store.names():
            models = held.get(name, {})
            loaded = [number for number in sorted(models) if self._is_loaded(models[number])]
            memory = {str(number): growth[name, number] for number in loaded if (name, number) in growth}
            entries.append(
                {
                    "name": None if self._store.single else name,
                    "versions": [str(number) for number in self._store.versions(name)],
                    "loaded": [str(number) for number in loaded],
                    **({"memory": memory} if memory and self._is_in_process else {}),
                    **(self._signature_of(models[max(models)]) if models else {}),
                }
            )
        return entries

    def preload(self) -> None:
        """Load all models, unless their number is limited. Raises StartError (ModelInvalid)."""
        self._cache.preload()

    def refresh(self) -> None:
        """Apply the changed index of the models."""
        if self._store.refresh():
            self._cache.refresh()

    def problems(self) -> dict[str, str]:
        """Return the current problems by model."""
        return self._cache.problems()

    def close(self) -> None:
        """Release all models."""
        self._cache.close()

    @property
    def _is_in_process(self) -> bool:
        """Whether the models are in the memory of this process."""
        return True

    def _is_loaded(self, model: T) -> bool:
        return True

    def _signature_of(self, model: T) -> dict[str, Any]:
        return {}
