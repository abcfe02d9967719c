"""The interfaces that user code may have, in one table, and how a user's file becomes methods that can be called.

The worker loads the class with `load`, constructs it and asks for its `methods`. Arguments are injected by name, whatever
their order; defaults, keyword-only arguments, **kwargs and decorated methods work. Whatever is wrong is a StartError.
"""

import ast
import difflib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cortex_runtime.errors import StartError, in_one_line, last_lines

REQUEST_ARGUMENTS = ("payload", "query_params", "headers")


@dataclass(frozen=True)
class Interface:
    """One way to write a handler.

    name: of the class. constructor: what __init__ may ask for. methods: method name to HTTP verb.
    arguments: what a method may ask for.
    """

    name: str
    constructor: tuple[str, ...]
    methods: Mapping[str, str]
    arguments: tuple[str, ...] = REQUEST_ARGUMENTS


_VERBS = {f"handle_{verb.lower()}": verb for verb in ("POST", "GET", "PUT", "PATCH", "DELETE")}

INTERFACES: Mapping[str, Interface] = {
    "python": Interface("Handler", ("config",), _VERBS),
    "onnx": Interface("Handler", ("config", "onnx_client"), _VERBS),
}
"""By spec.handler.type."""


@dataclass(frozen=True)
class Method:
    """A bound method of the user's object.

    arguments: the names that it takes, a subset of the interface's. in_place: whether it may run on the event loop's thread
    once it has proved quick; a class says no by `in_place = False`.
    """

    function: Callable[..., Any]
    arguments: tuple[str, ...]
    is_async: bool
    in_place: bool

    @property
    def takes_payload(self) -> bool:
        """Whether the body is read and parsed at all."""
        return "payload" in self.arguments


def load(path: Path, interface: Interface) -> type:
    """The user's class, from the one file that defines or imports it.

    Raises StartError: HandlerNotFound, HandlerImportError or HandlerInvalid.
    """
    if not path.is_file():
        beside = sorted(file.name for file in path.parent.glob("*.py")) if path.parent.is_dir() else []
        raise StartError(
            "HandlerNotFound",
            f"handler.path: there is no file {path}{_suggestion(path.name, beside)}"
            + (f" (Python files there: {', '.join(beside)})" if beside else ""),
        )
    _refuse_two_definitions(path, interface.name)
    module = _import(path)
    found = vars(module).get(interface.name)
    if found is None:
        classes = [name for name, value in vars(module).items() if inspect.isclass(value)]
        near = [name for name in classes if name.lower() == interface.name.lower()]
        raise StartError(
            "HandlerNotFound",
            f"{path.name} defines no class {interface.name}{_suggestion(interface.name, classes, near)}",
        )
    if not inspect.isclass(found):
        raise StartError(
            "HandlerInvalid",
            f"{path.name}: {interface.name} is a {type(found).__name__}, and must be a class",
        )
    check(found, interface, path.name)
    return found


def check(cls: type, interface: Interface, where: str) -> None:
    """See that a class keeps to the interface, before anything of it is called. Raises StartError: HandlerInvalid."""
    _near_misses(cls, interface, where)
    if not any(callable(getattr(cls, name, None)) for name in interface.methods):
        wanted = ", ".join(interface.methods)
        raise StartError(
            "HandlerInvalid",
            f"{where}: class {interface.name} has no method to call; define at least one of {wanted}",
        )
    if cls.__init__ is not object.__init__:  # type: ignore[misc]
        arguments_of(cls.__init__, interface.constructor, f"{where}: {interface.name}.__init__", bound=False)  # type: ignore[misc]
    for name in interface.methods:
        attribute = inspect.getattr_static(cls, name, None)
        if attribute is None:
            continue
        if not callable(getattr(cls, name)):
            raise StartError("HandlerInvalid", f"{where}: {interface.name}.{name} must be a method")
        bound = isinstance(attribute, staticmethod | classmethod)
        arguments_of(
            getattr(cls, name), interface.arguments, f"{where}: {interface.name}.{name}", bound=bound
        )


def construct(cls: type, interface: Interface, values: Mapping[str, Any]) -> Any:
    """The user's object. Raises StartError (HandlerInitError) when the constructor raises."""
    names: tuple[str, ...] = ()
    if cls.__init__ is not object.__init__:  # type: ignore[misc]
        names = arguments_of(cls.__init__, interface.constructor, f"{cls.__name__}.__init__", bound=False)  # type: ignore[misc]
    try:
        return cls(**{name: values[name] for name in names})
    except StartError:
        raise
    except (Exception, SystemExit) as error:
        raise StartError(
            "HandlerInitError", f"{cls.__name__}.__init__ raised {in_one_line(error)}\n{last_lines(error)}"
        ) from error


def methods(handler: Any, interface: Interface) -> dict[str, Method]:
    """HTTP verb to method of the user's object, for the verbs that it defines."""
    found = {}
    for name, verb in interface.methods.items():
        function = getattr(handler, name, None)
        if function is None:
            continue
        arguments = arguments_of(
            function, interface.arguments, f"{type(handler).__name__}.{name}", bound=True
        )
        found[verb] = Method(
            function,
            arguments,
            inspect.iscoroutinefunction(function),
            bool(getattr(handler, "in_place", True)),
        )
    return found


def arguments_of(
    function: Callable[..., Any], available: tuple[str, ...], where: str, *, bound: bool
) -> tuple[str, ...]:
    """Which of the available arguments a function wants, by name; all of them when it has **kwargs.

    Decorators are looked through as functools.wraps leaves them. Raises StartError (HandlerInvalid) when a required argument
    can't be provided.
    """
    parameters = list(inspect.signature(function).parameters.values())
    if not bound:
        if not parameters or parameters[0].kind in (
            inspect.Parameter.KEYWORD_ONLY,
            inspect.Parameter.VAR_KEYWORD,
        ):
            raise StartError("HandlerInvalid", f"{where}: the first argument must be self")
        if parameters[0].kind is not inspect.Parameter.VAR_POSITIONAL:
            del parameters[0]
    wanted = []
    for parameter in parameters:
        if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
            continue
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:
            wanted += [name for name in available if name not in wanted]
        elif parameter.kind is inspect.Parameter.POSITIONAL_ONLY:
            raise StartError(
                "HandlerInvalid",
                f"{where}: argument {parameter.name} is positional-only; arguments come by name",
            )
        elif parameter.name in available:
            wanted.append(parameter.name)
        elif parameter.default is inspect.Parameter.empty:
            raise StartError(
                "HandlerInvalid",
                f"{where}: argument {parameter.name!r} can't be provided{_suggestion(parameter.name, available)} "
                f"(available: {', '.join(available)})",
            )
    return tuple(dict.fromkeys(wanted))


def _near_misses(cls: type, interface: Interface, where: str) -> None:
    for name in vars(cls):
        if name.startswith("_") or name in interface.methods or not callable(getattr(cls, name)):
            continue
        if not name.startswith("handle"):
            continue
        near = difflib.get_close_matches(name, interface.methods, 1, 0.8)
        if near:
            raise StartError(
                "HandlerInvalid",
                f"{where}: {interface.name}.{name} is never called; did you mean {near[0]}?",
            )


def _refuse_two_definitions(path: Path, name: str) -> None:
    try:
        tree = ast.parse(path.read_bytes(), str(path))
    except (SyntaxError, ValueError) as error:
        raise StartError(
            "HandlerImportError", f"{path.name} does not parse:\n{last_lines(error, 4)}"
        ) from error
    lines = [str(node.lineno) for node in tree.body if isinstance(node, ast.ClassDef) and node.name == name]
    if len(lines) > 1:
        raise StartError(
            "HandlerInvalid",
            f"{path.name} defines class {name} {len(lines)} times, in lines {', '.join(lines)}",
        )


def _import(path: Path) -> Any:
    # The plain stem, so that what was pickled beside the handler finds its module again.
    name = path.stem
    if not name.isidentifier() or name in sys.modules or name in sys.stdlib_module_names:
        name = f"cortex_handler_{name}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise StartError("HandlerImportError", f"{path} can't be imported as Python")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise StartError(
            "HandlerImportError", f"{path.name} raised {in_one_line(error)}\n{last_lines(error)}"
        ) from error
    return module


def _suggestion(name: str, known: Iterable[str], near: Iterable[str] = ()) -> str:
    close = list(near) or difflib.get_close_matches(name, list(known), 1, 0.6)
    return f"; did you mean {close[0]}?" if close else ""
