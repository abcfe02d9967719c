"""A TensorFlow Serving: the models that it has loaded, their signatures, and predictions.

TensorFlow Serving takes the whole list of models to load at once, and unloads all others before it loads new ones. So a new
model is added to the list first, and the model that it replaces is removed once the new one is available. All processes of a
replica share one server and one list (servables.py), which changes under a file lock. The process that finds that the server
has lost its models in a restart sends the list again.
"""

import logging
import shutil
import threading
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import grpc
import numpy as np
from starlette.exceptions import HTTPException

from cortex_api.contract import TENSORFLOW_SERVING_VARIABLE
from cortex_runtime.backoff import backoff
from cortex_runtime.clients.tfserving import serving_pb2 as pb
from cortex_runtime.clients.tfserving import tensors
from cortex_runtime.clients.tfserving.model import NotLoaded
from cortex_runtime.clients.tfserving.servables import LOCK, Limits, Servable, ServableFolder, size_of
from cortex_runtime.clients.tfserving.signature import Signature, invalid_input_text
from cortex_runtime.clients.tfserving.stubs import Stubs
from cortex_runtime.errors import StartError
from cortex_runtime.models.file_locks import locked
from cortex_runtime.models.repository import LoadFailed, Version, title

log = logging.getLogger("cortex")

LOAD_SECONDS = 600.0
"""Seconds that a model may take to load, and the server to start."""
WATCH_SECONDS = 2.0
"""Seconds between checks whether the server still has its models."""
_FIRST_POLL, _LONGEST_POLL = 0.01, 0.2
REPORT_WAITING_SECONDS = 2.0
"""Seconds without a response of a starting server after which the log reports it."""
_QUICK_CALL = 10.0


class ModelServer:
    """One TensorFlow Serving.

    target: its address for gRPC, host:port or unix:path. root: a folder of this replica that the server can read. limits: of
    loaded models; the least recently used is unloaded before a new one is loaded.
    """

    def __init__(self, target: str, root: Path, limits: Limits | None = None) -> None:
        self._stubs = Stubs(target)
        self._target = target
        self._folder = ServableFolder(root)
        self._limits = limits or Limits()
        self._limited = self._limits != Limits()
        self._closed = threading.Event()
        self._watcher = threading.Thread(target=self._watch, name="model-server-watch", daemon=True)

    def open(self, versions: Collection[Version]) -> None:
        """Wait for the server, and unload everything except these versions. Raises StartError."""
        try:
            self._folder.root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StartError(
                "ModelsUnwritable",
                f"failed to create {self._folder.root} for the models of TensorFlow Serving: {error}",
            ) from error
        ready = grpc.channel_ready_future(self._stubs.channel)
        try:
            try:
                ready.result(timeout=REPORT_WAITING_SECONDS)
            except grpc.FutureTimeoutError:
                log.info("waiting for TensorFlow Serving at %s", self._target)
                ready.result(timeout=LOAD_SECONDS)
        except grpc.FutureTimeoutError:
            raise StartError(
                "TensorFlowServingUnavailable",
                f"TensorFlow Serving does not respond at {self._target} ({TENSORFLOW_SERVING_VARIABLE})",
            ) from None
        finally:
            ready.cancel()
        wanted = {self._folder.servable(version).name for version in versions}
        end = time.monotonic() + LOAD_SECONDS
        with self._lock(end):
            self._folder.prepare()
            dropped = [self._folder.drop(s) for s in self._folder.listing() if s.name not in wanted]
            if dropped:
                self._send(end)
        self._watcher.start()

    def close(self) -> None:
        """Close the connection. Models stay loaded, for the other processes."""
        self._closed.set()
        self._stubs.close()

    def has(self, version: Version) -> bool:
        """Return whether a version is in the list of models to load."""
        return self._folder.has(self._folder.servable(version))

    def add_to_list(self, versions: Collection[Version]) -> None:
        """Add several versions to the list before `load` is called for each, so that the server loads them concurrently."""
        end = time.monotonic() + LOAD_SECONDS
        with self._lock(end):
            new = [version for version in versions if not self.has(version)]
            for version in new:
                try:
                    self._folder.make(version)
                except OSError:
                    # `load` finds the cause, and reports whose files they are.
                    continue
            if new:
                self._send(end)

    def load(self, version: Version) -> Servable:
        """Load a version, and wait until it is available. Raises LoadFailed with the server's message, and HTTPException if the
        server is unavailable."""
        end = time.monotonic() + LOAD_SECONDS
        servable = self._folder.servable(version)
        with self._lock(end):
            if self._folder.has(servable):
                self._folder.touch(servable)
                if self._available(servable):
                    return servable
            aside = self._make_room(version, servable, end)
            try:
                self._folder.make(version)
                self._send(end)
                self._wait_until_available(version, servable, end)
            except BaseException as error:
                self._folder.drop(servable)
                for other, path in aside.items():
                    path.rename(other.base_path)
                self._send_if_available()
                if isinstance(error, OSError):
                    raise LoadFailed(
                        f"failed to link the files of {_describe(version)} for TensorFlow Serving: {error}"
                    ) from error
                raise
            for path in aside.values():
                shutil.rmtree(path, ignore_errors=True)
        return servable

    def unload(self, servable: Servable) -> None:
        """Unload a version after its running requests. Does nothing for a version that is not loaded."""
        with self._lock(time.monotonic() + LOAD_SECONDS):
            if self._folder.drop(servable):
                self._send_if_available()

    def signatures(self, servable: Servable) -> dict[str, pb.SignatureDef]:
        """Return all signatures of an available servable. Raises NotLoaded."""
        request = pb.GetModelMetadataRequest(metadata_field=["signature_def"])
        _name(request.model_spec, servable)
        try:
            response = self._stubs.get_model_metadata(request, timeout=_QUICK_CALL)
        except grpc.RpcError as error:
            raise self._translate_error(error) from error
        # Compared by its end: the packed message is our own, of the same form.
        packed = response.metadata["signature_def"]
        if not packed.type_url.endswith("tensorflow.serving.SignatureDefMap"):
            raise ValueError(f"TensorFlow Serving returned {packed.type_url} instead of signatures")
        return dict(pb.SignatureDefMap.FromString(packed.value).signature_def)

    def predict(
        self,
        servable: Servable,
        signature: Signature,
        feed: Mapping[str, np.ndarray],
        seconds: float,
    ) -> dict[str, np.ndarray]:
        """Return outputs by name. seconds: the deadline.

        Raises UserError for an input that the model refuses, NotLoaded, and HTTPException 503 or 504 if the server is
        unavailable, overloaded or too slow.
        """
        if self._limited:
            try:
                self._folder.touch(servable)
            except FileNotFoundError:
                raise NotLoaded(f"{servable.name} was unloaded") from None
        request = pb.PredictRequest()
        _name(request.model_spec, servable)
        request.model_spec.signature_name = signature.key
        for name, array in feed.items():
            tensors.write(array, signature.inputs[name].dtype, request.inputs[name])
        try:
            response = self._stubs.predict(request, timeout=seconds)
        except grpc.RpcError as error:
            if error.code() is grpc.StatusCode.INVALID_ARGUMENT:
                raise invalid_input_text(error.details()) from error
            raise self._translate_error(error) from error
        return {name: tensors.read(response.outputs[name]) for name in sorted(response.outputs)}

    def _make_room(self, version: Version, servable: Servable, end: float) -> dict[Servable, Path]:
        """Unload models to make room for a version. Return the paths of their files, which are needed if the load fails."""
        if not self._limited:
            return {}
        size = size_of(version.path)
        if self._limits.bytes is not None and size > self._limits.bytes:
            raise LoadFailed(
                f"{_describe(version)} has {size} bytes; models.cacheBytes allows {self._limits.bytes}"
            )
        held = [(other, size_of(other.base_path)) for other in self._folder.listing() if other != servable]
        aside = {other: self._folder.take(other) for other in self._limits.leaving(held, size)}
        if aside:
            self._send(end)
            for other in aside:
                self._wait_until_unloaded(other, end)
        return aside

    @contextmanager
    def _lock(self, end: float) -> Iterator[None]:
        def wait(pause: float) -> None:
            if time.monotonic() > end or self._closed.wait(pause):
                raise _unavailable("models are being loaded")

        with locked(self._folder.root / LOCK, wait=wait):
            yield

    def _send(self, end: float) -> None:
        request = pb.ReloadConfigRequest()
        configs = request.config.model_config_list
        configs.SetInParent()
        for servable in sorted(self._folder.listing(), key=lambda servable: servable.name):
            base_path = str(servable.base_path.absolute())
            config = configs.config.add(name=servable.name, base_path=base_path, model_platform="tensorflow")
            config.model_version_policy.specific.versions.append(servable.version)
        try:
            self._stubs.reload_config(request, timeout=max(1.0, end - time.monotonic()))
        except grpc.RpcError as error:
            # UNKNOWN: a model could not be loaded. Its status has the cause.
            if error.code() not in (grpc.StatusCode.UNKNOWN, grpc.StatusCode.DEADLINE_EXCEEDED):
                raise self._translate_error(error) from error

    def _send_if_available(self) -> None:
        """Send a shortened list. An unavailable server gets the list when it is back."""
        try:
            self._send(time.monotonic() + LOAD_SECONDS)
        except (HTTPException, RuntimeError) as error:
            log.warning(
                "failed to unload models from TensorFlow Serving; retrying when it responds: %s", error
            )

    def _wait_until_available(self, version: Version, servable: Servable, end: float) -> None:
        for pause in backoff(_FIRST_POLL, _LONGEST_POLL):
            status = self._status(servable)
            if status is not None and status.state == pb.ModelVersionStatus.AVAILABLE:
                return
            # The state is LOADING again while the server retries.
            if status is not None and status.state == pb.ModelVersionStatus.END and status.status.error_code:
                words = status.status.error_message
                raise LoadFailed(f"failed to load {_describe(version)} in TensorFlow Serving: {words}")
            if time.monotonic() > end:
                state = "UNKNOWN" if status is None else pb.ModelVersionStatus.State.Name(status.state)
                raise LoadFailed(
                    f"{_describe(version)} was not loaded by TensorFlow Serving within {LOAD_SECONDS:g} s (state {state})"
                )
            time.sleep(pause)

    def _wait_until_unloaded(self, servable: Servable, end: float) -> None:
        for pause in backoff(_FIRST_POLL, _LONGEST_POLL):
            status = self._status(servable)
            if status is None or status.state == pb.ModelVersionStatus.END or time.monotonic() > end:
                return
            time.sleep(pause)

    def _available(self, servable: Servable) -> bool:
        status = self._status(servable)
        return status is not None and status.state == pb.ModelVersionStatus.AVAILABLE

    def _status(self, servable: Servable) -> pb.ModelVersionStatus | None:
        request = pb.GetModelStatusRequest()
        _name(request.model_spec, servable)
        try:
            response = self._stubs.get_model_status(request, timeout=_QUICK_CALL)
        except grpc.RpcError as error:
            if error.code() is grpc.StatusCode.NOT_FOUND:
                return None
            raise self._translate_error(error) from error
        return response.model_version_status[0]

    def _watch(self) -> None:
        while not self._closed.wait(WATCH_SECONDS):
            try:
                if self._has_restarted():
                    end = time.monotonic() + LOAD_SECONDS
                    with self._lock(end):
                        # Another process may have sent it already, or this process was loading.
                        if self._has_restarted():
                            log.warning("TensorFlow Serving has lost its models; loading them again")
                            self._send(end)
            except (HTTPException, OSError, RuntimeError, ValueError) as error:
                # The server is unavailable, or this client was closed. The next check detects a server that is back; requests
                # fail meanwhile.
                log.debug("failed to check the models of TensorFlow Serving: %s", error)

    def _has_restarted(self) -> bool:
        servables = self._folder.listing()
        return bool(servables) and all(self._status(servable) is None for servable in servables)

    def _translate_error(self, error: grpc.RpcError) -> Exception:
        """Return the error of a request whose call has failed."""
        code, details = error.code(), error.details() or ""
        if code is grpc.StatusCode.NOT_FOUND:
            return NotLoaded(details)
        if code is grpc.StatusCode.DEADLINE_EXCEEDED:
            return HTTPException(504, "TensorFlow Serving did not respond in time")
        if code in (
            grpc.StatusCode.UNAVAILABLE,
            grpc.StatusCode.RESOURCE_EXHAUSTED,
            grpc.StatusCode.CANCELLED,
        ):
            log.warning("TensorFlow Serving at %s: %s: %s", self._target, code.name, details)
            if "queue" in details:
                return _unavailable("too many requests wait to be batched")
            return _unavailable(
                "it can't be reached" if code is grpc.StatusCode.UNAVAILABLE else "it is overloaded"
            )
        return RuntimeError(f"TensorFlow Serving failed with {code.name}: {details}")


def _unavailable(why: str) -> HTTPException:
    return HTTPException(503, f"TensorFlow Serving is not available: {why}", {"Retry-After": "1"})


def _name(spec: pb.ModelSpec, servable: Servable) -> None:
    spec.name = servable.name
    spec.version.value = servable.version


def _describe(version: Version) -> str:
    return title(version.name, version.version)
