"""Which arguments a user's function wants. They are injected by name, whatever their order; defaults, keyword-only arguments,
**kwargs, functools.partial and decorated functions work. What can't be provided is a StartError that names it.
"""

import difflib
import inspect
from collections.abc import Callable, Iterable
from typing import Any

from cortex_runtime.errors import StartError

_BATCH = "BatchAPI is not served: run a Kubernetes Job, or an AsyncAPI"
_GRPC = "gRPC services of your own are not served: use HTTP"
NOT_SERVED = {
    "job_spec": _BATCH,
    "batch_id": _BATCH,
    "handle_batch": _BATCH,
    "proto_module_pb2": _GRPC,
    "module_proto_pb2": _GRPC,
    "context": _GRPC,
    "Task": "TaskAPI is not served: run a Kubernetes Job",
}
"""Names that belong to kinds of the original that do not exist here, with what to do instead."""

_NEEDS_A_PLACE = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


def arguments_of(
    function: Callable[..., Any],
    available: tuple[str, ...],
    where: str,
    *,
    bound: bool,
    first: bool = False,
    unavailable: str = "",
) -> tuple[str, ...]:
    """Which of the available arguments a function wants, by name; all of them when it has **kwargs.

    bound: whether self is no longer among its parameters. first: whether its first parameter is given by position, and so may
    have any name. unavailable: why a name that is known elsewhere isn't available here. Decorators are looked through as
    functools.wraps leaves them. Raises StartError (HandlerInvalid) when a required argument can't be provided.
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
            *_NEEDS_A_PLACE,
            inspect.Parameter.VAR_POSITIONAL,
        ):
            raise StartError(
                "HandlerInvalid", f"{where} must take the value that it works on, as its first argument"
            )
        if parameters[0].kind is not inspect.Parameter.VAR_POSITIONAL:
            del parameters[0]
    wanted = []
    for parameter in parameters:
        if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
            continue
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:
            wanted += [name for name in available if name not in wanted]
        elif parameter.kind is inspect.Parameter.POSITIONAL_ONLY:
            if parameter.default is inspect.Parameter.empty:
                raise StartError(
                    "HandlerInvalid",
                    f"{where}: argument {parameter.name} is positional-only; arguments come by name",
                )
        elif parameter.name in available:
            wanted.append(parameter.name)
        elif parameter.default is inspect.Parameter.empty:
            if parameter.name in NOT_SERVED:
                raise StartError(
                    "HandlerInvalid",
                    f"{where}: argument {parameter.name!r} can't be provided: {NOT_SERVED[parameter.name]}",
                )
            raise StartError(
                "HandlerInvalid",
                f"{where}: argument {parameter.name!r} can't be provided{suggestion(parameter.name, available)} "
                f"(available: {', '.join(available)}){unavailable}",
            )
    return tuple(dict.fromkeys(wanted))


def is_async(function: Callable[..., Any]) -> bool:
    """Whether a call gives something to await: also through functools.partial, decorators and objects with __call__."""
    while True:
        if inspect.iscoroutinefunction(function):
            return True
        inner = getattr(function, "func", None) or getattr(function, "__wrapped__", None)
        if inner is None:
            break
        function = inner
    return not inspect.isroutine(function) and inspect.iscoroutinefunction(type(function).__call__)


def suggestion(name: str, known: Iterable[str], near: Iterable[str] = ()) -> str:
    """ "; did you mean ...?" when a known name is close, otherwise nothing."""
    close = list(near) or difflib.get_close_matches(name, list(known), 1, 0.6)
    return f"; did you mean {close[0]}?" if close else ""


def _signature(function: Callable[..., Any], where: str) -> inspect.Signature:
    try:
        return inspect.signature(function)
    except (TypeError, ValueError) as error:
        raise StartError("HandlerInvalid", f"{where} has no signature that can be read: {error}") from error
