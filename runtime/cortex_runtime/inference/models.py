"""The models that an API serves over the protocol: those of its ONNX or TensorFlow client, or its handler's `handle_infer`.

Each view has a `Method` that takes a request and returns its response, to be called like any method of the handler.
"""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np

from cortex_runtime.clients import served
from cortex_runtime.errors import StartError, UserError
from cortex_runtime.handler.interfaces import Form, Method
from cortex_runtime.handler.loaded_handler import LoadedHandler
from cortex_runtime.inference.datatypes import BF16, datatype_of
from cortex_runtime.inference.messages import InferRequest, InferResponse, Tensor
from cortex_runtime.inference.signature import Signature, by_name, declared
from cortex_runtime.inference.unloaded import UnloadedModels


class Models(Protocol):
    """What the services need of models. Names and versions are the clients'; version "" is the latest."""

    platform: str
    method: Method
    """Takes `request`, an InferRequest, and returns an InferResponse. Raises UserError and what the model raises."""
    unloaded: UnloadedModels | None
    """The models that clients have unloaded; None where they cannot."""

    def names(self) -> list[str]:
        """Return the names of all models."""

    def versions(self, name: str) -> list[str]:
        """Return the versions of a model. Raises UserError with status 404 for an unknown name."""

    def signature(self, name: str, version: str) -> Signature:
        """Return what a model takes and returns; it is loaded for that. Raises UserError with status 404."""

    def is_ready(self, name: str, version: str) -> bool:
        """Return whether a request for a model would be answered. Raises UserError with status 404."""

    def load(self, name: str) -> None:
        """Load a model that was unloaded. Raises UserError, and what loading it raises."""

    def unload(self, name: str) -> None:
        """Answer no more requests for a model. Raises UserError."""

    def release_unloaded(self) -> None:
        """Release the memory of the models that are unloaded."""


class _ClientModels:
    """The models of a client. A single model has no name inside; clients call it by the name of the API."""

    def __init__(self, client: Any, api: str) -> None:
        self._client = client
        self._api = api
        self._single = client.is_single
        self._signatures: dict[tuple[str, int], tuple[Any, Signature]] = {}
        self.unloaded: UnloadedModels | None = None
        self.method = Method(self._infer, ("request",), is_async=False)

    def names(self) -> list[str]:
        return [self._api] if self._single else list(self._client.names())

    def versions(self, name: str) -> list[str]:
        if name not in self.names():
            raise _unknown(name, self.names())
        inside = self._client.names()[0] if self._single else name
        return [str(number) for number in self._client.versions(inside)]

    def load(self, name: str) -> None:
        """Load a model that a client has unloaded. Raises UserError with status 404, and what loading it raises."""
        assert self.unloaded is not None
        self.versions(name)
        self._client.loaded(None if self._single else name)
        self.unloaded.remove(name)

    def unload(self, name: str) -> None:
        """Answer no more requests for a model until `load`, and release its memory. Raises UserError with status 404."""
        assert self.unloaded is not None
        self.versions(name)
        self.unloaded.add(name)
        self.release_unloaded()

    def release_unloaded(self) -> None:
        """Release the memory of the models that are unloaded."""
        for name in self.names():
            if self.unloaded is not None and name in self.unloaded.names:
                self._client.evict(self._client.names()[0] if self._single else name)

    def signature(self, name: str, version: str) -> Signature:
        return self._signature_of(self._client.loaded(self._inside(name), version))

    def is_ready(self, name: str, version: str) -> bool:
        return bool(self._client.is_ready(self._inside(name), version))

    def _inside(self, name: str) -> str | None:
        """Return the name that the client has for a model. Raises UserError for an unknown name and a model that is unloaded."""
        if self.unloaded is not None and name in self.unloaded.names:
            raise UserError(f"model {name} is unloaded", 404)
        if not self._single:
            return name
        if name != self._api:
            raise _unknown(name, [self._api])
        return None

    def _signature_of(self, model: Any) -> Signature:
        """Return the signature of a model in memory."""
        version = model.version
        key = version.name, version.version
        known = self._signatures.get(key)
        if known is None or known[0] is not model:
            known = model, Signature.of(self._client.describe(model))
            self._signatures[key] = known
        return known[1]

    def _infer(self, request: InferRequest) -> InferResponse:
        raise NotImplementedError


class ONNXModels(_ClientModels):
    """The models of an ONNX client."""

    platform = "onnxruntime_onnx"

    def _infer(self, request: InferRequest) -> InferResponse:
        client = self._client
        model = client.loaded(self._inside(request.model), request.version)
        signature = self._signature_of(model)
        signature.check_inputs(request.inputs)
        wanted = signature.choose_outputs(request.output_names())
        names = [spec.name for spec in wanted]
        arrays = client.run(model, {tensor.name: tensor.array for tensor in request.inputs}, names)
        outputs = [
            Tensor(spec.name, spec.datatype, array) for spec, array in zip(wanted, arrays, strict=True)
        ]
        return InferResponse(request.model, str(model.version.version), outputs, request.id)


class TensorFlowModels(_ClientModels):
    """The models of a TensorFlow client."""

    platform = "tensorflow_savedmodel"

    def _infer(self, request: InferRequest) -> InferResponse:
        client, inside = self._client, self._inside(request.model)
        model = client.loaded(inside, request.version)
        signature = self._signature_of(model)
        signature.check_inputs(request.inputs)
        wanted = signature.choose_outputs(request.output_names())
        results = client.predict(
            {tensor.name: tensor.array for tensor in request.inputs}, inside, request.version
        )
        answered = served.get()
        version = answered[-1][1] if answered else model.version.version
        outputs = [Tensor(spec.name, spec.datatype, np.asarray(results[spec.name])) for spec in wanted]
        return InferResponse(request.model, str(version), outputs, request.id)


class HandlerModel:
    """The method `handle_infer(inputs, parameters)` of a handler, as the one version "1" of a model with the name of the API.

    declares: the object with the optional attributes `inputs` and `outputs`. Raises StartError for a wrong declaration.
    """

    platform = "python"
    unloaded: UnloadedModels | None = None
    VERSION = "1"

    def __init__(self, method: Method, declares: Any, api: str) -> None:
        self._api = api
        self._call = method.function
        self._arguments = method.arguments
        self._inputs = self._declared(declares, "inputs")
        self._outputs = self._declared(declares, "outputs")
        function: Callable[..., Any] = self._infer_async if method.is_async else self._infer
        self.method = Method(function, ("request",), method.is_async, method.inline)

    def names(self) -> list[str]:
        """Return the name of the API."""
        return [self._api]

    def versions(self, name: str) -> list[str]:
        """Return the one version."""
        self._require(name, "")
        return [self.VERSION]

    def signature(self, name: str, version: str) -> Signature:
        """Return what the class declares."""
        self._require(name, version)
        return Signature(self._inputs or {}, self._outputs or {})

    def is_ready(self, name: str, version: str) -> bool:
        """Return True: the handler is constructed before the API serves."""
        self._require(name, version)
        return True

    def load(self, name: str) -> None:
        """Raise UserError: a handler is always loaded."""
        raise UserError("the model of a handler cannot be loaded or unloaded")

    unload = load

    def release_unloaded(self) -> None:
        """Do nothing: a handler is always loaded."""

    def _infer(self, request: InferRequest) -> InferResponse:
        return self._response(request, self._call(**self._given(request)))

    async def _infer_async(self, request: InferRequest) -> InferResponse:
        return self._response(request, await self._call(**self._given(request)))

    def _given(self, request: InferRequest) -> dict[str, Any]:
        """Return the arguments of the handler's method."""
        self._require(request.model, request.version)
        if self._inputs is not None:
            Signature(self._inputs, {}).check_inputs(request.inputs)
        values: dict[str, Any] = {
            # The bytes of a request are read-only, and a handler may change its input.
            "inputs": {
                name: tensor.array if tensor.array.flags.writeable else tensor.array.copy()
                for name, tensor in by_name(request.inputs).items()
            },
            "parameters": request.parameters,
        }
        return {name: values[name] for name in self._arguments}

    def _response(self, request: InferRequest, result: Any) -> InferResponse:
        """Return the response for what the method has returned.

        Raises TypeError for a wrong result, and UserError for a requested output that does not exist.
        """
        if not isinstance(result, Mapping):
            raise TypeError(
                f"handle_infer must return a dict of output name to array; got {type(result).__name__}"
            )
        names = request.output_names()
        for name in names or ():
            if name not in result:
                raise UserError(f'output "{name}" does not exist (available: {", ".join(map(str, result))})')
        outputs = [self._tensor(name, result[name]) for name in (result if names is None else names)]
        return InferResponse(request.model, self.VERSION, outputs, request.id)

    def _tensor(self, name: Any, value: Any) -> Tensor:
        if not isinstance(name, str):
            raise TypeError(f"handle_infer returned an output with the name {name!r}, which is not a string")
        array = np.asarray(value)
        try:
            datatype = datatype_of(array.dtype)
        except ValueError as error:
            raise TypeError(f'handle_infer returned for "{name}": {error}') from error
        spec = None if self._outputs is None else self._outputs.get(name)
        if spec is not None:
            if spec.datatype == BF16 and datatype == "FP32":
                datatype = BF16
            if spec.datatype != datatype:
                raise TypeError(
                    f'handle_infer returned {datatype} for "{name}", and the class declares {spec.datatype}'
                )
        return Tensor(name, datatype, array)

    def _require(self, name: str, version: str) -> None:
        if name != self._api:
            raise _unknown(name, [self._api])
        if version not in ("", self.VERSION):
            raise UserError(
                f"version {version[:40]} of model {name} does not exist (available: {self.VERSION})", 404
            )

    def _declared(self, declares: Any, where: str) -> Any:
        specs = getattr(declares, where, None)
        if specs is None:
            return None
        try:
            return declared(specs, where)
        except ValueError as error:
            raise StartError("HandlerInvalid", f"the class with handle_infer: {error}") from error


def _unknown(name: str, known: list[str]) -> UserError:
    return UserError(f"model {name[:80]!r} does not exist (available: {', '.join(known)})", 404)


def models_of(handler: LoadedHandler) -> Models | None:
    """Return the models that a handler serves over the protocol; None if it serves none.

    These are the models of a client that has no code around it, or the handler's `handle_infer`. Raises StartError.
    """
    api, client = handler.document.name, handler.client
    if handler.infer is not None:
        return HandlerModel(handler.infer, handler.instance, api)
    if handler.code.interface.form is not Form.MODEL or client is None:
        return None
    return (ONNXModels if handler.code.type == "onnx" else TensorFlowModels)(client, api)
