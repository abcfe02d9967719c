"""The decorator `@route`. It only marks a method: handler/routing.py finds and checks the marks."""

from collections.abc import Callable
from typing import Any, TypeVar

MARK = "__cortex_routes__"
"""Attribute of a decorated method: a list of (path, method)."""

Decorated = TypeVar("Decorated", bound=Callable[..., Any])


def route(path: str, method: str = "POST") -> Callable[[Decorated], Decorated]:
    """Let a method of the handler class answer requests to a path of its own.

    path: begins with "/"; `{id}`, `{id:int}` and `{rest:path}` are parameters, which the method takes as arguments.
    method: an HTTP method. With "WEBSOCKET", the method is async and takes `websocket`, an object of Starlette, which it must
    accept. With "MOUNT", it is called once, without arguments, and returns an ASGI application for all requests below the path.

    May be used several times on one method.
    """
    if not isinstance(path, str):
        raise TypeError('@route takes a path: @route("/embed", method="POST")')

    def mark(function: Decorated) -> Decorated:
        setattr(function, MARK, [(path, method), *getattr(function, MARK, ())])
        return function

    return mark
