"""The models that clients have unloaded (handler.protocols.repository), for all workers of a replica.

The names are in a file of the folder of models. The worker that changes it notifies the supervisor, which notifies all
workers to read it again. A worker that restarts reads it too.
"""

import json
import logging
import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from cortex_runtime.models.file_locks import locked

log = logging.getLogger("cortex")

_FILE = "unloaded.json"


class UnloadedModels:
    """The names that this worker has read. folder: of models. announce: notifies the supervisor that the file has changed."""

    def __init__(self, folder: Path, announce: Callable[[], None]) -> None:
        self._path = folder / _FILE
        self._announce = announce
        self.names: frozenset[str] = frozenset()
        self.refresh()

    def refresh(self) -> None:
        """Read the file."""
        try:
            self.names = frozenset(json.loads(self._path.read_bytes()))
        except FileNotFoundError:
            self.names = frozenset()
        except (OSError, ValueError) as error:
            log.error("failed to read which models are unloaded: %s", error)

    def add(self, name: str) -> None:
        """Unload a model in all workers."""
        self._change(lambda names: {*names, name})

    def remove(self, name: str) -> None:
        """Load a model again in all workers."""
        self._change(lambda names: set(names) - {name})

    def _change(self, change: Callable[[Iterable[str]], set[str]]) -> None:
        with locked(self._path.with_suffix(".lock"), wait=time.sleep):
            self.refresh()
            changed = frozenset(change(self.names))
            temporary = self._path.with_suffix(f".{os.getpid()}")
            temporary.write_text(json.dumps(sorted(changed)))
            temporary.replace(self._path)
            self.names = changed
        self._announce()
