"""The gRPC server of a worker. Imported only where handler.protocols.grpc is set."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from time import perf_counter
from typing import Any

import grpc.aio

from cortex_runtime.clients import served
from cortex_runtime.handler.threads import Threads
from cortex_runtime.inference.grpc_calls import Call, CallError, Method, RpcHandlers
from cortex_runtime.inference.grpc_extras import HEALTH, REFLECTION, Health, Reflection
from cortex_runtime.inference.grpc_service import (
    SERVICE,
    GRPCInferenceService,
    code_of,
    parsed,
    path,
    status_for,
    text_of,
)
from cortex_runtime.logs.records import request_id as request_id_variable
from cortex_runtime.serving.admission import Admission
from cortex_runtime.serving.infer_inline import InlineCalls
from cortex_runtime.serving.inference import Inference

_CLIENT_GONE = 499


class GrpcServer:
    """Serves the protocol over gRPC, with health checking and reflection. Used on the event loop alone.

    max_message: bytes of a request. timeout: seconds after which calls are cancelled when the worker stops. instrument: returns
    the methods of the inference service to serve.
    """

    def __init__(
        self,
        inference: Inference,
        admission: Admission,
        threads: Threads,
        *,
        max_message: int,
        timeout: float,
        instrument: Callable[[dict[str, Method]], dict[str, Method]] = lambda methods: methods,
    ) -> None:
        self._timeout = timeout
        self._admission = admission
        names = [SERVICE, HEALTH, REFLECTION]
        self._health = Health(names, self._require_key, parsed)
        methods = GRPCInferenceService(inference.service, self._admit).methods()
        if inference.endpoint.may_run_inline:
            infer = path("ModelInfer")
            methods[infer] = replace(methods[infer], inline=InlineCalls(inference, admission, threads))
        self.methods = {
            **instrument(methods),
            **self._health.methods(),
            **Reflection(names, self._require_key, parsed).methods(),
        }
        self._handlers = RpcHandlers(self.methods)
        self._options = [
            # The port is shared with the replica's other workers.
            ("grpc.so_reuseport", 1),
            ("grpc.max_receive_message_length", max_message),
            ("grpc.max_send_message_length", -1),
        ]
        self._stopping: asyncio.Task[Any] | None = None

    def use(self, methods: dict[str, Method]) -> None:
        """Answer the calls that follow with these methods, instead of `methods`."""
        self._handlers.use(methods)

    async def start(self, address: str) -> None:
        """Accept connections. address: host and port."""
        self._server = grpc.aio.server(handlers=[self._handlers], options=self._options)
        self._server.add_insecure_port(address)
        await self._server.start()

    def drain(self) -> None:
        """Report to clients that this server stops soon. Calls are still answered."""
        self._health.drain()

    def begin_stop(self) -> None:
        """Accept nothing more, and end each connection after its running calls."""
        self._health.drain()
        self._stopping = asyncio.get_running_loop().create_task(self._server.stop(self._timeout))

    async def stopped(self) -> None:
        """Wait until all calls have ended, if `begin_stop` was called."""
        if self._stopping is not None:
            await self._stopping

    def _require_key(self, call: Call) -> None:
        refused = self._admission.key_error(call.headers)
        if refused is not None:
            raise CallError(code_of(refused.status), text_of(refused.message))

    async def _admit(self, call: Call, work: Callable[[], Awaitable[Any]]) -> Any:
        """Run a function for a call as a request: with an ID, within the limit, with a key, counted and logged."""
        admission, began = self._admission, perf_counter()
        refused = admission.refusal(call.headers)
        request_id = admission.start(call.headers)
        request_id_variable.set(request_id)
        served.set([])
        call.set_metadata("x-request-id", request_id)
        status = _CLIENT_GONE
        try:
            if refused is not None:
                raise refused
            result = await work()
            status = 200
            return result
        except (Exception, SystemExit, KeyboardInterrupt, GeneratorExit) as error:
            status, refusal = status_for(error)
            raise refusal from None
        finally:
            admission.finish(began, request_id, status, "POST", call.path)
