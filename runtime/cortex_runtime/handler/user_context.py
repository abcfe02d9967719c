"""The environment of synchronous user code: the same on the event loop's thread and on a handler thread.

User code sees no running event loop and no current task, so it may run its own loop. Each request, job or batch has its own copy
of the context (contextvars). The method, the steps of a generator and the callback of one request share that copy; other requests
do not see it. Each copy starts with the values that the constructor has set.
"""

import asyncio
import contextvars
import sys
from asyncio import _enter_task, _leave_task, _set_running_loop, current_task
from collections.abc import Callable
from contextvars import Context, ContextVar
from sys import get_asyncgen_hooks, set_asyncgen_hooks
from typing import Any

_request_context: ContextVar[Context | None] = ContextVar("request_context", default=None)
_MISSING = object()


def user_context() -> Context:
    """Return the context of synchronous user code for the current request or job. The first call creates it."""
    context = _request_context.get()
    if context is None:
        context = contextvars.copy_context()
        _request_context.set(context)
    return context


def enter_user_context(context: Context) -> None:
    """Use a context in which user code has already run for the current request."""
    _request_context.set(context)


def copy_context_variables(context: Context | None = None) -> None:
    """Copy the variables of another context into the current one, for the asynchronous code that follows.

    context: the context of the current request by default.
    """
    source = context or _request_context.get()
    if source is not None:
        for variable, value in source.items():
            if variable.get(_MISSING) is not value:
                variable.set(value)


def clean_context() -> Context:
    """Return a copy of the current context for serving, after the user's module and constructor have run in it.

    All copies would share the mutable context of `decimal`. Its settings become the default instead, and each request gets a copy
    of that.
    """
    context = Context()
    decimal = sys.modules.get("decimal")
    for variable, value in contextvars.copy_context().items():
        if decimal is not None and isinstance(value, decimal.Context):
            default = decimal.DefaultContext
            for name in ("prec", "rounding", "Emin", "Emax", "capitals", "clamp"):
                setattr(default, name, getattr(value, name))
            default.traps = dict(value.traps)
        else:
            context.run(variable.set, value)
    return context


class DetachedLoop:
    """Runs user code on the thread of a running event loop, hidden from the code. Use it on that thread only."""

    def __init__(self) -> None:
        self._hooks: Any = None

    def run(
        self,
        loop: asyncio.AbstractEventLoop,
        context: Context,
        function: Callable[..., Any],
        arguments: dict[str, Any],
    ) -> Any:
        """Call the function in the context, from a callback of the loop."""
        # The hooks of the running loop for its own asynchronous generators.
        hooks = self._hooks = self._hooks or get_asyncgen_hooks()
        _set_running_loop(None)
        set_asyncgen_hooks(None, None)
        try:
            return context.run(function, **arguments)
        finally:
            set_asyncgen_hooks(*hooks)
            _set_running_loop(loop)

    def run_in_task(
        self,
        loop: asyncio.AbstractEventLoop,
        context: Context,
        function: Callable[..., Any],
        arguments: dict[str, Any],
    ) -> Any:
        """Call the function in the context, from a task of the loop."""
        task = current_task(loop)
        assert task is not None
        _leave_task(loop, task)
        try:
            return self.run(loop, context, function, arguments)
        finally:
            _enter_task(loop, task)
