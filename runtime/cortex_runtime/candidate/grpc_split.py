"""The split over gRPC: ModelInfer, and each message of a stream, as requests over HTTP. Imported only in APIs that serve gRPC."""

import logging
from dataclasses import replace
from time import perf_counter
from typing import Any, Protocol

import orjson

from cortex_api.contract import CANDIDATE, MIRROR_HEADER, STABLE, VERSION_HEADER
from cortex_runtime.candidate import counters
from cortex_runtime.candidate.application import StableAdmission
from cortex_runtime.candidate.client import CandidateFailed, Request
from cortex_runtime.candidate.compare import Answer
from cortex_runtime.candidate.grpc_client import GrpcClient
from cortex_runtime.candidate.selection import Selected
from cortex_runtime.candidate.session import Session
from cortex_runtime.grpc.calls import Call, CallError, Method
from cortex_runtime.inference.grpc_service import answer_stream, path, status_of
from cortex_runtime.inference.protos import inference_pb2 as pb

log = logging.getLogger("cortex")

_INFER, _STREAM = path("ModelInfer"), path("ModelStreamInfer")
_REQUEST_ID = b"x-request-id"
_MIRRORED = ((MIRROR_HEADER, "true"), (VERSION_HEADER, CANDIDATE))
_JSON = "application/json"


class GrpcMethods(Protocol):
    """What is used of serving/grpc_server.py."""

    methods: dict[str, Method]

    def use(self, methods: dict[str, Method]) -> None:
        """Answer the calls that follow with these methods."""


class GrpcSwitch:
    """Puts the split into a running gRPC server and removes it. timeout: seconds of a request."""

    def __init__(self, server: GrpcMethods, admission: StableAdmission, timeout: float) -> None:
        self._server, self._admission, self._timeout = server, admission, timeout
        self._client: GrpcClient | None = None

    def use(self, session: Session | None) -> None:
        """Use the split of a session from the next call on. None: the stable version answers everything."""
        if self._client is not None:
            self._client.close()
            self._client = None
        methods = self._server.methods
        if session is not None and (port := session.split.grpc_port) is not None:
            self._client = GrpcClient(session.split.host, port, self._timeout)
            methods = GrpcSplit(methods, self._admission, session, self._client).methods
        self._server.use(methods)


class GrpcSplit:
    """Answers each inference with the version that the split selects. methods: those of the stable version."""

    def __init__(
        self, methods: dict[str, Method], admission: StableAdmission, session: Session, client: GrpcClient
    ) -> None:
        stable = methods[_INFER]
        assert stable.unary is not None
        self._inline, self._unary = stable.inline, stable.unary
        self._admission, self._session, self._client = admission, session, client
        self._counters = session.counters
        self.methods = {
            **methods,
            _INFER: replace(stable, unary=self._infer, inline=None),
            _STREAM: Method(stream=self._stream),
        }

    async def _infer(self, message: bytes, call: Call) -> bytes:
        session = self._session
        selected = session.selector.select(call.headers)
        if selected is Selected.STABLE or self._admission.key_error(call.headers) is not None:
            return await self._answer_stable(message, call, session.select_mirrored())
        counted = selected is Selected.WEIGHTED
        if session.breaker.is_open:
            self._count_error(counters.DIVERTED, counted, session.breaker.is_hang)
            return await self._answer_stable(message, call, session.breaker.take_probe())
        request_id = self._admission.choose_request_id(call.headers.get(_REQUEST_ID))
        began = perf_counter()
        try:
            answer = await session.forwarder.within(
                lambda: self._client.infer(message, call.headers, request_id, ())
            )
        except CandidateFailed as error:
            self._count_error(counters.FALLBACK, counted, error.is_late)
            log.debug("the stable version answers for the candidate: %s", error)
            call.headers[_REQUEST_ID] = request_id.encode()
            return await self._answer_stable(message, call, False)
        if counted:
            self._counters.add(counters.ANSWERED)
            self._counters.record_candidate(perf_counter() - began)
        call.set_metadata("x-request-id", request_id)
        call.set_metadata(VERSION_HEADER, CANDIDATE)
        if isinstance(answer, CallError):
            raise answer
        return answer

    async def _answer_stable(self, message: bytes, call: Call, mirrored: bool) -> bytes:
        """Let the stable version answer a call, inline if possible, and offer both to the mirror. Raises CallError."""
        call.set_metadata(VERSION_HEADER, STABLE)
        began = perf_counter()
        content, error = None, None
        try:
            if self._inline is not None:
                content = self._inline(message, call)
            if content is None:
                content = await self._unary(message, call)
        except CallError as refused:
            error = refused
        status = 200 if error is None else status_of(error.code)
        if status < 500:
            self._counters.record_stable(perf_counter() - began)
            if mirrored:
                request_id = self._admission.choose_request_id(call.headers.get(_REQUEST_ID))
                request = Request("POST", _INFER, list(call.headers.items()), message, request_id)
                answer = Answer(status, "", b"") if content is None else _answer(content)
                self._session.mirror.offer(request, answer, self._answer_copy)
        if error is not None:
            raise error
        assert content is not None
        return content

    async def _answer_copy(self, request: Request) -> Answer:
        """Return the candidate's response to a copy. Raises CandidateFailed."""
        answer = await self._session.forwarder.within(
            lambda: self._client.infer(request.body, dict(request.headers), request.request_id, _MIRRORED)
        )
        return Answer(status_of(answer.code), "", b"") if isinstance(answer, CallError) else _answer(answer)

    async def _stream(self, call: Call) -> None:
        async def infer(message: bytes, request: pb.ModelInferRequest) -> pb.ModelInferResponse:
            return pb.ModelInferResponse.FromString(await self._infer(message, call))

        await answer_stream(call, infer)

    def _count_error(self, cell: int, counted: bool, is_late: bool) -> None:
        if counted:
            self._counters.add_error(cell, is_late)


def _answer(content: bytes) -> Answer:
    """Return a response as it would be over HTTP, where both versions are compared."""
    message = pb.ModelInferResponse.FromString(content)
    outputs = []
    for place, output in enumerate(message.outputs):
        described: dict[str, Any] = {
            "name": output.name,
            "datatype": output.datatype,
            "shape": list(output.shape),
        }
        if message.raw_output_contents:
            described["parameters"] = {"binary_data_size": len(message.raw_output_contents[place])}
        else:
            values = next((list(values) for _, values in output.contents.ListFields()), [])
            described["data"] = [
                each.decode(errors="replace") if isinstance(each, bytes) else each for each in values
            ]
        outputs.append(described)
    head = orjson.dumps({"model_name": message.model_name, "outputs": outputs})
    raw = list(message.raw_output_contents)
    return Answer(200, _JSON, head + b"".join(raw), len(head) if raw else None)
