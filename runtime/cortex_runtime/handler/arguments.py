"""Find the arguments that a user's function takes. They are passed by name, in any order.

Supports defaults, keyword-only arguments, **kwargs, functools.partial and decorators. An unknown argument is a StartError.
"""

import difflib
import inspect
from collections.abc import Callable, Iterable
from typing import Any

from cortex_runtime.errors import StartError

_BATCH = "BatchAPI is not supported; use a Kubernetes Job or an AsyncAPI"
_GRPC = "custom gRPC services are not supported; use HTTP"
UNSUPPORTED = {
    "job_spec": _BATCH,
    "batch_id": _BATCH,
    "handle_batch": _BATCH,
    "proto_module_pb2": _GRPC,
    "module_proto_pb2": _GRPC,
    "context": _GRPC,
    "Task": "TaskAPI is not supported; use a Kubernetes Job",
}
"""Names of unsupported kinds of the original Cortex, with what to use instead."""

_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


def arguments_of(
    function: Callable[..., Any],
    available: tuple[str, ...],
    where: str,
    *,
    bound: bool,
    first: bool = False,
    unavailable: str = "",
) -> tuple[str, ...]:
    """Return the names of the available arguments that a function takes; all of them if it has **kwargs.

    bound: whether self is already bound. first: whether the first parameter is passed by position, so that it may have any name.
    unavailable: appended to the message for an unknown argument. Follows decorators that use functools.wraps. Raises StartError
    (HandlerInvalid) if a required argument is unknown.
    """
    parameters = list(_signature(function, where).parameters.values())
    if not bound:
        if not parameters or parameters[0].kind in (
            inspect.Parameter.KEYWORD_ONLY,
            inspect.Parameter.VAR_KEYWORD,
        ):
            raise StartError("HandlerInvalid", f"{where}: the first argument must be self")
        if parameters[0].kind is not inspect.Parameter.VAR_POSITIONAL:
            del parameters[0]
    if first:
        if not parameters or parameters[0].kind not in (
            *_POSITIONAL,
            inspect.Parameter.VAR_POSITIONAL,
        ):
            raise StartError("HandlerInvalid", f"{where} must take its input as the first argument")
        if parameters[0].kind is not inspect.Parameter.VAR_POSITIONAL:
            del parameters[0]
    names: list[str] = []
    for parameter in parameters:
        if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
            continue
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:
            names += [name for name in available if name not in names]
        elif parameter.kind is inspect.Parameter.POSITIONAL_ONLY:
            if parameter.default is inspect.Parameter.empty:
                raise StartError(
                    "HandlerInvalid",
                    f"{where}: argument {parameter.name!r} must not be positional-only, because arguments are passed by name",
                )
        elif parameter.name in available:
            names.append(parameter.name)
        elif parameter.default is inspect.Parameter.empty:
            if parameter.name in UNSUPPORTED:
                raise StartError(
                    "HandlerInvalid",
                    f"{where}: argument {parameter.name!r} is not supported: {UNSUPPORTED[parameter.name]}",
                )
            raise StartError(
                "HandlerInvalid",
                f"{where}: unknown argument {parameter.name!r}{suggestion(parameter.name, available)} "
                f"(available: {', '.join(available)}){unavailable}",
            )
    return tuple(dict.fromkeys(names))


def is_async(function: Callable[..., Any]) -> bool:
    """Return whether a function is async. Follows functools.partial, decorators and __call__ of objects."""
    while True:
        if inspect.iscoroutinefunction(function):
            return True
        inner = getattr(function, "func", None) or getattr(function, "__wrapped__", None)
        if inner is None:
            break
        function = inner
    return not inspect.isroutine(function) and inspect.iscoroutinefunction(type(function).__call__)


def suggestion(name: str, known: Iterable[str], near: Iterable[str] = ()) -> str:
    """Return "; did you mean NAME?" for the most similar known name, or "". near: names to prefer."""
    close = list(near) or difflib.get_close_matches(name, list(known), 1, 0.6)
    return f"; did you mean {close[0]}?" if close else ""


def _signature(function: Callable[..., Any], where: str) -> inspect.Signature:
    try:
        return inspect.signature(function)
    except (TypeError, ValueError) as error:
        raise StartError("HandlerInvalid", f"failed to read the signature of {where}: {error}") from error
