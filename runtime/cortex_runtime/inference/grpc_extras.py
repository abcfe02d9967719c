"""The services that tools expect of a gRPC server: grpc.health.v1, and grpc.reflection.v1 with its predecessor v1alpha."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from google.protobuf.descriptor import FileDescriptor

from cortex_runtime.grpc.calls import Call, CallError, Method
from cortex_runtime.grpc.status import StatusCode
from cortex_runtime.inference.protos import health_pb2, reflection_pb2
from cortex_runtime.inference.protos.pool import POOL

HEALTH, REFLECTION = "grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection"
_ALPHA = "grpc.reflection.v1alpha.ServerReflection"
Parse = Callable[[type[Any], bytes], Any]
Check = Callable[[Call], None]
_STATUS: Any = health_pb2.HealthCheckResponse.ServingStatus


class Health:
    """The state of the server, which is that of each of its services. check: raises CallError for a call without a valid key."""

    def __init__(self, services: list[str], check: Check, parse: Parse) -> None:
        self._services = services
        self._check = check
        self._parse = parse
        self._serving = True
        self._changed = asyncio.Event()

    def methods(self) -> dict[str, Method]:
        """Return the methods by path."""
        return {
            f"/{HEALTH}/Check": Method(unary=self._on_check),
            f"/{HEALTH}/List": Method(unary=self._on_list),
            f"/{HEALTH}/Watch": Method(stream=self._on_watch),
        }

    def drain(self) -> None:
        """Report that the server does not serve any more, to watchers at once."""
        self._serving = False
        self._changed.set()

    @property
    def _status(self) -> Any:
        return _STATUS.Value("SERVING" if self._serving else "NOT_SERVING")

    async def _on_check(self, message: bytes, call: Call) -> bytes:
        self._check(call)
        service = self._parse(health_pb2.HealthCheckRequest, message).service
        if service and service not in self._services:
            raise CallError(StatusCode.NOT_FOUND, f"service {service[:80]!r} does not exist")
        return health_pb2.HealthCheckResponse(status=self._status).SerializeToString()

    async def _on_list(self, message: bytes, call: Call) -> bytes:
        self._check(call)
        response = health_pb2.HealthListResponse()
        for service in ("", *self._services):
            response.statuses[service].status = self._status
        return response.SerializeToString()

    async def _on_watch(self, call: Call) -> None:
        self._check(call)
        message = await call.receive()
        service = self._parse(health_pb2.HealthCheckRequest, message or b"").service
        known = not service or service in self._services
        while True:
            status: Any = self._status if known else _STATUS.Value("SERVICE_UNKNOWN")
            await call.send(health_pb2.HealthCheckResponse(status=status).SerializeToString())
            if not self._serving:
                return
            await self._changed.wait()


class Reflection:
    """The descriptors of the services, for clients without the .proto files."""

    def __init__(self, services: list[str], check: Check, parse: Parse) -> None:
        self._services = services
        self._check = check
        self._parse = parse

    def methods(self) -> Mapping[str, Method]:
        """Return the methods by path."""
        method = Method(stream=self._on_info)
        return {f"/{name}/ServerReflectionInfo": method for name in (REFLECTION, _ALPHA)}

    async def _on_info(self, call: Call) -> None:
        self._check(call)
        while (message := await call.receive()) is not None:
            request = self._parse(reflection_pb2.ServerReflectionRequest, message)
            response = self._answer(request)
            response.valid_host = request.host
            response.original_request.CopyFrom(request)
            await call.send(response.SerializeToString())

    def _answer(self, request: Any) -> Any:
        response = reflection_pb2.ServerReflectionResponse()
        kind = request.WhichOneof("message_request")
        try:
            if kind == "list_services":
                for name in self._services:
                    response.list_services_response.service.add(name=name)
            elif kind == "file_by_filename":
                self._add(response, POOL.FindFileByName(request.file_by_filename))
            elif kind == "file_containing_symbol":
                self._add(response, POOL.FindFileContainingSymbol(request.file_containing_symbol))
            elif kind == "all_extension_numbers_of_type":
                name = request.all_extension_numbers_of_type
                POOL.FindMessageTypeByName(name)
                response.all_extension_numbers_response.base_type_name = name
            else:
                raise KeyError("not found")
        except KeyError:
            response.error_response.error_code = StatusCode.NOT_FOUND
            response.error_response.error_message = "not found"
        return response

    def _add(self, response: Any, file: FileDescriptor) -> None:
        """Add a file and the files that it imports."""
        response.file_descriptor_response.file_descriptor_proto.append(file.serialized_pb)
        for imported in file.dependencies:
            self._add(response, imported)
