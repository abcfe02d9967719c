"""Payload logging of inferences over gRPC. Imported only if `spec.payloadLogging` and handler.protocols.grpc are set.

The messages are recorded as they are. The thread that sends the events converts them to the JSON of the protocol over HTTP, so
that a receiver gets the same events from both, and JSON paths redact both.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from random import Random
from time import time
from typing import Any

import orjson
from google.protobuf.message import DecodeError

from cortex_runtime.errors import UserError
from cortex_runtime.grpc.calls import Call, CallError, Method
from cortex_runtime.grpc.status import StatusCode
from cortex_runtime.inference import grpc_messages
from cortex_runtime.inference.datatypes import to_json
from cortex_runtime.inference.grpc_service import path
from cortex_runtime.inference.messages import InferRequest, Tensor
from cortex_runtime.inference.protos import inference_pb2 as pb
from cortex_runtime.payloads.events import Exchange, Payload
from cortex_runtime.payloads.queue import PayloadQueue

_INFER, _STREAM = path("ModelInfer"), path("ModelStreamInfer")
_JSON, _ID = b"application/json", "x-request-id"


def logged_methods(
    queue: PayloadQueue, methods: Mapping[str, Method], *, ratio: float, most: int, trace: Callable[[], str]
) -> dict[str, Method]:
    """Return the methods of a server, by path, with inferences that are recorded. Arguments as for LoggedApp."""
    calls = LoggedCalls(queue, methods, ratio, most, trace)
    inline = None if methods[_INFER].inline is None else calls.inline
    logged = {
        _INFER: Method(unary=calls.unary, inline=inline),
        _STREAM: Method(stream=calls.stream),
    }
    return {**methods, **logged}


class LoggedCalls:
    """Records a sample of the inferences: calls of ModelInfer, and messages of ModelStreamInfer."""

    def __init__(
        self,
        queue: PayloadQueue,
        methods: Mapping[str, Method],
        ratio: float,
        most: int,
        trace: Callable[[], str],
    ) -> None:
        unary, stream = methods[_INFER].unary, methods[_STREAM].stream
        assert unary is not None
        assert stream is not None
        self._unary, self._stream, self._inline = unary, stream, methods[_INFER].inline
        self._queue = queue
        self._ratio = ratio
        self._most = most
        self._trace = trace
        # Not the global generator, which a handler may seed.
        self._random = Random(os.urandom(16)).random

    async def unary(self, message: bytes, call: Call) -> bytes:
        """Do what `Method.unary` does."""
        if not self.is_sampled():
            return await self._unary(message, call)
        with self._recorded(message, call) as answer:
            content = await self._unary(message, call)
            answer.append(content)
            return content

    def inline(self, message: bytes, call: Call) -> bytes | None:
        """Do what `Method.inline` does."""
        assert self._inline is not None
        if not self.is_sampled():
            return self._inline(message, call)
        with self._recorded(message, call) as answer:
            content = self._inline(message, call)
            answer.append(content)
            return content

    async def stream(self, call: Call) -> None:
        """Do what `Method.stream` does."""
        recorded = _RecordedStream(call, self)
        try:
            await self._stream(recorded)
        except CallError as error:
            recorded.end(error.code)
            raise
        finally:
            recorded.end(StatusCode.CANCELLED)

    def is_sampled(self) -> bool:
        """Decide whether a request is recorded."""
        return self._random() < self._ratio

    def record_message(
        self, call: Call, request: bytes, began: float, response: bytes | None, code: StatusCode
    ) -> None:
        """Record a message of a stream. response: None if it was not answered."""
        answer = Payload(b"", 0, b"", b"", time())
        if response is not None:
            answer = self._payload(response, _stream_response_json, time())
        self._add(call, code, self._payload(request, _request_json, began), answer)

    def _add(self, call: Call, code: StatusCode, request: Payload, response: Payload) -> None:
        identity = call.metadata.get(_ID, "")
        self._queue.add(Exchange("gRPC", call.path, identity, code, request, response, self._trace()))

    @contextmanager
    def _recorded(self, message: bytes, call: Call) -> Iterator[list[bytes | None]]:
        """Yield a list for the response. None in it: the call was not answered."""
        began = time()
        answer: list[bytes | None] = []
        code, response = StatusCode.CANCELLED, Payload(b"", 0, b"", b"", began)
        try:
            yield answer
            code = StatusCode.OK
        except CallError as error:
            code = error.code
            content = orjson.dumps({"error": error.message})
            response = Payload(content, len(content), _JSON, b"", time())
            raise
        finally:
            if answer and answer[0] is not None:
                response = self._payload(answer[0], _response_json, time())
            if answer != [None] and code != StatusCode.UNAUTHENTICATED:
                request = self._payload(message, _request_json, began)
                self._add(call, code, request, response)

    def _payload(self, message: bytes, convert: Callable[[bytes], bytes], moment: float) -> Payload:
        content = message if len(message) <= self._most else None
        return Payload(content, len(message), _JSON, b"", moment, convert)


class _RecordedStream(Call):
    """A call of ModelStreamInfer. Messages are answered in order, so each one that is sent answers the last one received."""

    __slots__ = ("_calls", "_request")

    def __init__(self, call: Call, calls: LoggedCalls) -> None:
        super().__init__(call.path, call.headers, call)
        # The application sends what the service sets.
        self.metadata = call.metadata
        self._calls = calls
        self._request: tuple[bytes, float] | None = None

    async def receive(self) -> bytes | None:
        """Do what `Call.receive` does."""
        message = await super().receive()
        if message is not None and self._calls.is_sampled():
            self._request = message, time()
        return message

    async def send(self, message: bytes, code: StatusCode = StatusCode.OK) -> None:
        """Do what `Call.send` does."""
        self._record(message, code)
        await super().send(message, code)

    def end(self, code: StatusCode) -> None:
        """Record a message that was not answered."""
        self._record(None, code)

    def _record(self, response: bytes | None, code: StatusCode) -> None:
        request, self._request = self._request, None
        if request is not None and code != StatusCode.UNAUTHENTICATED:
            self._calls.record_message(self, *request, response, code)


def _request_json(content: bytes) -> bytes:
    """Return the JSON of a request. Raises UserError."""
    request = _decoded(pb.ModelInferRequest, content)
    described = _described(request, "inputs")
    if request.outputs is not None:
        described["outputs"] = [{"name": output.name} for output in request.outputs]
    return _dump(described)


def _stream_response_json(content: bytes) -> bytes:
    """Return the JSON of a message that answers one of a stream. Raises UserError."""
    try:
        message = pb.ModelStreamInferResponse.FromString(content)
    except DecodeError as error:
        raise UserError(f"not a valid message: {error}") from None
    if message.error_message:
        return orjson.dumps({"error": message.error_message})
    return _response_json(message.infer_response.SerializeToString())


def _response_json(content: bytes) -> bytes:
    """Return the JSON of a response. Raises UserError."""
    response = _decoded(pb.ModelInferResponse, content)
    named = {"model_name": response.model, "model_version": response.version}
    return _dump({**named, **_described(response, "outputs")})


def _decoded(kind: Any, content: bytes) -> InferRequest:
    try:
        message = kind.FromString(content)
    except DecodeError as error:
        raise UserError(f"not a valid message: {error}") from None
    if kind is pb.ModelInferRequest:
        return grpc_messages.decode(message)
    # The tensors of a response are described as those of a request.
    request = pb.ModelInferRequest(
        model_name=message.model_name, model_version=message.model_version, id=message.id
    )
    for output in message.outputs:
        request.inputs.add().ParseFromString(output.SerializeToString())
    request.raw_input_contents.extend(message.raw_output_contents)
    return grpc_messages.decode(request)


def _described(request: InferRequest, tensors: str) -> dict[str, Any]:
    described: dict[str, Any] = {"id": request.id} if request.id else {}
    if request.parameters:
        described["parameters"] = request.parameters
    described[tensors] = list(_tensors(request.inputs))
    return described


def _tensors(tensors: Iterable[Tensor]) -> Iterator[dict[str, Any]]:
    for tensor in tensors:
        data = to_json(tensor.type, tensor.array)
        shape, parameters = tensor.array.shape, tensor.parameters
        own = {"parameters": parameters} if parameters else {}
        yield {"name": tensor.name, "datatype": tensor.datatype, "shape": shape, **own, "data": data}


def _dump(described: dict[str, Any]) -> bytes:
    return orjson.dumps(described, option=orjson.OPT_SERIALIZE_NUMPY)
