"""`python_client`, also named `model_client`: hands out what the user's `load_model` has made of each model."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from cortex_runtime.clients import say_served
from cortex_runtime.models.cache import Cache
from cortex_runtime.models.store import Store, Version


@dataclass(frozen=True)
class Loaded:
    """A model in memory: whatever load_model returned."""

    version: Version
    model: Any


class PythonClient:
    """The models of one API. A single model has no name to give; several are asked for by name."""

    argument = "python_client"
    may_wait = True

    def __init__(
        self,
        store: Store,
        load_model: Callable[[str], Any],
        *,
        size: int | None = None,
        limit_bytes: int | None = None,
    ) -> None:
        self._store = store
        self._cache: Cache[Loaded] = Cache(
            store,
            lambda version: Loaded(version, load_model(str(version.path))),
            size=size,
            limit_bytes=limit_bytes,
        )

    def get_model(self, model_name: str | None = None, model_version: str | int | None = "latest") -> Any:
        """What load_model returned for a model. model_version: a number, or "latest", None or "" for the highest.

        Raises UserError for an unknown model or version, and LoadFailed when load_model raised.
        """
        loaded = self._cache.get(model_name, model_version)
        say_served(loaded.version.name, loaded.version.version)
        return loaded.model

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

    def info(self) -> list[dict[str, Any]]:
        """Names, versions and what is loaded for GET /info."""
        loaded = {(version.name, version.version) for version, _ in self._cache.loaded()}
        return [
            {
                "name": None if self._store.single else name,
                "versions": [str(number) for number in self._store.versions(name)],
                "loaded": [str(number) for number in self._store.versions(name) if (name, number) in loaded],
            }
            for name in self._store.names()
        ]

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

    def failures(self) -> dict[str, int]:
        """How often load_model has raised, by model."""
        return dict(self._cache.failures)

    def close(self) -> None:
        """Let go of all models."""
        self._cache.close()
