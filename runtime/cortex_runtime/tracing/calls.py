"""The spans around calls of user code and of models in a traced request or job. In any other one, the functions call directly."""

from collections.abc import Callable, Sequence
from contextvars import ContextVar
from functools import wraps
from time import time_ns
from typing import Any

from opentelemetry.trace import Span, SpanKind
from starlette.exceptions import HTTPException

from cortex_runtime.errors import UserError
from cortex_runtime.tracing.provider import Tracing, request_span, set_error

ready_at: ContextVar[int] = ContextVar("ready_at", default=0)
"""Unix time in nanoseconds at which the current call was ready to run."""
_LEAST_WAIT = 1_000_000
"""Nanoseconds. A shorter wait for a thread has no span."""


def traced_method(tracing: Tracing, function: Callable[..., Any], is_async: bool) -> Callable[..., Any]:
    """Return a method of a handler with a span "handler" around it, and a span "queue" if it had to wait for a thread."""
    attributes = {"code.function.name": getattr(function, "__qualname__", type(function).__name__)}

    @wraps(function)
    def traced(*arguments: Any, **more: Any) -> Any:
        if request_span.get() is None:
            return function(*arguments, **more)
        _end_wait(tracing)
        with tracing.current("handler", attributes=attributes) as span:
            try:
                return function(*arguments, **more)
            except BaseException as error:
                set_exception(span, error)
                raise

    @wraps(function)
    async def traced_async(*arguments: Any, **more: Any) -> Any:
        if request_span.get() is None:
            return await function(*arguments, **more)
        with tracing.current("handler", attributes=attributes) as span:
            try:
                return await function(*arguments, **more)
            except BaseException as error:
                set_exception(span, error)
                raise

    return traced_async if is_async else traced


def trace_models(
    tracing: Tracing, client: Any, versions: Callable[[], Sequence[tuple[str, int]] | None]
) -> None:
    """Put a span "model" around each call of a model. client: of models, or None. versions: returns the versions used."""
    for name in ("predict", "run"):
        if hasattr(client, name):
            setattr(client, name, _traced_model(tracing, getattr(client, name), versions))


def _traced_model(
    tracing: Tracing,
    predict: Callable[..., Any],
    versions: Callable[[], Sequence[tuple[str, int]] | None],
) -> Callable[..., Any]:
    @wraps(predict)
    def traced(*arguments: Any, **more: Any) -> Any:
        if request_span.get() is None:
            return predict(*arguments, **more)
        with tracing.current("model", kind=SpanKind.CLIENT) as span:
            try:
                return predict(*arguments, **more)
            except BaseException as error:
                set_exception(span, error)
                raise
            finally:
                if used := versions():
                    model, version = used[-1]
                    span.set_attributes({"cortex.model.name": model, "cortex.model.version": str(version)})

    return traced


def _end_wait(tracing: Tracing) -> None:
    """Record the wait for a thread, if the call had to wait."""
    ready = ready_at.get()
    if ready:
        ready_at.set(0)
        now = time_ns()
        if now - ready >= _LEAST_WAIT:
            tracing.start("queue", start_time=ready).end(now)


def set_exception(span: Span, error: BaseException) -> None:
    """Record the type of an exception. Its message and traceback are in the log only, since they may contain payloads."""
    of_client = isinstance(error, UserError) or (isinstance(error, HTTPException) and error.status_code < 500)
    set_error(span, type(error).__name__, not of_client)
