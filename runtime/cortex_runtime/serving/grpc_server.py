"""The gRPC server of a worker. Imported only where handler.protocols.grpc is set."""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from time import perf_counter
from typing import Any

from cortex_runtime.clients import served
from cortex_runtime.grpc.application import Application
from cortex_runtime.grpc.calls import Call, CallError, Method
from cortex_runtime.grpc.server import Http2Server
from cortex_runtime.handler.threads import Threads
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
from cortex_runtime.processes.listener import listen_reserved
from cortex_runtime.serving.admission import Admission
from cortex_runtime.serving.infer_inline import InlineCalls
from cortex_runtime.serving.inference import Inference

_CLIENT_GONE = 499


class GrpcServer:
    """Serves the protocol over gRPC, with health checking and reflection. Used on the event loop alone.

    max_message: bytes of a request. timeout: seconds after which calls are cancelled when the worker stops. instrument: returns
    the methods of the inference service to serve. on_connection: called for each new connection while the worker drains.
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
        on_connection: Callable[[], None] = lambda: None,
    ) -> None:
        self._admission = admission
        self._on_connection = on_connection
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
        self._application = Application(self.methods, max_message=max_message, timeout=timeout)
        self._server = Http2Server(self._application, timeout)

    def use(self, methods: dict[str, Method]) -> None:
        """Answer the calls that follow with these methods, instead of `methods`."""
        self._application.use(methods)

    async def start(self, address: str) -> None:
        """Accept connections. address: host and port, which all workers of the replica share. Raises StartError."""
        await self._server.start(listen_reserved(address))

    def drain(self) -> None:
        """Make clients connect to other replicas. Calls are still answered."""
        self._health.drain()
        self._server.drain(self._on_connection)

    def begin_stop(self) -> None:
        """Accept nothing more, and end each connection after its running calls."""
        self._health.drain()
        self._server.begin_stop()

    async def stopped(self) -> None:
        """Wait until all calls have ended, if `begin_stop` was called."""
        await self._server.stopped()

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
