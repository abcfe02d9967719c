"""The spans of gRPC calls, with the attributes of the RPC semantic conventions of OpenTelemetry."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from opentelemetry.context import Context, attach, detach
from opentelemetry.trace import SpanKind, set_span_in_context

from cortex_runtime.grpc.calls import Call, CallError, Method
from cortex_runtime.grpc.status import StatusCode
from cortex_runtime.logs.records import request_id as request_id_variable
from cortex_runtime.tracing.provider import Tracing, request_span, set_error

_SERVER_ERRORS = (
    StatusCode.UNKNOWN,
    StatusCode.DEADLINE_EXCEEDED,
    StatusCode.UNIMPLEMENTED,
    StatusCode.INTERNAL,
    StatusCode.UNAVAILABLE,
    StatusCode.DATA_LOSS,
)
"""Codes that are errors of the server, by the conventions."""


def traced_methods(tracing: Tracing, methods: Mapping[str, Method]) -> dict[str, Method]:
    """Return the methods of a server, by path, with a span around each call. A stream has one span."""
    return {path: _traced_method(tracing, method) for path, method in methods.items()}


def _traced_method(tracing: Tracing, method: Method) -> Method:
    unary, stream, inline = method.unary, method.stream, method.inline

    async def run_unary(message: bytes, call: Call) -> bytes:
        assert unary is not None
        with _traced(tracing, call):
            return await unary(message, call)

    async def run_stream(call: Call) -> None:
        assert stream is not None
        with _traced(tracing, call):
            await stream(call)

    def run_inline(message: bytes, call: Call) -> bytes | None:
        assert inline is not None
        headers = list(call.headers.items())
        if tracing.is_untraced(headers):
            return inline(message, call)
        with _span(tracing, call, *tracing.admit(headers)) as discard:
            content = inline(message, call)
            if content is None:
                discard()
            return content

    return Method(
        unary=run_unary if unary is not None else None,
        stream=run_stream if stream is not None else None,
        inline=run_inline if inline is not None else None,
    )


@contextmanager
def _traced(tracing: Tracing, call: Call) -> Iterator[None]:
    headers = list(call.headers.items())
    if tracing.is_untraced(headers):
        yield
    else:
        with _span(tracing, call, *tracing.admit(headers)):
            yield


@contextmanager
def _span(tracing: Tracing, call: Call, parent: Context, is_traced: bool) -> Iterator[Callable[[], None]]:
    """Run a block as the call of a client. Yields a function that discards the span."""
    if not is_traced:
        token = attach(parent)
        try:
            yield lambda: None
        finally:
            detach(token)
        return
    name = call.path[1:]
    attributes: dict[str, Any] = {"rpc.system.name": "grpc", "rpc.method": name}
    span = tracing.start(name, parent, SpanKind.SERVER, attributes)
    token, request_token = attach(set_span_in_context(span, parent)), request_span.set(span)
    is_discarded = False

    def discard() -> None:
        nonlocal is_discarded
        is_discarded = True

    code = StatusCode.OK
    try:
        yield discard
    except CallError as error:
        code = error.code
        raise
    except BaseException:
        code = StatusCode.CANCELLED
        raise
    finally:
        request_span.reset(request_token)
        detach(token)
        if not is_discarded:
            span.set_attribute("rpc.response.status_code", code.name)
            if (request_id := request_id_variable.get()) is not None:
                span.set_attribute("cortex.request_id", request_id)
            if code in _SERVER_ERRORS:
                set_error(span, code.name)
            span.end()
