"""TensorFlow Serving as the client sees it: what it has loaded, signatures, predictions.

TensorFlow Serving takes the whole list of what shall be loaded at once, and unloads the rest before it loads what is new. So
what is new joins the list first, and what it replaces leaves it once that is available. All processes of a replica share one
server and one list (servables.py), which changes under a file lock. The process that finds that the server lost it in a restart
sends it again.
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
"""How long a model may take to load, and the server to start."""
WATCH_SECONDS = 2.0
"""How often the server is asked whether it still has its models."""
_FIRST_POLL, _LONGEST_POLL = 0.01, 0.2
PATIENCE_SECONDS = 2.0
"""How long the server may take to answer at the start before the log says so."""
_QUICK_CALL = 10.0


class ModelServer:
    """One TensorFlow Serving.

    target: as gRPC names servers, host:port or unix:path. root: a folder of this replica, which the server sees as well.
    limits: what may be loaded at once; the least recently used leaves before something new comes.
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
        """Wait for the server; unload what is none of these versions. Raises StartError."""
        try:
            self._folder.root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StartError(
                "ModelsUnwritable",
                f"{self._folder.root} is for TensorFlow Serving's models, and can't be made: {error}",
            ) from error
        ready = grpc.channel_ready_future(self._stubs.channel)
        try:
            try:
                ready.result(timeout=PATIENCE_SECONDS)
            except grpc.FutureTimeoutError:
                log.info("waiting for TensorFlow Serving at %s", self._target)
                ready.result(timeout=LOAD_SECONDS)
        except grpc.FutureTimeoutError:
            raise StartError(
                "TensorFlowServingUnavailable",
                f"TensorFlow Serving does not answer at {self._target} ({TENSORFLOW_SERVING_VARIABLE})",
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
        """End the connection. What is loaded stays loaded, for the other processes."""
        self._closed.set()
        self._stubs.close()

    def has(self, version: Version) -> bool:
        """Whether a version is on the list of what shall be loaded."""
        return self._folder.has(self._folder.servable(version))

    def announce(self, versions: Collection[Version]) -> None:
        """Tell the server of several versions that `load` asks for next, so that it loads them at the same time."""
        end = time.monotonic() + LOAD_SECONDS
        with self._lock(end):
            new = [version for version in versions if not self.has(version)]
            for version in new:
                try:
                    self._folder.make(version)
                except OSError:
                    # `load` finds out, and tells whose files they are.
                    continue
            if new:
                self._send(end)

    def load(self, version: Version) -> Servable:
        """See that a version is available, and wait for it.

        Raises LoadFailed, with the server's words, and HTTPException when the server is away.
        """
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
                self._await(version, servable, end)
            except BaseException as error:
                self._folder.drop(servable)
                for other, path in aside.items():
                    path.rename(other.base_path)
                self._correct()
                if isinstance(error, OSError):
                    raise LoadFailed(
                        f"{_title(version)} can't be given to TensorFlow Serving: {error}"
                    ) from error
                raise
            for path in aside.values():
                shutil.rmtree(path, ignore_errors=True)
        return servable

    def unload(self, servable: Servable) -> None:
        """Unload a version; requests that run on it end first. What is not loaded is left alone."""
        with self._lock(time.monotonic() + LOAD_SECONDS):
            if self._folder.drop(servable):
                self._correct()

    def signatures(self, servable: Servable) -> dict[str, pb.SignatureDef]:
        """All signatures of a servable that is available. Raises NotLoaded."""
        request = pb.GetModelMetadataRequest(metadata_field=["signature_def"])
        _name(request.model_spec, servable)
        try:
            response = self._stubs.get_model_metadata(request, timeout=_QUICK_CALL)
        except grpc.RpcError as error:
            raise self._explained(error) from error
        # The type is matched by its end: what is packed in it is our own message of the same form.
        packed = response.metadata["signature_def"]
        if not packed.type_url.endswith("tensorflow.serving.SignatureDefMap"):
            raise ValueError(f"TensorFlow Serving answered with a {packed.type_url} for the signatures")
        return dict(pb.SignatureDefMap.FromString(packed.value).signature_def)

    def predict(
        self,
        servable: Servable,
        signature: Signature,
        feed: Mapping[str, np.ndarray],
        seconds: float,
    ) -> dict[str, np.ndarray]:
        """Outputs by name.

        seconds: the deadline. Raises UserError for what the model refuses, NotLoaded, and HTTPException 503 or 504 when the
        server is away, has too much to do or takes too long.
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
            raise self._explained(error) from error
        return {name: tensors.read(response.outputs[name]) for name in sorted(response.outputs)}

    def _make_room(self, version: Version, servable: Servable, end: float) -> dict[Servable, Path]:
        """Unload what has to leave for a version; where the files are, in case that it can't be loaded."""
        if not self._limited:
            return {}
        size = size_of(version.path)
        if self._limits.bytes is not None and size > self._limits.bytes:
            raise LoadFailed(
                f"{_title(version)} has {size} bytes, and models.cacheBytes allows {self._limits.bytes}"
            )
        held = [(other, size_of(other.base_path)) for other in self._folder.listing() if other != servable]
        aside = {other: self._folder.take(other) for other in self._limits.leaving(held, size)}
        if aside:
            self._send(end)
            for other in aside:
                self._await_end(other, end)
        return aside

    @contextmanager
    def _lock(self, end: float) -> Iterator[None]:
        def wait(pause: float) -> None:
            if time.monotonic() > end or self._closed.wait(pause):
                raise _away("models are being loaded")

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
            # UNKNOWN: one of the models could not be loaded. Which one, and why, is told by its status.
            if error.code() not in (grpc.StatusCode.UNKNOWN, grpc.StatusCode.DEADLINE_EXCEEDED):
                raise self._explained(error) from error

    def _correct(self) -> None:
        """Send a list from which something was taken; when the server is away, it gets the list when it is back."""
        try:
            self._send(time.monotonic() + LOAD_SECONDS)
        except (HTTPException, RuntimeError) as error:
            log.warning("TensorFlow Serving can't be told now what to unload: %s", error)

    def _await(self, version: Version, servable: Servable, end: float) -> None:
        for pause in backoff(_FIRST_POLL, _LONGEST_POLL):
            status = self._status(servable)
            if status is not None and status.state == pb.ModelVersionStatus.AVAILABLE:
                return
            # While it tries again, the state is LOADING.
            if status is not None and status.state == pb.ModelVersionStatus.END and status.status.error_code:
                words = status.status.error_message
                raise LoadFailed(f"failed to load {_title(version)} in TensorFlow Serving: {words}")
            if time.monotonic() > end:
                state = "UNKNOWN" if status is None else pb.ModelVersionStatus.State.Name(status.state)
                raise LoadFailed(
                    f"{_title(version)} was not loaded by TensorFlow Serving within {LOAD_SECONDS:g} s (state {state})"
                )
            time.sleep(pause)

    def _await_end(self, servable: Servable, end: float) -> None:
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
            raise self._explained(error) from error
        return response.model_version_status[0]

    def _watch(self) -> None:
        while not self._closed.wait(WATCH_SECONDS):
            try:
                if self._has_lost_all():
                    end = time.monotonic() + LOAD_SECONDS
                    with self._lock(end):
                        # Another process may have been quicker, or this one was loading just then.
                        if self._has_lost_all():
                            log.warning("TensorFlow Serving has lost its models; loading them again")
                            self._send(end)
            except (HTTPException, OSError, RuntimeError, ValueError) as error:
                # Away, or closed here: the next round finds it back. Requests are told meanwhile.
                log.debug("TensorFlow Serving can't be watched: %s", error)

    def _has_lost_all(self) -> bool:
        servables = self._folder.listing()
        return bool(servables) and all(self._status(servable) is None for servable in servables)

    def _explained(self, error: grpc.RpcError) -> Exception:
        """What a failed call means to the caller of an API."""
        code, details = error.code(), error.details() or ""
        if code is grpc.StatusCode.NOT_FOUND:
            return NotLoaded(details)
        if code is grpc.StatusCode.DEADLINE_EXCEEDED:
            return HTTPException(504, "TensorFlow Serving took longer than the request may take")
        if code in (
            grpc.StatusCode.UNAVAILABLE,
            grpc.StatusCode.RESOURCE_EXHAUSTED,
            grpc.StatusCode.CANCELLED,
        ):
            log.warning("TensorFlow Serving at %s: %s: %s", self._target, code.name, details)
            if "queue" in details:
                return _away("too many requests wait to be batched")
            return _away("it can't be reached" if code is grpc.StatusCode.UNAVAILABLE else "it is overloaded")
        return RuntimeError(f"TensorFlow Serving failed with {code.name}: {details}")


def _away(why: str) -> HTTPException:
    return HTTPException(503, f"TensorFlow Serving is not available: {why}", {"Retry-After": "1"})


def _name(spec: pb.ModelSpec, servable: Servable) -> None:
    spec.name = servable.name
    spec.version.value = servable.version


def _title(version: Version) -> str:
    return title(version.name, version.version)
