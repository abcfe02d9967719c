"""Inferences over gRPC that are answered inline, on the event loop's thread, while the calls of the model are fast."""

import asyncio
from contextvars import copy_context
from time import perf_counter

from cortex_runtime.clients import served
from cortex_runtime.grpc.calls import Call
from cortex_runtime.handler.threads import Threads
from cortex_runtime.inference import grpc_messages
from cortex_runtime.inference.grpc_service import parsed, status_for
from cortex_runtime.inference.protos import inference_pb2
from cortex_runtime.inference.service import LARGE
from cortex_runtime.logs.records import request_id as request_id_variable
from cortex_runtime.serving.admission import Admission
from cortex_runtime.serving.inference import Inference


class InlineCalls:
    """Answers ModelInfer inline, as `App.answer_inline` answers requests over HTTP. Used on the event loop alone."""

    def __init__(self, inference: Inference, admission: Admission, threads: Threads) -> None:
        self._endpoint = inference.endpoint
        self._service = inference.service
        self._admission = admission
        self._threads = threads
        assert threads.handler_thread is not None
        self._run = threads.handler_thread.detached.run

    def __call__(self, message: bytes, call: Call) -> bytes | None:
        """Return the response of a call. Return None without running the model if the call must wait. Raises CallError."""
        endpoint, admission = self._endpoint, self._admission
        if (
            len(message) > LARGE
            or not endpoint.policy.inline
            or not self._threads.inline
            or admission.draining
            or admission.refusal(call.headers) is not None
        ):
            return None
        began = perf_counter()
        request_id = admission.start(call.headers)
        token = request_id_variable.set(request_id)
        served.set([])
        context = copy_context()
        status = 500
        call.set_metadata("x-request-id", request_id)
        try:
            request = grpc_messages.decode(parsed(inference_pb2.ModelInferRequest, message))
            started = perf_counter()
            try:
                answer = self._run(
                    asyncio.get_running_loop(), context, endpoint.function, {"request": request}
                )
            finally:
                seconds = perf_counter() - started
                endpoint.policy.record(seconds)
            content = grpc_messages.encode_bytes(answer, request)
            self._service.record(answer, seconds)
            status = 200
            return content
        except BaseException as error:
            status, refused = status_for(error)
            raise refused from None
        finally:
            request_id_variable.reset(token)
            admission.finish(began, request_id, status, "POST", call.path)
