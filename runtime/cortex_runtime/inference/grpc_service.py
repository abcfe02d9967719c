"""The gRPC services of a worker: inference.GRPCInferenceService, health checking and reflection.

Each call of the inference service is admitted, counted and logged like a request over HTTP; so is each message of a stream.
"""

import json
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from google.protobuf.message import DecodeError

from cortex_runtime.errors import UserError
from cortex_runtime.grpc.calls import Call, CallError, Method
from cortex_runtime.grpc.status import StatusCode
from cortex_runtime.http import response
from cortex_runtime.inference import grpc_messages
from cortex_runtime.inference.protos import inference_pb2 as pb
from cortex_runtime.inference.service import InferenceService, convert

SERVICE = "inference.GRPCInferenceService"
_CODES = {
    400: StatusCode.INVALID_ARGUMENT,
    401: StatusCode.UNAUTHENTICATED,
    403: StatusCode.PERMISSION_DENIED,
    404: StatusCode.NOT_FOUND,
    408: StatusCode.DEADLINE_EXCEEDED,
    413: StatusCode.RESOURCE_EXHAUSTED,
    429: StatusCode.RESOURCE_EXHAUSTED,
    499: StatusCode.CANCELLED,
    501: StatusCode.UNIMPLEMENTED,
    503: StatusCode.UNAVAILABLE,
    504: StatusCode.DEADLINE_EXCEEDED,
}
"""The code for an HTTP status; other 4xx are INVALID_ARGUMENT, other 5xx INTERNAL."""

Admit = Callable[[Call, Callable[[], Awaitable[Any]]], Awaitable[Any]]
"""Admits a call, runs a function for it, counts and logs it. Raises CallError instead of any other exception."""


def code_of(status: int) -> StatusCode:
    """Return the code for an HTTP status."""
    return _CODES.get(status) or (StatusCode.INVALID_ARGUMENT if status < 500 else StatusCode.INTERNAL)


def status_of(code: StatusCode) -> int:
    """Return the HTTP status for a code, which the metrics count."""
    return next((status for status, each in _CODES.items() if each == code), 500)


def status_for(error: BaseException) -> tuple[int, CallError]:
    """Return the HTTP status that the metrics count for an exception, and what the client gets."""
    if isinstance(error, CallError):
        return status_of(error.code), error
    answer = response.error_of(error)
    return answer.status, CallError(code_of(answer.status), text_of(answer.message))


def text_of(message: Any) -> str:
    """Return the message of an error as text."""
    return message if isinstance(message, str) else json.dumps(message, default=str)


class GRPCInferenceService:
    """The methods of inference.GRPCInferenceService."""

    def __init__(self, service: InferenceService, admit: Admit) -> None:
        self._service = service
        self._admit = admit

    def methods(self) -> dict[str, Method]:
        """Return the methods by path."""
        unary: dict[str, tuple[type[Any], Callable[[Any], Awaitable[Any]]]] = {
            "ServerLive": (pb.ServerLiveRequest, self._server_live),
            "ServerReady": (pb.ServerReadyRequest, self._server_ready),
            "ModelReady": (pb.ModelReadyRequest, self._model_ready),
            "ServerMetadata": (pb.ServerMetadataRequest, self._server_metadata),
            "ModelMetadata": (pb.ModelMetadataRequest, self._model_metadata),
            "ModelInfer": (
                pb.ModelInferRequest,
                partial(self._model_infer, encode=grpc_messages.encode_bytes),
            ),
            "RepositoryIndex": (pb.RepositoryIndexRequest, self._repository_index),
            "RepositoryModelLoad": (pb.RepositoryModelLoadRequest, self._repository_model_load),
            "RepositoryModelUnload": (pb.RepositoryModelUnloadRequest, self._repository_model_unload),
        }
        methods = {
            path(name): Method(unary=self._unary(request, answer))
            for name, (request, answer) in unary.items()
        }
        methods[path("ModelStreamInfer")] = Method(stream=self._model_stream_infer)
        return methods

    def _unary(
        self, request: type[Any], answer: Callable[[Any], Awaitable[Any]]
    ) -> Callable[[bytes, Call], Awaitable[bytes]]:
        admit = self._admit

        async def run(message: bytes, call: Call) -> bytes:
            async def work() -> bytes:
                response = await answer(parsed(request, message))
                content: bytes = response if isinstance(response, bytes) else response.SerializeToString()
                return content

            result: bytes = await admit(call, work)
            return result

        return run

    async def _server_live(self, request: pb.ServerLiveRequest) -> pb.ServerLiveResponse:
        return pb.ServerLiveResponse(live=True)

    async def _server_ready(self, request: pb.ServerReadyRequest) -> pb.ServerReadyResponse:
        return pb.ServerReadyResponse(ready=not self._service.draining)

    async def _model_ready(self, request: pb.ModelReadyRequest) -> pb.ModelReadyResponse:
        try:
            return pb.ModelReadyResponse(ready=self._service.model_ready(request.name, request.version))
        except UserError:
            # Clients ask for any name, and expect an answer rather than an error.
            return pb.ModelReadyResponse(ready=False)

    async def _server_metadata(self, request: pb.ServerMetadataRequest) -> pb.ServerMetadataResponse:
        return pb.ServerMetadataResponse(**self._service.server_metadata())

    async def _model_metadata(self, request: pb.ModelMetadataRequest) -> pb.ModelMetadataResponse:
        return pb.ModelMetadataResponse(**await self._service.model_metadata(request.name, request.version))

    async def _model_infer(self, request: pb.ModelInferRequest, encode: Callable[..., Any]) -> Any:
        decoded = await convert(request.ByteSize(), grpc_messages.decode, request)
        response = await self._service.infer(decoded)
        return await convert(response.size, encode, response, decoded)

    async def _model_stream_infer(self, call: Call) -> None:
        async def infer(message: bytes, request: pb.ModelInferRequest) -> pb.ModelInferResponse:
            answer: pb.ModelInferResponse = await self._admit(
                call, partial(self._model_infer, request, grpc_messages.encode)
            )
            return answer

        await answer_stream(call, infer)

    async def _repository_index(self, request: pb.RepositoryIndexRequest) -> pb.RepositoryIndexResponse:
        self._require_repository()
        entries = self._service.repository_index(request.ready)
        return pb.RepositoryIndexResponse(
            models=[pb.RepositoryIndexResponse.ModelIndex(**each) for each in entries]
        )

    async def _repository_model_load(
        self, request: pb.RepositoryModelLoadRequest
    ) -> pb.RepositoryModelLoadResponse:
        self._require_repository()
        await self._service.load(request.model_name or request.repository_name, request.parameters)
        return pb.RepositoryModelLoadResponse()

    async def _repository_model_unload(
        self, request: pb.RepositoryModelUnloadRequest
    ) -> pb.RepositoryModelUnloadResponse:
        self._require_repository()
        await self._service.unload(request.model_name or request.repository_name)
        return pb.RepositoryModelUnloadResponse()

    def _require_repository(self) -> None:
        if not self._service.has_repository:
            raise CallError(
                StatusCode.UNIMPLEMENTED,
                "the model repository is turned off; set handler.protocols.repository to true",
            )


async def answer_stream(
    call: Call, infer: Callable[[bytes, pb.ModelInferRequest], Awaitable[pb.ModelInferResponse]]
) -> None:
    """Answer each message of a ModelStreamInfer in order. An error is the response to its message, and the stream continues.

    infer: answers a message, given as bytes and parsed. It raises CallError.
    """
    while (message := await call.receive()) is not None:
        response, code, identity = pb.ModelStreamInferResponse(), StatusCode.OK, ""
        try:
            request = parsed(pb.ModelInferRequest, message)
            identity = request.id
            response.infer_response.CopyFrom(await infer(message, request))
        except CallError as error:
            if error.code == StatusCode.UNAUTHENTICATED:
                raise
            code = error.code
            response.error_message = error.message
            response.infer_response.id = identity
        await call.send(response.SerializeToString(), code)


def path(method: str, service: str = SERVICE) -> str:
    """Return the path of a method."""
    return f"/{service}/{method}"


def parsed(message: type[Any], content: bytes) -> Any:
    """Return a message from its bytes. Raises CallError."""
    try:
        return message.FromString(content)
    except DecodeError as error:
        raise CallError(
            StatusCode.INVALID_ARGUMENT, f"the message is not a valid {message.DESCRIPTOR.name}: {error}"
        ) from None
