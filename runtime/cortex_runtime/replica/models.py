"""The models of a replica: downloaded before the workers start, polled for changes, and counted where they fail."""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from cortex_api import Document
from cortex_runtime.errors import Stopped
from cortex_runtime.models.sync import ModelSync

log = logging.getLogger("cortex")


class ReplicaModels:
    """The models of an API; it may have none. models: folder for downloaded models. project: folder of the code."""

    def __init__(self, document: Document, models: Path, project: Path) -> None:
        self._sync: ModelSync | None = None
        if document.spec.handler.models is not None:
            self._sync = ModelSync(document, models, project)
        self._lock = asyncio.Lock()
        self._load_failures: Counter[str] = Counter()

    @property
    def has_project_files(self) -> bool:
        """Whether models are files of the project, which change with it."""
        return self._sync is not None and self._sync.has_project_files

    async def start(self, on_step: Callable[[str], None]) -> None:
        """Download the models that must exist before the workers start. Raises StartError and Stopped.

        on_step: called with the description of the step.
        """
        if self._sync is not None:
            on_step("looking for models")
            async with self._lock:
                await asyncio.to_thread(self._sync.start)

    async def poll(self, on_change: Callable[[], None]) -> None:
        """Poll the locations of the models until `stop`, if they may change. on_change: called after each change."""
        sync = self._sync
        while sync is not None and sync.interval:
            await asyncio.sleep(sync.interval)
            try:
                async with self._lock:
                    changed = await asyncio.to_thread(sync.poll)
            except Stopped:
                return
            except Exception:
                log.exception("failed to poll the models for changes; the current versions stay in use")
                continue
            if changed:
                on_change()

    def stop(self) -> None:
        """End running downloads, which then raise Stopped."""
        if self._sync is not None:
            self._sync.stop()

    def status(self) -> str:
        """Return which models are being downloaded, with the progress; an empty text if none is."""
        return "" if self._sync is None else self._sync.status()

    def count_load_failure(self, model: str) -> None:
        """Count a model that a worker could not load."""
        self._load_failures[model] += 1

    def failures(self) -> dict[str, int]:
        """Return how often each model could not be downloaded or loaded."""
        return dict(self._load_failures + (Counter() if self._sync is None else self._sync.failures))
