"""What a user's synchronous code finds around it, alike on the event loop's thread and on a thread of its own.

No event loop runs and no task is current, so that it may run loops of its own. Its context is a copy made for one request, job or
batch: everything that belongs to the request (the method, the parts of a generator, the callback) shares it, and nothing else
sees what is set there. What the constructor sets is the start of every copy.
"""

import asyncio
import contextvars
import sys
from asyncio import _enter_task, _leave_task, _set_running_loop, current_task
from collections.abc import Callable
from contextvars import Context, ContextVar
from sys import get_asyncgen_hooks, set_asyncgen_hooks
from typing import Any

_of_request: ContextVar[Context | None] = ContextVar("of_request", default=None)
_MISSING = object()


def user_context() -> Context:
    """Return the context of synchronous user code in the request or job of the current task; make it at the first call."""
    context = _of_request.get()
    if context is None:
        context = contextvars.copy_context()
        _of_request.set(context)
    return context


def use_context(context: Context) -> None:
    """Go on in the context in which the user's code has already run for the current task's request."""
    _of_request.set(context)


def adopt(context: Context | None = None) -> None:
    """Set in the current context what user code has set in another, by default in that of the current request.

    Asynchronous code that follows then finds it.
    """
    source = context or _of_request.get()
    if source is not None:
        for variable, value in source.items():
            if variable.get(_MISSING) is not value:
                variable.set(value)


def clean_copy() -> Context:
    """Return a copy of the current context for serving, after the user's module and constructor have run in it.

    The context of `decimal` is an object that all copies would share and user code changes. So its settings become the default,
    of which each request gets a copy of its own.
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


class Detached:
    """Runs user code on the thread of a running event loop as if that loop were not there. Used on that thread alone."""

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
        # Those that the running loop has set for its own asynchronous generators.
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
        """The same from within a task of the loop."""
        task = current_task(loop)
        assert task is not None
        _leave_task(loop, task)
        try:
            return self.run(loop, context, function, arguments)
        finally:
            _enter_task(loop, task)
