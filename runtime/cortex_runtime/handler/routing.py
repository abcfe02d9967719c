"""`@route`: further endpoints of a handler class, checked before anything of it is called.

`declared_routes` finds the decorated methods and refuses what cannot be served; `routes` returns them for a constructed handler.
"""

import difflib
import inspect
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NoReturn

from cortex_runtime.errors import StartError
from cortex_runtime.handler.arguments import arguments_of, is_async
from cortex_runtime.handler.interfaces import (
    REQUEST_ARGUMENTS,
    Code,
    Form,
    Method,
    run_constructor,
    with_hints,
)
from cortex_runtime.handler.route import MARK

WEBSOCKET, MOUNT = "WEBSOCKET", "MOUNT"
VERBS = ("GET", "POST", "PUT", "PATCH", "DELETE")
_ANSWERED_BY_RUNTIME = ("info", "v2", "openapi.json", "docs")
RESERVED = (*_ANSWERED_BY_RUNTIME, "v1")
"""First segments of the paths of the runtime's own protocols."""

_PARAMETER = re.compile(r"{([^}]*)}")
_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*").fullmatch
_CONVERTORS = ("str", "path", "int", "float", "uuid")
_VALID = re.compile(r"[A-Za-z0-9._~!$&'()*+,;=:@%/-]*").fullmatch


@dataclass(frozen=True)
class Route:
    """A decorated method. verb: an HTTP verb, WEBSOCKET or MOUNT. name: of the method. parameters: those of the path."""

    path: str
    verb: str
    name: str
    parameters: tuple[str, ...]


@dataclass(frozen=True)
class BoundRoute:
    """A route of a constructed handler. application: what a method with verb MOUNT has returned."""

    route: Route
    method: Method
    application: Any = None


def is_runtime_path(path: str) -> bool:
    """Return whether the runtime itself answers a path. Below /v1, methods of the handler answer."""
    return path[1:].partition("/")[0] in _ANSWERED_BY_RUNTIME


def declared_routes(code: Code) -> list[Route]:
    """Return the routes of a class. Raises StartError (HandlerInvalid) with class, method and what is wrong."""
    if code.interface.form is not Form.CLASS:
        _refuse_outside_of_a_class(code)
        return []
    found: list[Route] = []
    for name, marks in _decorated_methods(code.target):
        for path, verb in marks:
            refuse = _Refusal(
                f"{code.where}: {code.interface.name}.{name}: @route({path!r}, method={verb!r})"
            )
            if code.kind != "RealtimeAPI":
                refuse("routes exist in a RealtimeAPI only; a job of an AsyncAPI is submitted with POST /")
            route = _parse(path, verb, name, refuse)
            _check_arguments(code, route, refuse)
            _refuse_conflicts(code, route, found, refuse)
            found.append(route)
    return found


def routes(code: Code, instance: Any) -> list[BoundRoute]:
    """Return the routes of a constructed handler, and call its methods with verb MOUNT. Raises StartError."""
    found = []
    for route in declared_routes(code):
        function = getattr(instance, route.name)
        where = f"{code.where}: {code.interface.name}.{route.name}"
        arguments = arguments_of(function, _available(route), where, bound=True)
        inline = bool(getattr(instance, "inline", True))
        method = with_hints(Method(function, arguments, is_async(function), inline), function, where)
        application = None
        if route.verb == MOUNT:
            application = run_constructor(where, function)
            if not callable(application):
                raise StartError(
                    "HandlerInvalid",
                    f"{where} must return an ASGI application, which is callable; got {type(application).__name__}",
                )
        found.append(BoundRoute(route, method, application))
    return found


class _Refusal:
    """Raises a StartError about one decorated method."""

    def __init__(self, where: str) -> None:
        self._where = where

    def __call__(self, problem: str) -> NoReturn:
        raise StartError("HandlerInvalid", f"{self._where}: {problem}")


def _decorated_methods(cls: type) -> Iterable[tuple[str, list[tuple[Any, Any]]]]:
    """Yield the names of the decorated methods and their decorations, in the order in which they are defined."""
    names = dict.fromkeys(name for base in reversed(cls.__mro__) for name in vars(base))
    for name in names:
        attribute = inspect.getattr_static(cls, name, None)
        # The decorator may be above or below @staticmethod.
        marks = getattr(attribute, MARK, None) or getattr(getattr(attribute, "__func__", None), MARK, None)
        if marks:
            yield name, marks


def _refuse_outside_of_a_class(code: Code) -> None:
    for name, value in vars(code.target).items() if code.target is not None else ():
        if hasattr(value, MARK):
            raise StartError(
                "HandlerInvalid", f"{code.where}: {name}: @route must decorate a method of a class"
            )


def _parse(path: Any, verb: Any, name: str, refuse: _Refusal) -> Route:
    known = (*VERBS, WEBSOCKET, MOUNT)
    if not isinstance(verb, str) or verb.upper() not in known:
        near = difflib.get_close_matches(str(verb).upper(), known, 1, 0.5)
        refuse(f"method must be one of {', '.join(known)}" + (f"; did you mean {near[0]}?" if near else ""))
    verb = verb.upper()
    if not path.startswith("/"):
        refuse("the path must begin with /")
    if not _VALID(_PARAMETER.sub("", path)):
        refuse(
            "the path must contain only characters that a URL path may contain, and parameters such as {id}"
        )
    parameters = _parameters(path, refuse)
    if verb == MOUNT and parameters:
        refuse("the path of an application that is mounted must not have parameters")
    if verb == MOUNT and path.endswith("/") and path != "/":
        refuse("the path of an application that is mounted must not end with /")
    first = path.split("/")[1]
    if first in RESERVED:
        refuse(f"/{first} is reserved for the runtime; use another path")
    return Route(path, verb, name, parameters)


def _parameters(path: str, refuse: _Refusal) -> tuple[str, ...]:
    names: list[str] = []
    for content in _PARAMETER.findall(path):
        name, _, convertor = content.partition(":")
        if not _NAME(name):
            refuse(f"{{{content}}} is not a valid path parameter; write {{name}} or {{name:int}}")
        if convertor and convertor not in _CONVERTORS:
            refuse(f"{{{content}}}: the type must be one of {', '.join(_CONVERTORS)}")
        if name in (*REQUEST_ARGUMENTS, "websocket"):
            refuse(f"the path parameter {name} needs another name: {name} is an argument of its own")
        if name in names:
            refuse(f"the path parameter {name} occurs twice")
        names.append(name)
    return tuple(names)


def _available(route: Route) -> tuple[str, ...]:
    if route.verb == MOUNT:
        return ()
    own = ("websocket",) if route.verb == WEBSOCKET else REQUEST_ARGUMENTS
    return (*own, *route.parameters)


def _check_arguments(code: Code, route: Route, refuse: _Refusal) -> None:
    cls, name = code.target, route.name
    function, static = getattr(cls, name), inspect.getattr_static(cls, name)
    if not callable(function):
        refuse("must decorate a method")
    where = f"{code.where}: {code.interface.name}.{name}"
    bound = isinstance(static, staticmethod | classmethod)
    arguments = arguments_of(function, _available(route), where, bound=bound)
    for parameter in route.parameters:
        if parameter not in arguments:
            refuse(f"the method must take the path parameter {parameter} as an argument")
    if route.verb == WEBSOCKET and not is_async(function):
        refuse(f"the method of a WebSocket must be async: async def {name}(self, websocket)")
    if route.verb == WEBSOCKET and "websocket" not in arguments:
        refuse(f"the method of a WebSocket must take it: async def {name}(self, websocket)")
    if route.verb == MOUNT and is_async(function):
        refuse("the method must return the application; it must not be async")


def _refuse_conflicts(code: Code, route: Route, others: list[Route], refuse: _Refusal) -> None:
    if route.path == "/" and route.verb in code.verbs.values():
        for name, verb in code.verbs.items():
            if verb == route.verb and getattr(code.target, name, None) is not None:
                refuse(f"{name} already handles {verb} /")
    for other in others:
        if _shape(route) != _shape(other):
            continue
        if route.verb == other.verb:
            refuse(f"{other.name} already handles {other.verb} {other.path}")
        if route.path != other.path:
            refuse(f"name the path parameters as {other.name} does, in {other.path}")


def _shape(route: Route) -> str:
    """Return what makes two paths match the same requests."""
    return _PARAMETER.sub(lambda found: "{" + found[1].partition(":")[2] + "}", route.path)


def specificity(route: Route) -> tuple[tuple[bool, bool], ...]:
    """Return the key that sorts routes: of two that match the same path, the more specific one is first."""
    segments = route.path.split("/")[1:]
    return (*(("{" in each, each.endswith(":path}")) for each in segments), (route.verb == MOUNT, False))
