"""The responses of the protocol, for every transport: health, metadata and inference of the models of one worker."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from pathlib import Path
from time import perf_counter
from typing import Any

from cortex_api import __version__
from cortex_runtime.errors import UserError
from cortex_runtime.inference.messages import InferRequest, InferResponse
from cortex_runtime.inference.models import Models
from cortex_runtime.inference.unloaded import UnloadedModels
from cortex_runtime.metrics.series import NamedSeries
from cortex_runtime.metrics.tracker import Tracker

DURATION = "cortex_inference_duration_seconds"
"""Seconds of successful inferences, with labels model and version."""
_TRACKED = 1000
"""Elements of an output that the tracker counts."""

LARGE = 2 * 1024 * 1024
"""Bytes of a request or a response from which on it is converted in a thread: at most some 0.1 s of the event loop are used, also
for the datatype that takes longest, BYTES."""

Call = Callable[[InferRequest, Any], Awaitable[InferResponse]]
"""Calls the models' method. The second argument is the ASGI `receive` of the request; None where it has none."""


async def convert(size: int, function: Callable[..., Any], *arguments: Any) -> Any:
    """Return the result of a function that converts tensors, in a thread if it may take long. size: bytes of the tensors."""
    if size > LARGE:
        return await asyncio.to_thread(function, *arguments)
    return function(*arguments)


class InferenceService:
    """Answers for the models of one worker.

    call: calls `models.method` as the worker calls its methods, within the request timeout. series: where durations are recorded.
    has_repository: whether clients may list, load and unload models.
    """

    def __init__(
        self,
        models: Models,
        call: Call,
        series: NamedSeries,
        *,
        tracker: Tracker | None = None,
        has_repository: bool = False,
    ) -> None:
        self._models = models
        self._call = call
        self._series = series
        self._tracker = tracker
        self._labels: dict[tuple[str, str], dict[str, str]] = {}
        self.has_repository = has_repository
        self.draining = False

    def open_repository(self, folder: Path, announce: Callable[[], None]) -> None:
        """Let clients load and unload models. folder: of models. announce: called after a change, for the other workers."""
        self._models.unloaded = UnloadedModels(folder, announce)
        self._models.release_unloaded()

    def server_metadata(self) -> dict[str, Any]:
        """Return name, version and extensions of the server."""
        extensions = ["binary_tensor_data", "parameters"]
        if self.has_repository:
            extensions.append("model_repository")
        return {"name": "cortex", "version": __version__, "extensions": extensions}

    async def model_metadata(self, name: str, version: str) -> dict[str, Any]:
        """Return what a model takes and returns. Raises UserError with status 404, and what loading the model raises."""
        versions = self._models.versions(name)
        # The model may have to be loaded, or described by another server.
        signature = await asyncio.to_thread(self._models.signature, name, version)
        return {
            "name": name,
            "versions": versions,
            "platform": self._models.platform,
            **signature.metadata(),
        }

    def signatures(self) -> dict[str, Any]:
        """Return inputs and outputs of each model, of its latest version. They are missing if it cannot be loaded."""
        found: dict[str, Any] = {}
        for name in self._models.names():
            found[name] = {}
            with suppress(Exception):
                found[name] = self._models.signature(name, "").metadata()
        return found

    def model_ready(self, name: str, version: str) -> bool:
        """Return whether a request for a model would be answered. Raises UserError with status 404 for an unknown model."""
        return not self.draining and not self._is_unloaded(name) and self._models.is_ready(name, version)

    async def load(self, name: str, parameters: Iterable[str]) -> None:
        """Load a model again. parameters: names that the client sends. Raises UserError, and what loading raises."""
        if given := list(parameters):
            raise UserError(
                f"a model is loaded from handler.models; parameter {given[0]!r:.40} is not supported"
            )
        await asyncio.to_thread(self._models.load, name)

    async def unload(self, name: str) -> None:
        """Answer no more requests for a model. Raises UserError."""
        await asyncio.to_thread(self._models.unload, name)

    def refresh(self) -> None:
        """Read again which models are unloaded."""
        if self._models.unloaded is not None:
            self._models.unloaded.refresh()
            self._models.release_unloaded()

    def _is_unloaded(self, name: str) -> bool:
        unloaded = self._models.unloaded
        return unloaded is not None and name in unloaded.names

    def repository_index(self, only_ready: bool) -> list[dict[str, str]]:
        """Return all versions of all models with their states."""
        entries = []
        for name in self._models.names():
            for version in self._models.versions(name):
                unloaded = self._is_unloaded(name)
                ready = not unloaded and self._models.is_ready(name, version)
                if ready or not only_ready:
                    state, reason = ("READY" if ready else "UNAVAILABLE"), ("unloaded" if unloaded else "")
                    entries.append({"name": name, "version": version, "state": state, "reason": reason})
        return entries

    async def infer(self, request: InferRequest, receive: Any = None) -> InferResponse:
        """Return the response of a model. Raises UserError, and what the model or its call raises."""
        began = perf_counter()
        response = await self._call(request, receive)
        self.record(response, perf_counter() - began)
        return response

    def record(self, response: InferResponse, seconds: float) -> None:
        """Count a successful inference and its predictions."""
        key = response.model, response.version
        labels = self._labels.get(key)
        if labels is None:
            labels = self._labels[key] = {"model": response.model, "version": response.version}
        self._series.observe(DURATION, labels, seconds)
        if self._tracker is not None:
            self._track(self._tracker, response)

    def _track(self, tracker: Tracker, response: InferResponse) -> None:
        """Count each element of the tracked output: that with the tracker's key as name, or the only one."""
        key = tracker.key
        for tensor in response.outputs:
            if tensor.name == key or (key is None and len(response.outputs) == 1):
                for value in tensor.array.reshape(-1)[:_TRACKED].tolist():
                    value = value.decode(errors="replace") if isinstance(value, bytes) else value
                    tracker.note(value if key is None else {key: value})
                return
        tracker.note({tensor.name: None for tensor in response.outputs})
