"""Recognize the interface of a user's file, before any function of it is called.

`load` imports the file, finds its class or functions, and checks them against the interface. Each problem is a StartError with
its location and a suggestion.
"""

import ast
import difflib
import importlib.util
import inspect
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from cortex_runtime.errors import StartError
from cortex_runtime.handler import routing
from cortex_runtime.handler.arguments import UNSUPPORTED, arguments_of, suggestion
from cortex_runtime.handler.interfaces import (
    INFER_ARGUMENTS,
    INTERFACES,
    OPENAI_ARGUMENTS,
    REQUEST_ARGUMENTS,
    STAGES,
    VERBS,
    Code,
    Form,
    Interface,
    constructor_arguments,
)
from cortex_runtime.handler.route import MARK
from cortex_runtime.logs.tracebacks import brief, cause


def load_code(path: Path | None, handler_type: str, kind: str = "RealtimeAPI") -> Code:
    """Return the recognized code of a file. path: None to serve a model without code.

    kind: RealtimeAPI or AsyncAPI. Raises StartError: HandlerNotFound, HandlerImportError or HandlerInvalid.
    """
    if path is None:
        return Code(INTERFACES[-1], handler_type, kind)
    if not path.is_file():
        siblings = sorted(file.name for file in path.parent.glob("*.py"))
        raise StartError(
            "HandlerNotFound",
            f"handler.path: file {path} does not exist{suggestion(path.name, siblings)}"
            + (f" (Python files in this folder: {', '.join(siblings)})" if siblings else ""),
        )
    _refuse_two_definitions(path)
    module = _import_file(path)
    code = _recognize(module, path.name, handler_type, kind)
    _check(code)
    return code


def _check(code: Code) -> None:
    """Check code against its interface. Raises StartError (HandlerInvalid)."""
    available = code.interface.arguments(code.kind)
    if code.interface.form is Form.CLASS:
        _check_class(code, available)
        return
    routing.declared_routes(code)
    if code.interface.form is Form.FUNCTIONS:
        arguments_of(code.target.predict, available, f"{code.where}: predict", bound=True)
        constructor_arguments(code)
    else:
        for name, function in code.stages.items():
            arguments_of(
                function,
                (*REQUEST_ARGUMENTS, *code.interface.extra),
                f"{code.where}: {name}",
                bound=True,
                first=True,
            )


def _recognize(module: ModuleType, where: str, handler_type: str, kind: str) -> Code:
    names = vars(module)
    classes = [i for i in INTERFACES if i.form is Form.CLASS and i.name in names]
    fitting = [i for i in classes if handler_type in i.types]
    if len(fitting) > 1:
        raise StartError(
            "HandlerInvalid",
            f"{where} must define only one handler class; got {' and '.join(i.name for i in fitting)}",
        )
    if fitting:
        target = names[fitting[0].name]
        if not inspect.isclass(target):
            raise StartError(
                "HandlerInvalid",
                f"{where}: {fitting[0].name} must be a class; got {type(target).__name__}",
            )
        return Code(fitting[0], handler_type, kind, where, target)
    functions = {name for name, value in names.items() if callable(value) and not inspect.isclass(value)}
    stages = {name: names[name] for name in STAGES if name in functions}
    if handler_type == "python" and "predict" in functions:
        interface = next(i for i in INTERFACES if i.form is Form.FUNCTIONS)
        return Code(interface, handler_type, kind, where, module)
    if handler_type != "python" and stages:
        interface = next(i for i in INTERFACES if i.form is Form.STAGES)
        return Code(interface, handler_type, kind, where, module, stages)
    raise _not_found(names, functions, classes, where, handler_type, kind)


def _not_found(
    names: Mapping[str, Any],
    functions: set[str],
    classes: list[Interface],
    where: str,
    handler_type: str,
    kind: str,
) -> StartError:
    """Return the error for a file that defines no interface of this type."""
    wanted = [i for i in INTERFACES if handler_type in i.types]
    classes_wanted = [i.name for i in wanted if i.form is Form.CLASS]
    functions_wanted = ["predict"] if handler_type == "python" else list(STAGES)
    alternatives = f"(or class {classes_wanted[-1]}, or function {' / '.join(functions_wanted)})"
    if classes:
        return StartError(
            "HandlerNotFound",
            f"{where}: class {classes[0].name} requires handler.type {classes[0].types[0]}; got {handler_type}. "
            f"Rename the class to {classes_wanted[-1]} or Handler, or change handler.type",
        )
    lost = sorted(functions & (set(VERBS) | {"handle_async"}))
    if lost:
        return StartError(
            "HandlerNotFound",
            f"{where}: {lost[0]} must be a method of class Handler; got a function {alternatives}",
        )
    if handler_type == "python" and functions & set(STAGES):
        return StartError(
            "HandlerNotFound",
            f"{where}: {sorted(functions & set(STAGES))[0]} requires handler.type onnx or tensorflow; "
            f"with type python, define class Handler {alternatives}",
        )
    if "predict" in functions:
        return StartError(
            "HandlerNotFound",
            f"{where}: a function predict requires handler.type python; with type {handler_type}, define class Handler "
            f"{alternatives}",
        )
    if inspect.isclass(names.get("Task")):
        return StartError("HandlerNotFound", f"{where}: class Task: {UNSUPPORTED['Task']} {alternatives}")
    defined = [name for name, value in names.items() if inspect.isclass(value) and not name.startswith("_")]
    for target in classes_wanted:
        near = [name for name in defined if name.lower() == target.lower()]
        near = near or difflib.get_close_matches(target, defined, 1, 0.6)
        if near:
            return StartError(
                "HandlerNotFound",
                f"{where} does not define class {target}; did you mean {near[0]}? Rename it to {target} {alternatives}",
            )
    for target in functions_wanted:
        near = difflib.get_close_matches(target, sorted(functions), 1, 0.75)
        if near:
            return StartError(
                "HandlerNotFound",
                f"{where} does not define function {target}; did you mean {near[0]}? Rename it to {target} {alternatives}",
            )
    return StartError("HandlerNotFound", f"{where} does not define class Handler {alternatives}")


def _check_class(code: Code, available: tuple[str, ...]) -> None:
    cls, interface, where = code.target, code.interface, code.where
    constructor_arguments(code)
    _refuse_unused_methods(code)
    defined = [name for name in code.verbs if getattr(cls, name, None) is not None]
    infers = code.infer is not None and getattr(cls, code.infer, None) is not None
    openai = [name for name in code.openai if getattr(cls, name, None) is not None]
    routes = routing.declared_routes(code)
    if not defined and not infers and not openai and not routes:
        close = difflib.get_close_matches(
            next(iter(code.verbs)), [n for n in dir(cls) if n[0] != "_"], 1, 0.6
        )
        raise StartError(
            "HandlerInvalid",
            f"{where}: class {interface.name} must define "
            + ("" if len(code.verbs) == 1 else "at least one of ")
            + ", ".join(code.verbs)
            + (" or a method with @route" if len(code.verbs) > 1 else "")
            + (f"; did you mean {close[0]}?" if close else ""),
        )
    checked: dict[str, tuple[str, ...]] = dict.fromkeys(defined, available)
    if interface.after and getattr(cls, interface.after, None) is not None:
        checked[interface.after] = ("response", *available)
    if code.infer is not None and infers:
        checked[code.infer] = INFER_ARGUMENTS
    checked |= dict.fromkeys(openai, OPENAI_ARGUMENTS)
    if getattr(cls, "load_model", None) is not None:
        checked["load_model"] = ("model_path",)
    for name, arguments in checked.items():
        attribute = inspect.getattr_static(cls, name)
        if not callable(getattr(cls, name)):
            raise StartError("HandlerInvalid", f"{where}: {interface.name}.{name} must be a method")
        bound = isinstance(attribute, staticmethod | classmethod) or not hasattr(attribute, "__get__")
        arguments_of(getattr(cls, name), arguments, f"{where}: {interface.name}.{name}", bound=bound)


def _refuse_unused_methods(code: Code) -> None:
    """Refuse methods that are never called but whose names look as if they were. Raises StartError."""
    cls, interface, where = code.target, code.interface, code.where
    if hasattr(cls, "handle_batch"):
        raise StartError(
            "HandlerInvalid", f"{where}: {interface.name}.handle_batch: {UNSUPPORTED['handle_batch']}"
        )
    elsewhere = {
        name: kind for kind, names in interface.methods.items() for name in names if kind != code.kind
    }
    for name in dir(cls):
        if (
            name in (*code.verbs, code.infer, *code.openai)
            or not name.startswith("handle")
            or not callable(getattr(cls, name))
            or hasattr(getattr(cls, name), MARK)
        ):
            continue
        if name in elsewhere and not any(hasattr(cls, verb) for verb in code.verbs):
            raise StartError(
                "HandlerInvalid",
                f"{where}: {interface.name}.{name} is a method of kind {elsewhere[name]}; got kind {code.kind}; "
                f"did you mean {next(iter(code.verbs))}?",
            )
        near = difflib.get_close_matches(name, (*code.verbs, *elsewhere, *code.openai), 1, 0.8)
        if near and name not in elsewhere:
            raise StartError(
                "HandlerInvalid",
                f"{where}: {interface.name}.{name} is never called; did you mean {near[0]}?",
            )


def _refuse_two_definitions(path: Path) -> None:
    """Refuse a file that defines a class twice, of which Python would keep only the last. Raises StartError."""
    try:
        tree = ast.parse(path.read_bytes(), str(path))
    except (SyntaxError, ValueError) as error:
        # Its frames are those of the parser.
        text = brief(error.with_traceback(None))
        raise StartError(
            "HandlerImportError", f"{path.name} is not valid Python: {cause(error)}\n{text}"
        ) from error
    for interface in INTERFACES:
        lines = [
            str(node.lineno)
            for node in tree.body
            if isinstance(node, ast.ClassDef) and node.name == interface.name
        ]
        if len(lines) > 1:
            raise StartError(
                "HandlerInvalid",
                f"{path.name} must define class {interface.name} once; got {len(lines)} definitions, in lines {', '.join(lines)}",
            )


def _import_file(path: Path) -> ModuleType:
    """Return the module of a file. Raises StartError (HandlerImportError)."""
    # Named as an import would name it, so that pickled objects of its classes find their module.
    name = path.stem
    if not name.isidentifier() or name in sys.modules or name in sys.stdlib_module_names:
        name = f"cortex_handler_{name}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise StartError("HandlerImportError", f"{path} must be a Python file (*.py)")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise StartError(
            "HandlerImportError", f"{path.name} raised {cause(error)}\n{brief(error)}"
        ) from error
    return module
